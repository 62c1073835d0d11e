"""Numbers, intervals, states and verdicts against scipy and by hand; what runs that diverged are evidence of."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from adamlab.claims import lawn, sensitivity
from adamlab.claims.evidence import Number, compare, only_if, split, verdict
from adamlab.hyperparameters import Hyperparameters
from tests.claims.worlds import gupta, madan

INF = math.inf


def number(samples, region, unit="points"):
    return Number("it", unit, region, tuple(samples), ())


def test_interval_is_that_of_the_paired_t_test():
    ours, theirs = np.array([3.0, 4.0, 6.0]), np.array([1.0, 3.0, 2.0])
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    np.testing.assert_allclose(number(ours - theirs, (0, INF)).interval(), expected)


@pytest.mark.parametrize(
    ("samples", "region", "state"),
    [
        # The 95 % interval of 1, 2, 3 is 2 -+ 4.303 / sqrt(3) = [-0.48, 4.48]; of 9, 10, 11 it is [7.52, 12.48].
        ([1, 2, 3], (-1, 5), "holds"),
        ([1, 2, 3], (0, INF), "open"),
        ([1, 2, 3], (-INF, 0), "open"),
        ([9, 10, 11], (0, INF), "holds"),
        ([9, 10, 11], (-INF, 7), "fails"),
        ([9, 10, 11], (13, INF), "fails"),
        ([9, 10, 11], (8, 9), "open"),
        # An interval without width, on the region's end.
        ([0, 0, 0], (0, INF), "open"),
        ([0, 0, 0], (-INF, 0), "open"),
        ([5], (0, INF), "open"),
        ([-5], (0, INF), "open"),
        ([], (0, INF), "missing"),
    ],
)
def test_states(samples, region, state):
    assert number(samples, region).state() == state


def test_a_claim_with_many_numbers_needs_a_clearer_failure():
    # At 1 - 5 %/10, t with 2 degrees of freedom is 14.09: the interval of 9, 10, 11 is [1.87, 18.13].
    clear = number([9, 10, 11], (-INF, 7))
    assert clear.state(1) == "fails"
    assert clear.state(10) == "open"
    np.testing.assert_allclose(clear.interval(1 - 0.05 / 10), (1.865, 18.135), atol=1e-3)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ("", "not run"),
        ("mm", "not run"),
        ("hh", "reproduced"),
        ("hm", "inconclusive"),
        ("ho", "inconclusive"),
        ("hf", "contradicted"),
        ("fm", "contradicted"),
    ],
)
def test_verdict(states, expected):
    kinds = {
        "h": number([90, 100, 110], (0, INF)),
        "f": number([90, 100, 110], (-INF, 0)),
        "o": number([-1, 1, 3], (0, INF)),
        "m": number([], (0, INF)),
    }
    assert verdict([kinds[state] for state in states]) == expected


def test_numbers_that_are_missing_ask_for_no_clearer_failure():
    assert verdict([number([9, 10, 11], (-INF, 7)), *[number([], (0, INF))] * 9]) == "contradicted"


def test_shares_that_are_equal_in_all_seeds_have_an_interval():
    """Of 15 runs 15, or 9, in three seeds of five: the exact binomial intervals are [0.78, 1] and [0.32, 0.84]."""
    runs = tuple(range(15))
    certain, even = (Number("it", "share", (0.5, INF), (share,) * 3, runs) for share in (1.0, 0.6))
    for found, hits in ((certain, 15), (even, 9)):
        exact = stats.binomtest(hits, 15).proportion_ci(0.95, "exact")
        np.testing.assert_allclose(found.interval(), exact, rtol=1e-12)
    assert (certain.state(), even.state()) == ("holds", "open")
    assert Number("it", "share", (0.5, INF), (0.0,) * 3, runs).state(8) == "fails"
    # Seeds that disagree: Student's, which is wider, as far as there are such shares: 0.6 -+ 4.30 * 0.087 and 0.231.
    samples = (0.45, 0.6, 0.75)
    spread = Number("it", "share", (0.5, INF), samples, runs)
    np.testing.assert_allclose(spread.interval(), stats.ttest_1samp(samples, 0).confidence_interval(0.95), rtol=1e-12)
    assert replace(spread, samples=(0.2, 0.6, 1.0)).interval() == (0.0, 1.0)


def test_the_best_of_several_settings_needs_a_clearer_difference():
    # With 2 degrees of freedom t is 4.30 at 95 %, 7.65 at 1 - 5 %/3: 10 -+ 2.48, 10 -+ 4.42.
    assert replace(number([9, 10, 11], (7, INF)), choices=1).state() == "holds"
    assert replace(number([9, 10, 11], (7, INF)), choices=3).state() == "open"
    assert replace(number([9, 10, 11], (-INF, 7)), choices=3).state() == "open"


def test_seeds_are_paired_and_those_without_a_partner_left_out(tmp_path):
    runs = madan(tmp_path, seeds=(0, 1, 2, 3), only=[("plain20", None, None), ("plain20", "alpha", 1e-2)])
    one = {run.config.seed: run for run in runs if run.config.setting == "default" and run.config.seed != 1}
    other = {run.config.seed: run for run in runs if run.config.setting != "default" and run.config.seed != 2}
    found = compare("it", "points", (0, INF), [one, other], lambda a, b: 10 * a.config.seed + b.config.seed)
    assert found.samples == (0, 33)
    assert [run.config.seed for run in found.runs] == [0, 0, 3, 3]


def test_what_is_missing_has_no_runs_and_says_why(tmp_path):
    runs = {run.config.seed: run for run in madan(tmp_path, only=[("plain20", None, None)])}
    assert compare("it", "points", (0, INF), [runs], lambda run: math.nan).why == "no number in any of 3 seeds"
    found = compare("it", "points", (0, INF), [runs], lambda run: 1.0)
    assert only_if(True, "not asked", [found]) == [found]
    assert only_if(False, "not asked", [found]) == [replace(found, samples=(), runs=(), why="not asked")]


def test_runs_that_diverged_are_no_evidence_of_flat_or_equal_curves(tmp_path):
    runs = [replace(run, outcome={"outcome": "diverged"}, epochs=[]) for run in madan(tmp_path, seeds=(0, 1))]
    study = split("all", runs)[0]
    verdicts = [verdict(rule(study)) for rule in (sensitivity.s1, sensitivity.s4, sensitivity.s14)]
    assert verdicts == ["not run", "not run", "contradicted"]


def test_runs_that_diverged_are_no_evidence_of_equal_accuracies(tmp_path):
    everything = gupta(tmp_path, {("adam_lawn", False, 10.0): 93.7}, seeds=(0, 1))
    diverged = [replace(run, outcome={"outcome": "diverged"}, epochs=[]) for run in everything]
    study = split("all", diverged)[0]
    rules = (lawn.l1, lawn.l2, lawn.l3, lawn.l4, lawn.l5, lawn.l6, lawn.l7, lawn.l8)
    assert {verdict(rule(study)) for rule in rules} == {"not run"}
    # One that did not is evidence against one that did: Adam at a guess's 10 %.
    half = [
        run if run.config.optimizer == "adam_lawn" else other for run, other in zip(everything, diverged, strict=True)
    ]
    assert verdict(lawn.l1(split("half", half)[0])) == "reproduced"


def test_the_farthest_curve_does_not_depend_on_which_value_diverged(tmp_path):
    """The default diverged, and one epsilon, whichever: the others are as far from it as a guess is."""
    states = set()
    for value in (1e-6, 1.0):
        runs = madan(tmp_path / str(value), seeds=(0, 1))
        for place, run in enumerate(runs):
            if run.config.model == "plain20" and run.config.hyperparameters in (
                Hyperparameters(),
                Hyperparameters(epsilon=value),
            ):
                runs[place] = replace(run, outcome={"outcome": "diverged"}, epochs=[])
        states.add(sensitivity.s8(split("all", runs)[0])[0].state())
    assert states == {"fails"}


def test_what_has_flattened_to_nothing_is_the_smallest_number():
    assert lawn.log_of({"gradient_norm": 0.0}, "gradient_norm") == math.log(lawn.TINY)
    assert lawn.log_of({"hessian_eigenvalue": -50.0}, "hessian_eigenvalue") == math.log(50)
    assert math.isnan(lawn.log_of({"gradient_norm": None}, "gradient_norm"))
    assert math.isnan(lawn.log_of({}, "gradient_norm"))
