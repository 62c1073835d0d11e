"""The sensitivity figures: which run stands where, what is read off the axes."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from adamlab import records
from adamlab.hyperparameters import MAGNITUDE, PERTURBATION
from plots.panels import select
from plots.sensitivity import KINDS, compose, draw
from tests.plots.artists import curves, heading, legend, panels
from tests.plots.curves import ADAM, PROTOCOL, write_grid, write_run

FIGURE1, FIGURE2, FIGURE3, FIGURE4 = KINDS


def figure_of(out: Path, kind=FIGURE1, optimizer="adam") -> Figure:
    figure = compose(records.read_runs(out), kind, optimizer)
    assert figure is not None
    return figure


def marks(axes: Axes, marker: str) -> list[tuple[float, float]]:
    """Where a marker without a curve stands."""
    return [tuple(point) for line in axes.lines if line.get_marker() == marker for point in line.get_xydata()]


def test_default_run_is_shared_by_all_panels_and_each_value_has_its_own(tmp_path):
    write_grid(tmp_path, ADAM)
    found = panels(figure_of(tmp_path))
    assert list(found) == [r"plain20, $\alpha$", r"plain20, $\beta_1$", r"plain20, $\beta_2$", r"plain20, $\epsilon$"]
    labels = [list(curves(axes)) for axes in found.values()]
    assert labels == [
        ["1e-5", "1e-4", "1e-3", "0.01", "0.1"],
        ["0.1", "0.5", "0.9", "0.99", "0.999"],
        ["0.1", "0.9", "0.99", "0.999", "0.9999"],
        ["1e-8", "1e-6", "1e-4", "0.01", "1"],
    ]


def test_perturbations_and_magnitudes_are_told_apart_by_value(tmp_path):
    write_grid(tmp_path, ADAM)
    write_grid(tmp_path, PERTURBATION)
    write_run(tmp_path, alpha=0.003)  # a user's own value, in neither grid
    magnitude, perturbation = panels(figure_of(tmp_path)), panels(figure_of(tmp_path, FIGURE2))
    assert list(curves(magnitude[r"plain20, $\alpha$"])) == ["1e-5", "1e-4", "1e-3", "3e-3", "0.01", "0.1"]
    # alpha x 0.8 ... 1.2, and 1 - beta x 0.8 ... 1.2: from high to low beta, drawn from low to high.
    assert {title: list(curves(axes)) for title, axes in perturbation.items()} == {
        r"plain20, $\alpha$": ["8e-4", "9e-4", "1e-3", "1.1e-3", "1.2e-3"],
        r"plain20, $\beta_1$": ["0.88", "0.89", "0.9", "0.91", "0.92"],
        r"plain20, $\beta_2$": ["0.9988", "0.9989", "0.999", "0.9991", "0.9992"],
    }


def test_a_grid_of_ones_own_stays_together_where_it_meets_perturbed_values(tmp_path):
    write_grid(tmp_path, {"beta1": (0.8, 0.85, 0.88, 0.9, 0.92, 0.95)})
    assert compose(records.read_runs(tmp_path), FIGURE2) is None
    (axes,) = panels(figure_of(tmp_path)).values()
    assert list(curves(axes)) == ["0.8", "0.85", "0.88", "0.9", "0.92", "0.95"]


def test_run_with_two_changes_belongs_to_no_panel(tmp_path):
    write_run(tmp_path, alpha=0.1, beta1=0.5)
    write_run(tmp_path)
    runs = records.read_runs(tmp_path)
    assert all(
        select(runs, "plain20", name, study) == [] for name in MAGNITUDE for study in ("magnitude", "perturbation")
    )


def test_only_panels_with_records_are_drawn(tmp_path):
    for model in ("resnet34", "plain20"):
        write_run(tmp_path, model=model)
    write_run(tmp_path, model="plain20", alpha=0.1)
    write_run(tmp_path, model="plain20", beta1=0.5)
    write_run(tmp_path, model="resnet34", alpha=0.1)
    assert list(panels(figure_of(tmp_path))) == [r"plain20, $\alpha$", r"resnet34, $\alpha$", r"plain20, $\beta_1$"]


def test_single_panel_and_no_figure_without_panel(tmp_path):
    write_run(tmp_path)
    assert draw(tmp_path) == []
    assert not list(tmp_path.rglob("figures"))
    write_run(tmp_path, epsilon=1.0)
    assert list(panels(figure_of(tmp_path))) == [r"plain20, $\epsilon$"]
    names = {path.name for path in draw(tmp_path)}
    stems = ("figure1-training-loss", "figure3-test-loss", "figure4-test-accuracy")  # epsilon is not perturbed
    assert names == {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "svg")}


def test_each_figure_draws_its_metric_on_its_scale(tmp_path):
    write_run(tmp_path, alpha=0.1)
    for kind, factor, scale in ((FIGURE1, 1, "log"), (FIGURE3, 10, "log"), (FIGURE4, 100 / 10, "linear")):
        (axes,) = figure_of(tmp_path, kind).axes
        np.testing.assert_allclose(curves(axes)["0.1"], [(1, 2 * factor), (2, factor), (3, factor / 2)], rtol=1e-12)
        assert axes.get_yscale() == scale


def test_line_is_the_mean_of_seeds_and_band_their_range(tmp_path):
    for seed, losses in enumerate([(1.0, 0.4), (2.0, 0.5), (6.0, 0.9)]):
        write_run(tmp_path, losses, alpha=0.1, seed=seed)
    (axes,) = figure_of(tmp_path).axes
    # Means: (1 + 2 + 6) / 3 and (0.4 + 0.5 + 0.9) / 3.
    np.testing.assert_allclose(curves(axes)["0.1"], [(1, 3.0), (2, 0.6)], rtol=1e-12)
    (band,) = [artist for artist in axes.collections if isinstance(artist, PolyCollection)]
    corners = {(x, y) for x, y in band.get_paths()[0].vertices}
    assert corners == {(1, 1.0), (1, 6.0), (2, 0.4), (2, 0.9)}
    assert "3 seeds" in heading(figure_of(tmp_path))
    assert "band: smallest to largest" in heading(figure_of(tmp_path))


def test_where_seeds_stop_the_mean_is_said_to_be_of_those_that_go_on(tmp_path):
    for seed, losses in enumerate([(1.0, 0.5), (9.0,), (9.0,)]):
        write_run(tmp_path, losses, "finished" if seed == 0 else "diverged", alpha=0.1, seed=seed)
    assert "line: mean of the seeds that got so far, band: smallest to largest" in heading(figure_of(tmp_path))


def test_one_seed_has_no_band(tmp_path):
    write_run(tmp_path, alpha=0.1)
    figure = figure_of(tmp_path)
    assert not figure.axes[0].collections
    assert "1 seed" in heading(figure)
    assert "band" not in heading(figure)
    assert "scales of their own" not in heading(figure)


def test_networks_share_epochs_accuracies_and_styles_and_the_default_stands_out(tmp_path):
    write_grid(tmp_path, {"alpha": (1e-5, 1e-3, 1e-1)})
    write_grid(tmp_path, {"alpha": (1e-3, 1e-1)}, model="resnet34", losses=(0.02, 0.01))
    plain, residual = figure_of(tmp_path, FIGURE4).axes
    assert plain.get_ylim() == residual.get_ylim()
    plain, residual = figure_of(tmp_path).axes
    assert plain.get_xlim() == residual.get_xlim()
    # Losses of 0.5 to 2 and 0.01 to 0.02: on one scale both would be flat.
    assert residual.get_ylim()[1] < 0.03 < 0.4 < plain.get_ylim()[0]
    assert all(axes.yaxis.get_tick_params()["labelleft"] for axes in (plain, residual))
    style = {
        axes: {line.get_label(): (line.get_color(), line.get_marker()) for line in axes.lines}
        for axes in (plain, residual)
    }
    assert all(style[plain][label] == style[residual][label] for label in ("1e-3", "0.1"))
    widths = {line.get_label(): line.get_linewidth() for line in plain.lines}
    assert widths["1e-3"] > 2 * widths["0.1"] == 2 * widths["1e-5"]
    assert legend(plain) == ["0.1", "1e-3, default", "1e-5\n(resnet34 not run)"]


def test_values_differ_by_marker_and_by_lightness(tmp_path):
    write_grid(tmp_path, {"beta2": MAGNITUDE["beta2"]})
    lines = [line for line in figure_of(tmp_path).axes[0].lines if line.get_linestyle() == "-"]
    assert len({line.get_marker() for line in lines}) == 5
    grey = [np.dot(line.get_color()[:3], (0.299, 0.587, 0.114)) for line in lines]  # ITU-R BT.601 luma
    # From low to high values ever lighter, in steps that paper can show, and never close to white.
    assert min(np.diff(grey)) > 0.08
    assert grey[-1] < 0.75


def test_diverged_run_ends_in_an_x_and_is_named(tmp_path):
    write_run(tmp_path, (3.0, 5.0), "diverged", alpha=0.1)
    write_run(tmp_path, (), "diverged", alpha=1.0)
    write_run(tmp_path)
    figure = figure_of(tmp_path)
    (axes,) = figure.axes
    # Without an epoch: before epoch 1, at the top, where the y is a fraction of the axes.
    assert marks(axes, "x") == [(2, 5.0), (0.5, 0.95)]
    assert axes.get_xlim()[0] < 0.5
    assert legend(axes) == ["1 (diverged)", "0.1 (diverged)", "1e-3, default"]
    assert "diverged" in heading(figure)


def test_runs_that_diverge_far_above_or_at_once_have_their_marks_within_the_axes_and_apart(tmp_path):
    write_run(tmp_path, (3.0, 1e5), "diverged", alpha=0.1)
    for alpha in (1.0, 10.0):
        write_run(tmp_path, (), "diverged", alpha=alpha)
    (axes,) = figure_of(tmp_path).axes
    end, first, second = marks(axes, "x")
    assert end == (2, 20)  # the axis' upper end
    assert first[0] == second[0] == 0.5
    assert 0 < second[1] < first[1] - 0.05 < 1


def test_legend_says_which_network_and_how_many_seeds_did_not_finish(tmp_path):
    for seed in range(2):
        write_run(tmp_path, outcome="diverged" if seed else "finished", alpha=0.1, seed=seed)
        write_run(tmp_path, model="resnet34", alpha=0.1, seed=seed)
    write_run(tmp_path, alpha=0.01)
    write_run(tmp_path, (2.0,), None, model="resnet34", alpha=0.01)
    figure = figure_of(tmp_path)
    # Beside 0.1, whose lines have bands, 0.01 would pass for one whose seeds agree.
    single = "\n(plain20 1 seed)\n(resnet34 1 seed)"
    assert legend(figure.axes[0]) == ["0.1\n(plain20 1/2 diverged)", f"0.01\n(resnet34 unfinished){single}"]
    assert "1 of 6 runs unfinished" in heading(figure)
    assert "1 to 2 seeds" in heading(figure)


def test_nothing_but_divergence_is_drawn_too(tmp_path):
    write_run(tmp_path, (), "diverged", alpha=1.0)
    assert len(draw(tmp_path)) == 6


def test_unfinished_run_is_drawn_as_far_as_it_is(tmp_path):
    write_run(tmp_path, (2.0,), None, alpha=0.1)
    write_run(tmp_path, (), None, alpha=0.01)  # has just begun: nothing to draw yet
    figure = figure_of(tmp_path)
    (axes,) = figure.axes
    np.testing.assert_array_equal(curves(axes)["0.1"], [(1, 2.0)])
    assert legend(axes) == ["0.1 (unfinished)"]
    assert axes.get_xlim()[1] > PROTOCOL.epochs
    assert "1 of 1 runs unfinished" in heading(figure)


def test_losses_beyond_use_do_not_squash_the_others(tmp_path):
    write_run(tmp_path, (1e7, 1e3, 1.5), alpha=0.1)
    write_run(tmp_path, (1e5, 0.5, 0.0), alpha=1.0)
    write_run(tmp_path, (2.0, 0.5, 0.0))
    figure = figure_of(tmp_path)
    (axes,) = figure.axes
    assert axes.get_ylim() == pytest.approx((0.9 * 0.5, 20))  # 0.5 is the smallest loss that a logarithm has
    assert marks(axes, r"$\uparrow$") == [(1, 20), (2, 20), (1, 20)]
    # Of two values in one epoch: side by side.
    arrows = [line for line in axes.lines if line.get_marker() == r"$\uparrow$" and len(line.get_xdata())]
    low, high = (arrow.get_transform().transform((1, 20)) for arrow in arrows)
    assert high[0] - low[0] > 4
    assert high[1] == low[1]
    assert "arrows at the upper edge: means above 20, where bands end, too" in heading(figure)


def test_heading_names_data_protocol_and_variants(tmp_path):
    write_run(tmp_path / "a", alpha=0.1)
    write_run(tmp_path / "b", alpha=0.1, dataset="digits", epsilon_placement="inside", precision="bf16")
    ours, other = figure_of(tmp_path / "a"), figure_of(tmp_path / "b")
    said = "protocol laptop, 5,000 training and 2,000 test images, batch 100, 3 epochs, 1 seed"
    assert f"CIFAR-10: {said}" in heading(ours)
    assert "NOT" not in heading(ours)
    assert f"digits, NOT CIFAR-10: {said}" in heading(other)
    assert r"bf16; $\epsilon$ inside the root" in heading(other)
    write_run(tmp_path / "c", alpha=0.1, microbatch=50)
    assert "BatchNorm over parts of a batch" in heading(figure_of(tmp_path / "c"))
    assert "BatchNorm" not in heading(ours) + heading(other)
    write_run(tmp_path / "d", alpha=0.1, downsample="first")
    write_run(tmp_path / "d", alpha=0.1, model="resnet34", stem="cifar")
    assert "CIFAR stem; first layer of a set downsamples" in heading(figure_of(tmp_path / "d"))


def test_heading_says_what_is_changed_and_how_lawn_was_trained(tmp_path):
    write_grid(tmp_path, {"alpha": PERTURBATION["alpha"]})
    assert heading(figure_of(tmp_path, FIGURE2)).startswith(
        "Training loss when one of Adam's hyperparameters is perturbed CIFAR-10"
    )
    for free_epochs in (0.0, 1.0, 2.0):
        write_run(tmp_path, optimizer="adam_lawn", free_epochs=free_epochs)
    said = heading(figure_of(tmp_path, optimizer="adam_lawn"))
    assert said.startswith("Training loss when one of Adam-LAWN's hyperparameters varies CIFAR-10")
    assert "LAWN: constant learning rate, $E_{free}$ 0 to 2 of the epochs" in said


def test_each_study_gets_its_figures(tmp_path):
    results = tmp_path / "results"
    for dataset in ("digits", "cifar10"):
        write_run(results, alpha=0.1, dataset=dataset)
    study = results / "cifar10-laptop"
    assert {path.parent for path in draw(tmp_path)} == {
        study / "figures",
        results / "digits-laptop" / "figures",
    }
    assert {path.parent for path in draw(study)} == {study / "figures"}
    assert {path.parent for path in draw(study, tmp_path / "one")} == {tmp_path / "one"}
    assert {path.parent for path in draw(results, tmp_path / "all")} == {
        tmp_path / "all" / "cifar10-laptop",
        tmp_path / "all" / "digits-laptop",
    }
    with pytest.raises(records.RecordsError, match="is a part of the study"):
        draw(study / "plain20")


def test_a_run_that_is_mounted_below_the_root_has_no_study(monkeypatch):
    """As a container may have it; what lies above `/` is `/`."""
    run = SimpleNamespace(folder=Path("/run"))
    monkeypatch.setattr("plots.studies.read_runs", lambda results: [run])
    with pytest.raises(records.RecordsError, match="/run is a part of the study /;"):
        draw(Path("/run"))


def test_same_records_give_the_same_bytes(tmp_path):
    for seed in range(2):
        write_grid(tmp_path, {"alpha": (1e-3, 1e-1)}, seed=seed)
    first, second = draw(tmp_path, tmp_path / "first"), draw(tmp_path, tmp_path / "second")
    assert [path.name for path in first] == [path.name for path in second]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))
