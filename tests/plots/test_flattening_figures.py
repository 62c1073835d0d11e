"""The figure of loss flattening: a row per quantity, a column per batch size, from traced runs."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from adamlab.hyperparameters import OPTIMIZERS
from plots.flattening import ROWS
from plots.large_batch import draw
from plots.style import OPTIMIZER_STYLES
from tests.plots.artists import heading, legend
from tests.plots.cells import FLATTENING, TRACE, figures_of, write_run


def flattening_axes(figure: Figure, columns: int) -> dict[str, list[Axes]]:
    """The row of axes of each quantity."""
    return {name: figure.axes[columns * row : columns * (row + 1)] for row, name in enumerate(ROWS)}


def curves(axes: Axes) -> dict[str, np.ndarray]:
    """What is drawn as a curve: (epochs, 2) numbers by label."""
    titles = {optimizer.title for optimizer in OPTIMIZERS.values()}
    return {str(line.get_label()): line.get_xydata() for line in axes.lines if line.get_label() in titles}


def test_flattening_has_a_row_per_quantity_and_a_column_per_batch_size(tmp_path):
    for batch_size in (400, 50):
        for optimizer in ("adam", "adam_lawn"):
            write_run(tmp_path, optimizer, batch_size, traces=[{"weight_norm": batch_size + n} for n in range(4)])
    figure = figures_of(tmp_path)[FLATTENING]
    axes = flattening_axes(figure, 2)
    assert [top.get_title() for top in axes["train_loss"]] == ["batch size 50", "batch size 400"]
    scales = {name: row[0].get_yscale() for name, row in axes.items()}
    assert scales == {
        "train_loss": "log",
        "gradient_norm": "log",
        "logit_norm": "linear",
        "weight_norm": "linear",
        "angular_step": "log",
        "hessian_eigenvalue": "log",
    }
    np.testing.assert_array_equal(curves(axes["weight_norm"][1])["Adam-LAWN"], [(1, 400), (2, 401), (3, 402), (4, 403)])
    np.testing.assert_allclose(curves(axes["train_loss"][0])["Adam"], [(1, 1), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4)])
    assert all(row[0].get_ylim() == row[1].get_ylim() for row in axes.values())
    assert legend(axes["train_loss"][0]) == ["Adam", "Adam-LAWN"]
    assert "first 100 training images" in heading(figure)


def test_flattening_draws_the_mean_of_seeds_in_their_range(tmp_path):
    for seed, norm in enumerate((1.0, 2.0, 6.0)):
        write_run(tmp_path, "adam", 50, seed=seed, traces=[{"logit_norm": norm * n} for n in range(1, 5)])
    (axes,) = flattening_axes(figures_of(tmp_path)[FLATTENING], 1)["logit_norm"]
    np.testing.assert_allclose(curves(axes)["Adam"], [(n, 3.0 * n) for n in range(1, 5)], rtol=1e-12)
    (band,) = [artist for artist in axes.collections if isinstance(artist, PolyCollection)]
    corners = {(x, y) for x, y in band.get_paths()[0].vertices}
    assert corners == {(n, factor * n) for n in range(1, 5) for factor in (1.0, 6.0)}


def test_a_run_that_was_measured_once_is_not_drawn(tmp_path):
    write_run(tmp_path, "adam", 50, traces=[None, None, None, {}])
    write_run(tmp_path, "adam_lawn", 50, traces=[None, {}, None, {}])
    (axes,) = flattening_axes(figures_of(tmp_path)[FLATTENING], 1)["logit_norm"]
    assert list(curves(axes)) == ["Adam-LAWN"]


def test_what_a_logarithm_has_not_is_left_out_and_counted(tmp_path):
    traces = [{"hessian_eigenvalue": number} for number in (8.0, -0.5, None, 2.0)]
    write_run(tmp_path, "adam", 50, traces=[trace | {"logit_norm": None} for trace in traces])
    figure = figures_of(tmp_path)[FLATTENING]
    axes = flattening_axes(figure, 1)
    np.testing.assert_array_equal(curves(axes["hessian_eigenvalue"][0])["Adam"], [(1, 8), (4, 2)])
    assert "left out of top Hessian eigenvalue: 2 values not above 0 or not finite" in heading(figure)
    assert "left out of logit norm: 4 values not finite" in heading(figure)
    assert draw(tmp_path)


def test_an_angle_that_rounding_makes_of_a_step_of_0_is_left_out(tmp_path):
    write_run(tmp_path, "adam", 50, traces=[{"angular_step": angle} for angle in (0.2, 0.1, 0.05, 2e-8)])
    figure = figures_of(tmp_path)[FLATTENING]
    (axes,) = flattening_axes(figure, 1)["angular_step"]
    np.testing.assert_array_equal(curves(axes)["Adam"], [(1, 0.2), (2, 0.1), (3, 0.05)])
    assert "left out of angular step: 1 value not above 1e-7 or not finite" in heading(figure)


def test_free_phases_end_in_a_vertical_line(tmp_path):
    for optimizer, free_epochs in (
        ("adam", {}),
        ("adam_lawn", {"free_epochs": 2.0}),
        ("sgd_lawn", {"free_epochs": 0.0}),
    ):
        write_run(tmp_path, optimizer, 50, traces=[{}] * 4, **free_epochs)
    for optimizer in ("adam_lawn", "sgd_lawn"):
        write_run(tmp_path, optimizer, 400, traces=[{}] * 4, free_epochs=1.0)
    figure = figures_of(tmp_path)[FLATTENING]
    for row in flattening_axes(figure, 2).values():
        found = []
        for axes in row:
            upright = [line for line in axes.lines if line.get_ydata()[0] == 0 and line.get_ydata()[-1] == 1]
            found.append({line.get_xdata()[0]: line.get_color() for line in upright if line.get_linewidth() < 1})
        adam, sgd = OPTIMIZER_STYLES["adam_lawn"]["color"], OPTIMIZER_STYLES["sgd_lawn"]["color"]
        assert found[0] == {2: adam, 0: sgd}
        assert list(found[1]) == [1]
        assert found[1][1] not in (adam, sgd)  # both end there: the colour of neither
        assert row[0].get_xlim()[0] < 0
    assert "vertical line: end of the free phase" in heading(figure)


def test_flattening_is_drawn_of_traced_runs_and_per_network(tmp_path):
    write_run(tmp_path, "adam_lawn", 50, 0.9, free_epochs=0.0)  # better, but not traced
    write_run(tmp_path, "adam_lawn", 50, 0.5, traces=[{}] * 4)
    figures = figures_of(tmp_path)
    (axes,) = flattening_axes(figures[FLATTENING], 1)["gradient_norm"]
    np.testing.assert_array_equal(curves(axes)["Adam-LAWN"], [(n, TRACE["gradient_norm"]) for n in range(1, 5)])
    write_run(tmp_path, "adam", 50, model="plain20", traces=[{}] * 4)
    names = [name for name in figures_of(tmp_path) if name.startswith(FLATTENING)]
    assert names == [f"{FLATTENING}-plain20", f"{FLATTENING}-vgg19"]


def test_adam_is_drawn_without_weight_decay_even_where_it_is_better_with_it(tmp_path):
    """Weight decay would keep weights small as LAWN does."""
    write_run(tmp_path, "adam", 50, 0.9, weight_decay=0.1, traces=[{"weight_norm": 5.0}] * 4)
    (axes,) = flattening_axes(figures_of(tmp_path)[FLATTENING], 1)["weight_norm"]
    assert curves(axes)["Adam"][:, 1].tolist() == [5] * 4  # there is no other
    write_run(tmp_path, "adam", 50, 0.5, traces=[{"weight_norm": 9.0}] * 4)
    (axes,) = flattening_axes(figures_of(tmp_path)[FLATTENING], 1)["weight_norm"]
    assert curves(axes)["Adam"][:, 1].tolist() == [9] * 4


def test_heading_says_how_many_images_were_measured_on_what_was_chosen_and_what_is_unfinished(tmp_path):
    write_run(tmp_path, "adam", 50, 0.5, train_images=60, traces=[{}] * 4)
    write_run(tmp_path, "adam_lawn", 50, outcome=None, train_images=60, traces=[{}] * 4)
    said = heading(figures_of(tmp_path)[FLATTENING])
    assert "measured on the first 60 training images" in said
    assert "unfinished (1 of 2 runs)" in said
    assert "best of several" not in said
    write_run(tmp_path, "adam", 50, 0.6, train_images=60, alpha=0.1, traces=[{}] * 4)
    assert "each line: best of several settings on these images" in heading(figures_of(tmp_path)[FLATTENING])


def test_diverged_run_ends_in_an_x_where_it_was_measured_last(tmp_path):
    write_run(tmp_path, "sgd", 50, outcome="diverged", traces=[{"weight_norm": 5.0}, {"weight_norm": 9.0}])
    write_run(tmp_path, "adam", 50, traces=[{}] * 4)
    figure = figures_of(tmp_path)[FLATTENING]
    (axes,) = flattening_axes(figure, 1)["weight_norm"]
    assert [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "x"] == [[[2, 9]]]
    assert "diverged later (1 of 2 runs)" in heading(figure)
