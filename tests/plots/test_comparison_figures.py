"""The figures that compare optimizers value by value."""

import numpy as np

from adamlab import records
from adamlab.hyperparameters import grid_of
from plots.sensitivity import compose_all
from tests.plots.artists import curves, heading, legend, panels
from tests.plots.curves import ADAM, write_grid, write_run


def test_other_optimizers_have_figures_of_their_own_and_are_compared_value_by_value(tmp_path):
    for optimizer, scale in (("adam", 1.0), ("adam_lawn", 2.0), ("sgd", 3.0)):
        for place, value in enumerate(grid_of(optimizer, "alpha", "magnitude")):
            for seed in (0, 1):
                losses = (9.0, scale * (1 + place) + 0.5 * seed)
                write_run(tmp_path, losses, optimizer=optimizer, alpha=value, seed=seed)
    figures = compose_all(records.read_runs(tmp_path))
    names = ["figure1-training-loss", "figure3-test-loss", "figure4-test-accuracy"]
    expected = [name + suffix for suffix in ("", "-adam_lawn", "-sgd") for name in names]
    assert sorted(figures) == sorted([*expected, "figure-optimizers-train_loss", "figure-optimizers-test_accuracy"])
    assert "one of SGD's hyperparameters varies" in heading(figures["figure1-training-loss-sgd"])
    assert list(curves(panels(figures["figure1-training-loss-sgd"])[r"plain20, $\alpha$"])) == [
        "1e-3",
        "0.01",
        "0.1",
        "1",
        "10",
    ]

    (axes,) = figures["figure-optimizers-train_loss"].axes
    # Adam's five alphas and SGD's, from 1e-5 to 10, make seven places; SGD's begin at the third.
    assert [axes.xaxis.get_major_formatter()(x) for x in axes.xaxis.get_majorticklocs()] == [
        "1e-5", "1e-4", "1e-3", "0.01", "0.1", "1", "10",
    ]  # fmt: skip
    lines = {container.get_label(): container.lines[0].get_xydata() for container in axes.containers}
    assert list(lines) == ["Adam", "Adam-LAWN", "SGD"]
    # The mean of two seeds, 0.25 above the first.
    np.testing.assert_allclose(lines["Adam-LAWN"], [[i, 2 * (1 + i) + 0.25] for i in range(5)])
    np.testing.assert_allclose(lines["SGD"], [[2 + i, 3 * (1 + i) + 0.25] for i in range(5)])


def test_networks_that_were_trained_at_other_values_share_their_places(tmp_path):
    for optimizer in ("adam", "adamw"):
        for model, values in (("plain20", ADAM["alpha"]), ("resnet34", (1e-3, 0.1))):
            for value in values:
                write_run(tmp_path, (1.0 + value,), model=model, optimizer=optimizer, alpha=value)
    figure = compose_all(records.read_runs(tmp_path))["figure-optimizers-train_loss"]
    for axes, places in zip(figure.axes, (range(5), (2, 4)), strict=True):
        labels = axes.xaxis.get_major_formatter()
        assert [labels(x) for x in axes.xaxis.get_majorticklocs()] == ["1e-5", "1e-4", "1e-3", "0.01", "0.1"]
        for container in axes.containers:
            assert [round(x) for x in container.lines[0].get_xdata()] == list(places)


def test_one_optimizer_is_compared_with_nothing(tmp_path):
    write_grid(tmp_path, ADAM)
    assert not any("optimizers" in name for name in compose_all(records.read_runs(tmp_path)))


def test_networks_share_accuracies_but_not_losses_and_what_diverged_is_counted(tmp_path):
    for model, loss in (("plain20", 1.0), ("resnet34", 8.0)):
        for optimizer in ("adam", "adam_lawn"):
            for alpha in (1e-3, 1e-2):
                write_run(tmp_path, (loss,), model=model, optimizer=optimizer, alpha=alpha)
    write_run(tmp_path, (9.0,), "diverged", optimizer="adam_lawn", alpha=0.1)
    figures = compose_all(records.read_runs(tmp_path))
    plain, residual = figures["figure-optimizers-test_accuracy"].axes
    assert plain.get_ylim() == residual.get_ylim()
    plain, residual = figures["figure-optimizers-train_loss"].axes
    assert plain.get_ylim() != residual.get_ylim()
    for name in ("train_loss", "test_accuracy"):
        figure = figures[f"figure-optimizers-{name}"]
        assert legend(figure.axes[0]) == ["Adam", "Adam-LAWN\n(1 of 5 diverged)"]
        assert "diverged, not in the mean (1 of 9 runs)" in heading(figure)
        assert "LAWN: constant learning rate, $E_{free}$ 1 of the epochs" in heading(figure)
