"""The sensitivity figures: which run stands where, what is read off the axes, what a command line answers."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from adamlab import records
from adamlab.config import Protocol, RunConfig
from adamlab.hyperparameters import MAGNITUDE, OPTIMIZERS, PERTURBATION, Hyperparameters, grid_of
from plots.ranking import curves as curves_of
from plots.sensitivity import KINDS, compose, compose_all, draw, select

PROTOCOL = Protocol("laptop", train_images=5_000, test_images=2_000, batch_size=100, epochs=3)
LOSSES = (2.0, 1.0, 0.5)
FIGURE1, FIGURE2, FIGURE3, FIGURE4 = KINDS
ADAM = {name: MAGNITUDE[name] for name in ("alpha", "beta1", "beta2", "epsilon")}


def write_run(out: Path, losses=LOSSES, outcome="finished", *, model="plain20", dataset="cifar10", seed=0, **changed):
    """Writes one run: its training losses, test losses ten times and accuracies a tenth of them; `changed` may be
    hyperparameters or entries of RunConfig."""
    hyper = {name: changed.pop(name) for name in list(changed) if name in MAGNITUDE}
    defaults = OPTIMIZERS[changed.get("optimizer", "adam")].defaults
    config = RunConfig(dataset, model, PROTOCOL, replace(defaults, **hyper), seed, **changed)
    folder = records.run_folder(out, config)
    if records.open_run(folder, config, {}).outcome:
        return  # the default setting, of another grid
    for epoch, loss in enumerate(losses, start=1):
        records.append(folder, {"epoch": epoch, "train_loss": loss, "test_loss": 10 * loss, "test_accuracy": loss / 10})
    if outcome:
        records.append(folder, {"outcome": outcome})


def write_grid(out: Path, grid: dict[str, tuple[float, ...]], **options) -> None:
    """Writes every run of a grid, the default setting once."""
    settings = {replace(Hyperparameters(), **{name: value}) for name, values in grid.items() for value in values}
    for setting in settings:
        write_run(out, **{name: getattr(setting, name) for name in MAGNITUDE}, **options)


def figure_of(out: Path, kind=FIGURE1) -> Figure:
    figure = compose(records.read_runs(out), kind)
    assert figure is not None
    return figure


def panels(figure: Figure) -> dict[str, Axes]:
    """Axes by title."""
    return {axes.get_title(): axes for axes in figure.axes}


def curves(axes: Axes) -> dict[str, np.ndarray]:
    """What is drawn as a curve: (epochs, 2) numbers by label."""
    return {str(line.get_label()): line.get_xydata() for line in axes.lines if line.get_linestyle() == "-"}


def marks(axes: Axes, marker: str | int) -> list[tuple[float, float]]:
    """Where a marker without a curve stands."""
    return [tuple(point) for line in axes.lines if line.get_marker() == marker for point in line.get_xydata()]


def legend(axes: Axes) -> list[str]:
    box = axes.get_legend()
    return [text.get_text() for text in box.get_texts()] if box else []


def heading(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


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


def test_one_seed_has_no_band(tmp_path):
    write_run(tmp_path, alpha=0.1)
    figure = figure_of(tmp_path)
    assert not figure.axes[0].collections
    assert "1 seed" in heading(figure)
    assert "band" not in heading(figure)


def test_networks_share_axes_and_styles_and_the_default_stands_out(tmp_path):
    write_grid(tmp_path, {"alpha": (1e-5, 1e-3, 1e-1)})
    write_grid(tmp_path, {"alpha": (1e-3, 1e-1)}, model="resnet34", losses=(0.02, 0.01))
    plain, residual = figure_of(tmp_path).axes
    assert plain.get_ylim() == residual.get_ylim()
    assert plain.get_xlim() == residual.get_xlim()
    style = {
        axes: {line.get_label(): (line.get_color(), line.get_marker()) for line in axes.lines}
        for axes in (plain, residual)
    }
    assert all(style[plain][label] == style[residual][label] for label in ("1e-3", "0.1"))
    widths = {line.get_label(): line.get_linewidth() for line in plain.lines}
    assert widths["1e-3"] > 2 * widths["0.1"] == 2 * widths["1e-5"]
    assert legend(plain) == ["0.1", "1e-3, default", "1e-5"]


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


def test_legend_says_which_network_and_how_many_seeds_did_not_finish(tmp_path):
    for seed in range(2):
        write_run(tmp_path, outcome="diverged" if seed else "finished", alpha=0.1, seed=seed)
        write_run(tmp_path, model="resnet34", alpha=0.1, seed=seed)
    write_run(tmp_path, alpha=0.01)
    write_run(tmp_path, (2.0,), None, model="resnet34", alpha=0.01)
    figure = figure_of(tmp_path)
    assert legend(figure.axes[0]) == ["0.1\n(plain20 1/2 diverged)", "0.01\n(resnet34 unfinished)"]
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
    write_run(tmp_path, (2.0, 0.5, 0.0))
    figure = figure_of(tmp_path)
    (axes,) = figure.axes
    assert axes.get_ylim() == pytest.approx((0.9 * 0.5, 20))  # 0.5 is the smallest loss that a logarithm has
    assert marks(axes, 6) == [(1, 20), (2, 20)]  # matplotlib's CARETUP
    assert "triangles at the upper edge: above 20" in heading(figure)


def test_heading_names_data_protocol_and_variants(tmp_path):
    write_run(tmp_path / "a", alpha=0.1)
    write_run(tmp_path / "b", alpha=0.1, dataset="digits", epsilon_placement="inside", precision="bf16")
    ours, other = figure_of(tmp_path / "a"), figure_of(tmp_path / "b")
    said = "protocol laptop, 5,000 training and 2,000 test images, batch 100, 3 epochs, 1 seed"
    assert f"CIFAR-10: {said}" in heading(ours)
    assert "NOT" not in heading(ours)
    assert f"digits, NOT CIFAR-10: {said}" in heading(other)
    assert r"bf16; $\epsilon$ inside the root" in heading(other)


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


def test_same_records_give_the_same_bytes(tmp_path):
    for seed in range(2):
        write_grid(tmp_path, {"alpha": (1e-3, 1e-1)}, seed=seed)
    first, second = draw(tmp_path, tmp_path / "first"), draw(tmp_path, tmp_path / "second")
    assert [path.name for path in first] == [path.name for path in second]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "plots.sensitivity", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_command_prints_the_files_it_wrote(tmp_path):
    write_run(tmp_path, alpha=0.1)
    answer = command(tmp_path, "--out", tmp_path / "figures")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.split() == [
        str(tmp_path / "figures" / "cifar10-laptop" / f"{kind.name}.{suffix}")
        for kind in (FIGURE1, FIGURE3, FIGURE4)
        for suffix in ("png", "svg")
    ]
    assert all(Path(path).stat().st_size > 1_000 for path in answer.stdout.split())


def test_errors_are_one_line_and_status_2(tmp_path):
    write_run(tmp_path / "default", (2.0,))
    write_run(tmp_path / "good", alpha=0.1)
    (tmp_path / "file").touch()
    for arguments, message in [
        ((), "the following arguments are required: RESULTS"),
        ((tmp_path / "missing",), "no runs below"),
        ((tmp_path / "default",), "nothing to draw"),
        ((tmp_path / "good", "--out", tmp_path / "file"), "cannot write figures to"),
    ]:
        answer = command(*arguments)
        assert answer.returncode == 2
        assert answer.stdout == ""
        assert answer.stderr.startswith(f"error: {message}")
        assert answer.stderr.count("\n") == 1


def test_help_waits_for_nothing_heavy_and_plots_do_not_know_jax():
    answer = command("--help")
    assert answer.returncode == 0
    assert "RESULTS" in answer.stdout.upper()
    code = (
        "import sys, plots.sensitivity; assert 'matplotlib' not in sys.modules\n"
        "import plots.style; sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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


def test_one_optimizer_is_compared_with_nothing(tmp_path):
    write_grid(tmp_path, ADAM)
    assert not any("optimizers" in name for name in compose_all(records.read_runs(tmp_path)))


def test_hyperparameters_are_ranked_by_expected_excess_loss(tmp_path):
    """Test losses are ten times those given, so all are clipped at a guess's, ln 10: nothing matters there."""
    for seed in (0, 1):
        for name, values in ADAM.items():
            for place, value in enumerate(values):
                if value != getattr(Hyperparameters(), name):
                    # alpha: 1, 1.1, 1.4, 1.9 and 2.6 away from the default's 1; the others a tenth of that.
                    height = (0.1 if name == "alpha" else 0.01) * (place - 2) ** 2
                    write_run(tmp_path, (2.0, 1.0 + height + 0.002 * seed), seed=seed, **{name: value})
        write_run(tmp_path, (2.0, 1.0 + 0.002 * seed), seed=seed)
    runs = records.read_runs(tmp_path)
    alpha = curves_of(runs, "plain20", "adam", "train_loss")["alpha"]
    assert alpha.default == 2
    np.testing.assert_allclose(alpha.losses[:, 0], [1.4, 1.1, 1.0, 1.1, 1.4])
    figure = compose_all(runs)["figure-ranking"]
    training, test = figure.axes
    assert training.get_yticklabels()[-1].get_text() == r"$\alpha$"  # on top
    (container,) = training.containers
    points = {training.get_yticklabels()[round(y)].get_text(): x for x, y in container.lines[0].get_xydata()}
    # Trapezoids of 0.4, 0.1, 0, 0.1, 0.4 over four equal steps: (0.25 + 0.05 + 0.05 + 0.25) / 4.
    assert points[r"$\alpha$"] == pytest.approx(0.15)
    assert [x for x, _ in test.containers[0].lines[0].get_xydata()] == pytest.approx([0] * 4)
    assert "95% bootstrap intervals" in heading(figure)


def test_ranking_leaves_out_an_epsilon_of_0_which_has_no_place_in_decades(tmp_path):
    for value in (0.0, 1e-8, 1e-4):
        write_run(tmp_path, epsilon=value)
    write_run(tmp_path, alpha=1e-2)
    assert curves_of(records.read_runs(tmp_path), "plain20", "adam", "train_loss")["epsilon"].values == [1e-8, 1e-4]
    assert len(draw(tmp_path)) == 8  # the curves, with 0 among them, and the ranking


def test_ranking_takes_seeds_that_ended_everywhere_and_counts_divergence_as_a_guess(tmp_path):
    for value in (1e-4, 1e-3, 1e-2):
        write_run(tmp_path, alpha=value)
        write_run(tmp_path, seed=1, alpha=value, outcome="finished" if value < 1e-2 else None)
    write_run(tmp_path, (), "diverged", alpha=1e-1)
    curve = curves_of(records.read_runs(tmp_path), "plain20", "adam", "train_loss")["alpha"]
    assert curve.values == [1e-4, 1e-3, 1e-2, 1e-1]
    np.testing.assert_allclose(curve.losses[:, 0], [0.5, 0.5, 0.5, np.log(10)])
    assert curve.losses.shape == (4, 1)  # seed 1 did not end at 1e-2, and was not trained at 1e-1
