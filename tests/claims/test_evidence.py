"""Numbers, intervals and states against scipy and by hand; which runs are judged together."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from adamlab.claims import CLAIMS, judge, lawn, sensitivity
from adamlab.claims.evidence import Number, compare, split, verdict
from adamlab.claims.words import decisive, describe
from adamlab.config import PROTOCOLS, RunConfig
from adamlab.hyperparameters import OPTIMIZERS, Hyperparameters
from tests.claims.worlds import gupta, madan, write_run

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


def test_settings_among_which_a_cell_is_chosen_are_counted(tmp_path):
    """Three E_free of as many seeds; one more with a single seed is not in the choice."""
    more = {("adam_lawn", False, value): 93.0 for value in (5.0, 10.0)}
    runs = gupta(tmp_path / "a", more, only=[("adam", False), ("adam_lawn", False), *more])
    lucky = {("adam_lawn", False, 3.0): 99.0}
    runs += gupta(tmp_path / "b", lucky, seeds=(0,), only=lucky)
    [judgement] = judge("lawn", runs, [claim for claim in CLAIMS if claim.name == "L1"])
    assert [found.choices for found in judgement.numbers] == [3]


def test_seeds_are_paired_and_those_without_a_partner_left_out(tmp_path):
    runs = madan(tmp_path, seeds=(0, 1, 2, 3), only=[("plain20", None, None), ("plain20", "alpha", 1e-2)])
    one = {run.config.seed: run for run in runs if run.config.setting == "default" and run.config.seed != 1}
    other = {run.config.seed: run for run in runs if run.config.setting != "default" and run.config.seed != 2}
    found = compare("it", "points", (0, INF), [one, other], lambda a, b: 10 * a.config.seed + b.config.seed)
    assert found.samples == (0, 33)
    assert [run.config.seed for run in found.runs] == [0, 0, 3, 3]


def test_runs_that_diverged_are_no_evidence_of_flat_or_equal_curves(tmp_path):
    runs = [replace(run, outcome={"outcome": "diverged"}, epochs=[]) for run in madan(tmp_path, seeds=(0, 1))]
    study = split("all", runs)[0]
    verdicts = [verdict(rule(study)) for rule in (sensitivity.s1, sensitivity.s4, sensitivity.s14)]
    assert verdicts == ["not run", "not run", "contradicted"]


def test_runs_that_diverged_are_no_evidence_of_equal_accuracies(tmp_path):
    everything = gupta(tmp_path, {("adam_lawn", False, 10.0): 93.7}, seeds=(0, 1))
    diverged = [replace(run, outcome={"outcome": "diverged"}, epochs=[]) for run in everything]
    study = split("all", diverged)[0]
    rules = (lawn.l1, lawn.l2, lawn.l3, lawn.l4, lawn.l5, lawn.l6, lawn.l8)
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


def test_runs_of_another_protocol_precision_or_batch_are_not_compared(tmp_path):
    paper = madan(tmp_path / "a", seeds=(0,), only=[("plain20", None, None)])
    bf16 = madan(tmp_path / "b", seeds=(0,), only=[("plain20", None, None)], precision="bf16")
    laptop = madan(tmp_path / "c", seeds=(0,), only=[("plain20", None, None)], protocol=PROTOCOLS["laptop"])
    studies = split("all", paper + bf16 + laptop)
    assert [study.scope for study in studies] == [
        "the paper's protocol",
        "the paper's protocol, bf16",
        "reduced: 3,000 images, 5 epochs",
    ]
    # What is less than the paper's, or is not its BatchNorm, is not the paper's.
    cut = madan(tmp_path / "e", seeds=(0,), only=[("plain20", None, None)], microbatch=10)
    assert split("all", cut)[0].scope == "reduced: 50,000 images, 15 epochs, batches in parts"
    fewer = replace(PROTOCOLS["lawn-paper"], test_images=100)
    large = [RunConfig("cifar10", "vgg19", protocol) for protocol in (PROTOCOLS["lawn-paper"], fewer)]
    large.append(replace(large[0], microbatch=64))
    lines = [{"epoch": 1, "train_loss": 1.0, "test_loss": 1.0, "test_accuracy": 0.3}]
    scopes = [split("large", [write_run(tmp_path / str(n), c, lines)])[0].scope for n, c in enumerate(large)]
    assert scopes == [
        "the paper's protocol",
        "reduced: vgg19, 50,000 images, 300 epochs",
        "the paper's protocol, batches in parts",
    ]
    # Batch sizes are what a study of them compares.
    assert len(split("lawn", gupta(tmp_path / "d", seeds=(0,)))) == 1


def test_tuning_digits_variants_and_unfinished_runs_are_not_judged(tmp_path):
    config = RunConfig("cifar10", "resnet34", PROTOCOLS["paper"])
    left_out = [
        replace(config, dataset="digits"),
        replace(config, dataset="cifar100"),  # the sensitivity paper has CIFAR-10 alone
        replace(config, stem="cifar"),
        replace(config, epsilon_placement="inside"),
        replace(config, protocol=replace(config.protocol, evaluate_on="validation")),
    ]
    epochs = [{"epoch": 1, "train_loss": 1.0, "test_loss": 1.0, "test_accuracy": 0.3}]
    runs = [write_run(tmp_path / str(place), config, epochs) for place, config in enumerate(left_out)]
    unfinished = replace(write_run(tmp_path / "unfinished", config, epochs), outcome=None)
    assert split("none", [*runs, unfinished]) == []
    assert judge("none", [*runs, unfinished]) == []


def test_at_the_papers_protocol_all_of_its_batch_sizes_are_asked_for(tmp_path):
    runs = []
    for optimizer in ("adam", "adam_lawn"):
        for batch in (256, 10_000):
            protocol = replace(PROTOCOLS["lawn-paper"], batch_size=batch)
            for seed in range(3):
                config = RunConfig(
                    "cifar10", "vgg19", protocol, OPTIMIZERS[optimizer].defaults, seed, optimizer=optimizer
                )
                accuracy = 0.9 + 0.01 * (optimizer == "adam_lawn") + 0.0001 * seed * len(optimizer)
                numbers = {"train_loss": 0.01, "test_loss": 1.0, "test_accuracy": accuracy}
                runs.append(write_run(tmp_path, config, [{"epoch": e, **numbers} for e in range(1, 301)]))
    [judgement] = judge("lawn", runs, [claim for claim in CLAIMS if claim.name == "L1"])
    assert judgement.study.scope == "the paper's protocol"
    assert [found.state() for found in judgement.numbers] == ["holds", "missing", "holds"]
    assert judgement.verdict == "inconclusive"
    assert describe(decisive(judgement)) == "Adam-LAWN - Adam, batch 4,000: accuracy: not run; claimed: above 0 points"


def test_at_the_papers_protocol_lamb_lawn_is_judged_where_the_paper_has_it(tmp_path):
    runs = []
    for optimizer in ("adam", "adam_lawn", "lamb_lawn"):
        protocol = replace(PROTOCOLS["lawn-paper"], batch_size=10_000)
        config = RunConfig("cifar10", "vgg19", protocol, OPTIMIZERS[optimizer].defaults, optimizer=optimizer)
        runs.append(write_run(tmp_path, config, [], "diverged"))
    assert lawn.l8(split("lawn", runs)[0])[0].why == "the paper has it on ImageNet"


def test_of_several_lines_of_free_phases_the_longest_are_counted(tmp_path):
    """With E_free 2 and 10; another alpha with both, a third with one of them."""
    line = {("adam_lawn", False): 93.9, ("adam_lawn", False, 10.0): 93.7}
    runs = gupta(tmp_path / "0", only=line)
    for place, (alpha, cells) in enumerate(((3e-3, line), (1e-2, [("adam_lawn", False)])), start=1):
        for run in gupta(tmp_path / str(place), only=cells):
            hyper = replace(run.config.hyperparameters, alpha=alpha)
            runs.append(replace(run, config=replace(run.config, hyperparameters=hyper)))
    assert [number.choices for number in lawn.l6(split("lawn", runs)[0])] == [2]


def test_of_several_settings_of_a_cell_most_seeds_count_then_accuracy(tmp_path):
    """A sweep of E_free with one lucky seed does not displace the cell."""
    lucky = gupta(tmp_path / "lucky", {("adam_lawn", False, 10.0): 99.0}, seeds=(0,), only=[("adam_lawn", False, 10.0)])
    usual = gupta(tmp_path / "usual", only=[("adam_lawn", False), ("adam", False)])
    [judgement] = judge("lawn", lucky + usual, [claim for claim in CLAIMS if claim.name == "L1"])
    assert {run.config.hyperparameters.free_epochs for run in judgement.numbers[0].runs} == {0.0, 2.0}
