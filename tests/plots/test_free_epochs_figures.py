"""The figure of LAWN's free phase: which lengths a line joins, a row per network."""

import numpy as np

from adamlab import records
from tests.plots.artists import heading, legend, points
from tests.plots.cells import FIGURE1, FREE, figures_of, write_run


def test_free_epochs_have_a_line_per_optimizer_and_batch_size(tmp_path):
    for free_epochs, accuracy in ((0.0, 0.5), (1.0, 0.8), (3.0, 0.6)):
        for seed in range(2):
            write_run(tmp_path, "adam_lawn", 50, accuracy + 0.1 * seed, seed=seed, free_epochs=free_epochs)
        write_run(tmp_path, "sgd_lawn", 400, accuracy / 2, free_epochs=free_epochs)
    write_run(tmp_path, "adam_lawn", 400)  # a single value
    write_run(tmp_path, "adam", 50)  # no free phase
    accuracy, loss = figures_of(tmp_path)[FREE].axes
    assert list(points(accuracy)) == list(points(loss)) == legend(accuracy) == ["Adam-LAWN, 50", "SGD-LAWN, 400"]
    ours = [(0, 55, 50, 60), (1, 85, 80, 90), (3, 65, 60, 70)]
    np.testing.assert_allclose(points(accuracy)["Adam-LAWN, 50"], ours, rtol=1e-9)
    np.testing.assert_allclose(points(loss)["SGD-LAWN, 400"][:, :2], [(0, 1.25), (1, 1.4), (3, 1.3)], rtol=1e-12)
    assert [label.get_text() for label in accuracy.get_xticklabels()] == ["0", "1", "3"]
    assert accuracy.get_xlim()[0] < 0 < 3 < accuracy.get_xlim()[1]


def test_free_epochs_are_compared_with_all_else_equal(tmp_path):
    write_run(tmp_path, "adam_lawn", 50, 0.9, free_epochs=0.0, alpha=0.1)
    write_run(tmp_path, "adam_lawn", 50, 0.8, free_epochs=1.0)
    assert FREE not in figures_of(tmp_path)
    write_run(tmp_path, "adam_lawn", 50, 0.7, free_epochs=2.0)
    (axes, _) = figures_of(tmp_path)[FREE].axes
    assert points(axes)["Adam-LAWN, 50"][:, 0].tolist() == [1, 2]
    assert "best of several" not in heading(axes.figure)
    write_run(tmp_path, "adam_lawn", 50, 0.1, free_epochs=2.0, alpha=0.1)
    figure = figures_of(tmp_path)[FREE]  # as many values, and the 90 % among them
    assert points(figure.axes[0])["Adam-LAWN, 50"][:, 0].tolist() == [0, 2]
    assert "best of several settings on these images" in heading(figure)


def test_larger_batches_are_lighter(tmp_path):
    for batch_size in (50, 400, 2000):
        for free_epochs in (0.0, 1.0):
            write_run(tmp_path, "adam_lawn", batch_size, free_epochs=free_epochs)
    (axes, _) = figures_of(tmp_path)[FREE].axes
    lines = [container.lines[0] for container in axes.containers]
    assert np.diff([np.dot(line.get_color(), (0.299, 0.587, 0.114)) for line in lines]).min() > 0.15


def test_a_row_has_the_lines_of_its_network_alone(tmp_path):
    for free_epochs in (0.0, 1.0):
        write_run(tmp_path, "adam_lawn", 50, 0.1 + free_epochs / 10, model="plain20", free_epochs=free_epochs)
        write_run(tmp_path, "adam_lawn", 50, 0.6 + free_epochs / 10, free_epochs=free_epochs)
        write_run(tmp_path, "sgd_lawn", 50, 0.9, free_epochs=free_epochs)
    plain, _, vgg, _ = figures_of(tmp_path)[FREE].axes
    assert (plain.get_title(), vgg.get_title()) == ("plain20", "vgg19")
    assert list(points(plain)) == legend(plain) == ["Adam-LAWN, 50"]
    assert list(points(vgg)) == legend(vgg) == ["Adam-LAWN, 50", "SGD-LAWN, 50"]
    np.testing.assert_allclose(points(plain)["Adam-LAWN, 50"][:, :2], [(0, 10), (1, 20)], rtol=1e-12)
    np.testing.assert_allclose(points(vgg)["Adam-LAWN, 50"][:, :2], [(0, 60), (1, 70)], rtol=1e-12)


def test_held_out_images_are_named_and_the_legend_counts_what_diverged(tmp_path):
    for free_epochs, outcome in ((0.0, "finished"), (1.0, "finished"), (3.0, "diverged")):
        write_run(tmp_path, "adam_lawn", 50, outcome=outcome, free_epochs=free_epochs, evaluate_on="validation")
    accuracy, loss = figures_of(tmp_path)[FREE].axes
    assert legend(accuracy) == ["Adam-LAWN, 50\n(1 of 3 diverged)"]
    assert (accuracy.get_ylabel(), loss.get_ylabel()) == (
        "validation accuracy\n(%)",
        "validation loss\n(nats, log scale)",
    )


def test_lines_of_the_same_numbers_stand_side_by_side(tmp_path):
    for optimizer in ("adam_lawn", "sgd_lawn"):
        for free_epochs in (0.0, 1.0):
            write_run(tmp_path, optimizer, 50, free_epochs=free_epochs)
        write_run(tmp_path, optimizer, 400)
    figures = figures_of(tmp_path)
    for axes in (figures[FIGURE1].axes[0], *figures[FREE].axes):
        lines = [container.lines[0] for container in axes.containers]
        (left, height), (right, same) = (line.get_transform().transform(line.get_xydata()[0]) for line in lines)
        assert right - left > 3  # pixels
        assert same == height


def test_a_line_of_more_lengths_stands_before_a_better_one(tmp_path):
    for free_epochs in (0.0, 1.0, 2.0):
        write_run(tmp_path, "adam_lawn", 50, 0.3, free_epochs=free_epochs)
    for free_epochs in (0.0, 1.0):
        write_run(tmp_path, "adam_lawn", 50, 0.9, free_epochs=free_epochs, alpha=0.1)
    axes = figures_of(tmp_path)[FREE].axes[0]
    np.testing.assert_allclose(points(axes)["Adam-LAWN, 50"][:, :2], [(0, 30), (1, 30), (2, 30)], rtol=1e-12)


def test_a_run_that_has_just_begun_makes_no_line(tmp_path):
    write_run(tmp_path, "adam_lawn", 50, free_epochs=0.0)
    begun = write_run(tmp_path, "adam_lawn", 50, outcome=None, free_epochs=1.0)
    assert FREE in figures_of(tmp_path)
    (records.run_folder(tmp_path, begun) / "metrics.jsonl").write_text("")
    assert FREE not in figures_of(tmp_path)
