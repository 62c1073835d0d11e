"""The large-batch figures: which runs a point stands for, what is read off the axes."""

from itertools import combinations
from statistics import mean

import numpy as np
import pytest
from matplotlib import colors
from matplotlib.axes import Axes

from adamlab import records
from adamlab.claims.evidence import Study
from adamlab.claims.lawn import cell
from adamlab.hyperparameters import OPTIMIZERS
from plots.flattening import ROWS
from plots.large_batch import draw
from plots.style import OPTIMIZER_STYLES
from tests.plots.artists import heading, legend, points
from tests.plots.cells import FIGURE1, FLATTENING, FREE, figures_of, write_run


def marks(axes: Axes) -> list[tuple[float, str]]:
    """The x and the colour of each cross."""
    return [(float(line.get_xydata()[0, 0]), line.get_color()) for line in axes.lines if line.get_marker() == "x"]


def test_points_are_means_over_seeds_on_bars_of_their_range(tmp_path):
    accuracies = {50: (0.70, 0.72, 0.77), 400: (0.6, 0.6, 0.66), 2000: (0.2, 0.5, 0.3)}
    for batch_size, numbers in accuracies.items():
        for seed, accuracy in enumerate(numbers):
            write_run(tmp_path, "adam_lawn", batch_size, accuracy, seed=seed)
    figure = figures_of(tmp_path)[FIGURE1]
    (axes,) = figure.axes
    expected = []
    for batch_size, numbers in accuracies.items():
        percent = [100 * number for number in numbers]
        expected.append((batch_size, mean(percent), min(percent), max(percent)))
    np.testing.assert_allclose(points(axes)["Adam-LAWN"], expected, rtol=1e-12)
    assert "3 seeds" in heading(figure)
    assert "mean of seeds, bars: smallest to largest" in heading(figure)
    assert "best of several" not in heading(figure)


def test_batch_sizes_are_the_ticks_and_all_points_are_within_the_axes(tmp_path):
    for batch_size, accuracy in ((64, 0.7), (256, 0.1), (2000, 0.5)):
        for seed in range(2):
            write_run(tmp_path, "sgd", batch_size, accuracy + 0.1 * seed, seed=seed)
    write_run(tmp_path, "adam", 32, 0.0, "diverged")
    (axes,) = figures_of(tmp_path)[FIGURE1].axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["32", "64", "256", "2,000"]
    assert axes.get_xlim()[0] < 32 < 2000 < axes.get_xlim()[1]
    assert axes.get_ylim()[0] < 10 < 75 < axes.get_ylim()[1]


def test_the_setting_with_most_seeds_is_drawn_as_the_claims_judge_it(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "sgd", 50, 0.45, seed=seed)
        write_run(tmp_path, "sgd", 400, 0.45, seed=seed)
    write_run(tmp_path, "sgd", 50, 0.48, weight_decay=0.1)  # tried once
    runs = records.read_runs(tmp_path)
    (axes,) = figures_of(tmp_path)[FIGURE1].axes
    assert points(axes)["SGD"][0, 1] == pytest.approx(45)
    judged = cell(Study("study", runs[0].config.protocol, "vgg19", runs), "sgd", 50)
    assert {run.epochs[-1]["test_accuracy"] for run in judged.values()} == {0.45}


def test_one_seed_has_no_bar(tmp_path):
    for batch_size in (50, 400):
        write_run(tmp_path, "adam", batch_size)
    figure = figures_of(tmp_path)[FIGURE1]
    np.testing.assert_array_equal(points(figure.axes[0])["Adam"], [(50, 50, np.nan, np.nan), (400, 50, np.nan, np.nan)])
    assert "bars" not in heading(figure)


def test_networks_have_panels_on_common_axes_and_optimizers_their_own_looks(tmp_path):
    for model in ("vgg19", "plain20"):
        for optimizer in ("sgd_lawn", "adam"):
            for batch_size in (50, 400):
                write_run(tmp_path, optimizer, batch_size, 0.6 if model == "vgg19" else 0.2, model=model)
    plain, vgg = figures_of(tmp_path)[FIGURE1].axes
    assert (plain.get_title(), vgg.get_title()) == ("plain20", "vgg19")
    assert plain.get_ylim() == vgg.get_ylim()
    assert list(points(plain)) == list(points(vgg)) == legend(plain) == ["Adam", "SGD-LAWN"]
    for axes in (plain, vgg):
        lines = [container.lines[0] for container in axes.containers]
        looks = [(line.get_color(), line.get_marker()) for line in lines]
        assert looks == [
            (OPTIMIZER_STYLES[name]["color"], OPTIMIZER_STYLES[name]["marker"]) for name in ("adam", "sgd_lawn")
        ]


def test_optimizers_differ_in_grey_and_lawn_is_darker_than_its_base():
    assert list(OPTIMIZER_STYLES) == list(OPTIMIZERS)
    grey = {
        name: float(np.dot(colors.to_rgb(look["color"]), (0.299, 0.587, 0.114)))  # ITU-R BT.601 luma
        for name, look in OPTIMIZER_STYLES.items()
    }
    for base in ("adam", "sgd"):
        assert grey[f"{base}_lawn"] < grey[base] - 0.25
    assert max(grey.values()) < 0.75
    for ours, theirs in combinations(OPTIMIZER_STYLES, 2):
        different = OPTIMIZER_STYLES[ours]["marker"] != OPTIMIZER_STYLES[theirs]["marker"]
        assert different or abs(grey[ours] - grey[theirs]) > 0.25, (ours, theirs)


def test_diverged_run_is_an_x_and_not_in_the_mean(tmp_path):
    for seed, outcome in enumerate(("finished", "diverged", "finished")):
        write_run(tmp_path, "sgd", 2000, 0.4 + 0.2 * seed, outcome, seed=seed)
    write_run(tmp_path, "sgd", 50, 0.9)
    write_run(tmp_path, "adam", 50, 0.9)
    write_run(tmp_path, "adam", 2000, 0.0, "diverged")
    figure = figures_of(tmp_path)[FIGURE1]
    (axes,) = figure.axes
    np.testing.assert_allclose(points(axes)["SGD"][1], (2000, 60, 40, 80), rtol=1e-12)
    assert points(axes)["Adam"][:, 0].tolist() == [50]
    assert marks(axes) == [(2000, OPTIMIZER_STYLES["adam"]["color"]), (2000, OPTIMIZER_STYLES["sgd"]["color"])]
    heights = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "x"]
    assert np.diff(heights)[0] > 0.05  # of the axes: one above the other
    assert "diverged, not in the mean (2 of 6 runs)" in heading(figure)
    assert legend(axes) == ["Adam\n(1 of 2 diverged)", "SGD\n(1 of 4 diverged)"]


def test_unfinished_runs_are_left_out_and_counted(tmp_path):
    write_run(tmp_path, "adam", 50)
    write_run(tmp_path, "adam", 400)
    write_run(tmp_path, "adam", 400, 0.9, None, seed=1)
    figure = figures_of(tmp_path)[FIGURE1]
    assert points(figure.axes[0])["Adam"][:, :2].tolist() == [[50, 50], [400, 50]]
    assert "unfinished, left out (1 of 3 runs)" in heading(figure)


def test_a_setting_with_a_finished_seed_stands_before_one_of_more_that_are_not(tmp_path):
    for batch_size in (50, 400):
        write_run(tmp_path, "adam", batch_size, 0.3)
    for seed in range(2):
        write_run(tmp_path, "adam", 50, outcome=None, alpha=0.1, seed=seed)
    figure = figures_of(tmp_path)[FIGURE1]
    np.testing.assert_allclose(points(figure.axes[0])["Adam"][:, :2], [(50, 30), (400, 30)], rtol=1e-12)


def test_of_several_settings_the_best_mean_is_drawn_and_said(tmp_path):
    for seed in range(2):
        write_run(tmp_path, "adam", 50, 0.5 + 0.1 * seed, seed=seed)  # mean 55 %
        write_run(
            tmp_path, "adam", 50, 0.9 - 0.8 * seed, seed=seed, alpha=0.1
        )  # mean 50 %, though 90 % is the best run
        # Mean 70 % of those that finished, but one of two is none to choose: 35 %.
        write_run(tmp_path, "adam", 50, 0.7, "diverged" if seed else "finished", seed=seed, alpha=1.0)
        write_run(tmp_path, "adam", 400, 0.3, seed=seed)
    figure = figures_of(tmp_path)[FIGURE1]
    np.testing.assert_allclose(points(figure.axes[0])["Adam"][:, 1], (55, 30), rtol=1e-12)
    assert "best of several settings on these images" in heading(figure)
    assert not marks(figure.axes[0])


def test_caller_says_which_runs_are_the_cells(tmp_path):
    configs = [write_run(tmp_path, "adam", batch_size, 0.3, traces=[{}] * 4) for batch_size in (50, 400)]
    write_run(tmp_path, "adam", 50, 0.9, alpha=0.1, traces=[{"weight_norm": 7.0}] * 4)
    figures = figures_of(tmp_path, configs)
    np.testing.assert_allclose(points(figures[FIGURE1].axes[0])["Adam"][:, 1], (30, 30), rtol=1e-12)
    weight_norm = figures[FLATTENING].axes[2 * ROWS.index("weight_norm")]
    assert weight_norm.lines[0].get_ydata().tolist() == [40] * 4
    assert not any("best of several" in heading(figure) for figure in figures.values())
    assert figures_of(tmp_path, []) == {}


def test_validation_is_not_called_test(tmp_path):
    for batch_size in (50, 400):
        write_run(tmp_path, "adam", batch_size, evaluate_on="validation")
    figure = figures_of(tmp_path)[FIGURE1]
    assert heading(figure).startswith("Validation accuracy after the last epoch")
    assert "1,000 held-out training images" in heading(figure)
    assert "tuning study: no test image was seen" in heading(figure)
    assert figure.axes[0].get_ylabel() == "validation accuracy\n(%)"


def test_heading_names_data_and_variants_and_warns_of_other_data(tmp_path):
    warning = "NOT CIFAR-10 or CIFAR-100 or ImageNet"
    names = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet2012:5.1.0": "ImageNet"}
    names |= {"digits": f"digits, {warning}"}
    for dataset in names:
        for batch_size in (50, 400):
            write_run(tmp_path / dataset, "adam", batch_size, dataset=dataset, precision="bf16")
    said = "protocol lawn-laptop, 2,000 training and 1,000 test images, batch 50 to 400, 4 epochs, 1 seed bf16"
    for dataset, name in names.items():
        assert f"{name}: {said}" in heading(figures_of(tmp_path / dataset)[FIGURE1])


def test_each_study_gets_its_figures_and_the_same_records_the_same_bytes(tmp_path):
    results = tmp_path / "results"
    for free_epochs in (0.0, 1.0):
        write_run(results, "adam_lawn", 50, free_epochs=free_epochs, traces=[{}] * 4)
    for batch_size in (50, 400):
        write_run(results, "adam", batch_size, dataset="digits")
    first, second = draw(results), draw(results, tmp_path / "second")
    names = {"cifar10-lawn-laptop": (FREE, FLATTENING), "digits-lawn-laptop": (FIGURE1,)}
    assert first == [
        results / study / "figures" / f"{stem}.{suffix}"
        for study, stems in names.items()
        for stem in stems
        for suffix in ("png", "svg")
    ]
    assert {path.parent for path in second} == {tmp_path / "second" / study for study in names}
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))


def test_no_results_are_an_error(tmp_path):
    with pytest.raises(records.RecordsError, match="no runs below"):
        draw(tmp_path)
