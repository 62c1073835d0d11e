"""Curves and their distances, of runs that finished and of such that diverged."""

import math
from dataclasses import replace

import numpy as np
import pytest

from adamlab.claims import measures
from adamlab.config import RunConfig
from adamlab.hyperparameters import Hyperparameters
from adamlab.protocol import PROTOCOLS
from tests.claims.worlds import write_run


def test_a_run_that_diverged_counts_as_a_guess(tmp_path):
    config = RunConfig("cifar10", "plain20", PROTOCOLS["paper"], Hyperparameters(alpha=0.1))
    epochs = [{"epoch": 1, "train_loss": 1.0, "test_loss": 4.0, "test_accuracy": 0.3}]
    run = write_run(tmp_path, config, epochs, "diverged")
    assert measures.accuracy(run) == 10
    assert measures.training_loss(run) == measures.test_loss(run) == math.log(math.log(10))
    np.testing.assert_allclose(measures.training_curve(run), np.log([1.0] + [math.log(10)] * 14))
    at_once = write_run(tmp_path / "at-once", config, [], "diverged")
    np.testing.assert_allclose(measures.test_curve(at_once), np.log([math.log(10)] * 15))


@pytest.mark.parametrize(
    ("dataset", "provenance", "classes"),
    [
        ("cifar10", {}, 10),
        ("cifar100", {}, 100),
        ("imagenet2012", {}, 1000),
        ("cifar10", {"classes": 37}, 37),
        ("digits", {}, 10),
    ],
)
def test_a_guess_is_among_the_classes_of_the_data(dataset, provenance, classes, tmp_path):
    """What a record says of them, and the data set's where an older one says nothing."""
    config = RunConfig(dataset, "plain20", PROTOCOLS["paper"])
    run = write_run(tmp_path, config, [], "diverged", provenance)
    assert measures.accuracy(run) == 100 / classes
    assert measures.training_loss(run) == math.log(math.log(classes))


def test_a_loss_of_nothing_is_the_smallest_number(tmp_path):
    epoch = {"epoch": 1, "train_loss": 0.0, "test_loss": 1.0, "test_accuracy": 0.3}
    run = write_run(tmp_path, RunConfig("cifar10", "plain20", replace(PROTOCOLS["paper"], epochs=1)), [epoch])
    assert measures.training_loss(run) == measures.training_curve(run)[0] == math.log(measures.TINY)


def test_guesses_are_no_evidence_of_equal_accuracies(tmp_path):
    def run(name, accuracy):
        epoch = {"epoch": 1, "train_loss": 2.3, "test_loss": 2.3, "test_accuracy": accuracy}
        return write_run(tmp_path / name, RunConfig("cifar10", "plain20", PROTOCOLS["paper"]), [epoch])

    guess, bad, good = run("guess", 0.1), run("bad", 0.19), run("good", 0.5)
    assert measures.accuracy_gap(good, guess) == pytest.approx(40)
    assert measures.accuracy_gap(guess, good) == pytest.approx(-40)
    assert math.isnan(measures.accuracy_gap(bad, guess))


def test_curves_that_cross_are_apart_and_two_that_diverged_say_nothing(tmp_path):
    def run(name, losses, outcome="finished"):
        both = [{"train_loss": loss, "test_loss": loss, "test_accuracy": 0.3} for loss in losses]
        epochs = [{"epoch": number} | record for number, record in enumerate(both, start=1)]
        protocol = replace(PROTOCOLS["paper"], epochs=2)
        return write_run(tmp_path / name, RunConfig("cifar10", "resnet34", protocol), epochs, outcome)

    base, crossing = run("base", [0.3, 0.3]), run("crossing", [0.9, 0.1])
    assert measures.curve_factor(crossing, base) == pytest.approx(0)  # three times above, three times below
    assert measures.curve_distance(crossing, base) == pytest.approx(math.log(3))
    one, other = run("one", [], "diverged"), run("other", [0.3], "diverged")
    assert measures.curve_distance(one, base) == pytest.approx(math.log(math.log(10) / 0.3))
    late = run("late", [0.3], "diverged")  # as good as any until its end
    assert measures.curve_distance(late, base) == measures.curve_distance(one, base)
    assert math.isnan(measures.curve_distance(one, other))
    assert math.isnan(measures.curve_factor(one, other))
