"""Which runs a cell of the LAWN paper's table is judged by, among how many, and where a rule does not judge."""

from dataclasses import replace

import pytest

from adamlab.claims import CLAIMS, judge, lawn
from adamlab.claims.evidence import split
from adamlab.claims.measures import accuracy
from adamlab.protocol import PROTOCOLS
from tests.claims.worlds import gupta, verdicts


def with_alpha(run, alpha):
    return replace(run, config=replace(run.config, hyperparameters=replace(run.config.hyperparameters, alpha=alpha)))


def test_settings_among_which_a_cell_is_chosen_are_counted(tmp_path):
    """Three E_free of as many seeds; one more with a single seed is not in the choice."""
    more = {("adam_lawn", False, value): 93.0 for value in (5.0, 10.0)}
    runs = gupta(tmp_path / "a", more, only=[("adam", False), ("adam_lawn", False), *more])
    lucky = {("adam_lawn", False, 3.0): 99.0}
    runs += gupta(tmp_path / "b", lucky, seeds=(0,), only=lucky)
    [judgement] = judge("lawn", runs, [claim for claim in CLAIMS if claim.name == "L1"])
    assert [found.choices for found in judgement.numbers] == [3]


@pytest.mark.parametrize(
    ("name", "tried", "other"),
    [
        ("L1", ("adam", False), ("adam_lawn", False)),
        ("L1", ("adam_lawn", False), ("adam", False)),
        ("L2", ("adam_lawn", False), ("adam_lawn", True)),
        ("L2", ("adam_lawn", True), ("adam_lawn", False)),
    ],
)
def test_of_the_cells_that_are_compared_that_of_most_settings_counts(name, tried, other, tmp_path):
    runs = gupta(tmp_path, only=[other])
    for alpha in (1e-3, 2e-3, 3e-3):
        runs += [with_alpha(run, alpha) for run in gupta(tmp_path / str(alpha), only=[tried])]
    [judgement] = judge("lawn", runs, [claim for claim in CLAIMS if claim.name == name])
    assert [found.choices for found in judgement.numbers if found.samples] == [3]


@pytest.mark.parametrize("name", ["L1", "L2", "L3", "L4", "L8"])
def test_a_run_at_a_batch_size_that_no_other_optimizer_has_changes_no_verdict(name, tmp_path):
    runs = gupta(tmp_path)
    for optimizer in ("adam", "sgd_lawn"):
        run = next(run for run in runs if run.config.optimizer == optimizer)
        stray = replace(run.config, protocol=replace(run.config.protocol, batch_size=500))
        runs.append(replace(run, config=stray))
    claim = [claim for claim in CLAIMS if claim.name == name]
    [judgement], [without] = judge("lawn", runs, claim), judge("lawn", runs[:-2], claim)
    assert judgement.numbers == without.numbers


def test_a_setting_that_diverged_is_not_better_than_one_that_finished_below_a_guess(tmp_path):
    runs = gupta(tmp_path, {("adam", False): 5.0}, only=[("adam", False)])
    diverged = [replace(with_alpha(run, 1e30), outcome={"outcome": "diverged"}) for run in runs]
    assert lawn.cell(split("lawn", runs + diverged)[0], "adam", 50) == {run.config.seed: run for run in runs}


def test_runs_of_a_setting_are_one_cell_whether_they_were_traced_or_not(tmp_path):
    runs = gupta(tmp_path, only=[("adam", False), ("adam_lawn", False)])
    runs = [replace(run, config=replace(run.config, trace_every=4 * (run.config.seed != 1))) for run in runs]
    [number] = lawn.l1(split("lawn", runs)[0])
    assert (len(number.samples), number.choices) == (3, 1)


def test_of_several_lines_of_free_phases_the_longest_are_counted(tmp_path):
    """With E_free 2 and 10; another alpha with both, a third with one of them."""
    line = {("adam_lawn", False): 93.9, ("adam_lawn", False, 10.0): 93.7}
    runs = gupta(tmp_path / "0", only=line)
    for place, (alpha, cells) in enumerate(((3e-3, line), (1e-2, [("adam_lawn", False)])), start=1):
        runs += [with_alpha(run, alpha) for run in gupta(tmp_path / str(place), only=cells)]
    assert [number.choices for number in lawn.l6(split("lawn", runs)[0])] == [2]


@pytest.mark.parametrize(
    ("protocol", "values", "labels"),
    [
        # A tenth of the training is 2 epochs of 20, or 30 of 300, of which fewer than 10 are early.
        ("lawn-laptop", (0.0, 1.0, 2.0, 3.0, 5.0), ["1 - 3", "1 - 5", "2 - 3", "2 - 5"]),
        ("lawn-laptop", (0.0, 3.0, 5.0), []),
        ("lawn-paper", (9.0, 10.0, 20.0), ["9 - 10", "9 - 20"]),
        ("lawn-paper", (20.0, 40.0), []),
    ],
)
def test_early_switches(protocol, values, labels, tmp_path):
    line = {("adam_lawn", False, value): 93.0 + 0.1 * value for value in values}
    runs = gupta(tmp_path, line, seeds=(0,), only=line, protocol=PROTOCOLS[protocol])
    numbers = lawn.l6(split("lawn", runs)[0])
    assert [number.label for number in numbers] == [
        f"Adam-LAWN, batch 50: accuracy with E_free {label}" for label in labels
    ]
    reached = {run.config.hyperparameters.free_epochs: accuracy(run) for run in runs}
    for number, label in zip(numbers, labels, strict=True):
        early, later = label.split(" - ")
        assert number.samples == (pytest.approx(reached[float(early)] - reached[float(later)]),)


def test_of_several_settings_of_a_cell_most_seeds_count_then_accuracy(tmp_path):
    """A sweep of E_free with one lucky seed does not displace the cell."""
    lucky = gupta(tmp_path / "lucky", {("adam_lawn", False, 10.0): 99.0}, seeds=(0,), only=[("adam_lawn", False, 10.0)])
    usual = gupta(tmp_path / "usual", only=[("adam_lawn", False), ("adam", False)])
    [judgement] = judge("lawn", lucky + usual, [claim for claim in CLAIMS if claim.name == "L1"])
    assert {run.config.hyperparameters.free_epochs for run in judgement.numbers[0].runs} == {0.0, 2.0}


@pytest.mark.parametrize(
    ("name", "only", "found"),
    [
        ("L2", [("adam", False), ("adam_lawn", False)], {}),
        ("L3", [("sgd", False), ("sgd_lawn", False)], {"L3": "inconclusive"}),
        ("L4", [("adam", False), ("adam_lawn", False)], {}),
        ("L5", [("adam_lawn", False), ("adam_lawn", True)], {}),
    ],
)
def test_what_needs_two_batch_sizes_or_another_optimizer_says_nothing_without(name, only, found, tmp_path):
    """Of L3, one batch size decides the half about the smallest."""
    runs = gupta(tmp_path, only=only)
    assert verdicts(runs, name) == found
    numbers = {claim.name: claim for claim in CLAIMS}[name].numbers(split("lawn", runs)[0])
    missing = {number.why for number in numbers if not number.samples}
    assert missing == {"L4": {"SGD was not run"}, "L5": {"AdamP was not run"}}.get(name, {"a single batch size"})


def test_adamp_is_not_judged_on_imagenet(tmp_path):
    """Where the paper did not run it."""
    runs = gupta(tmp_path, dataset="imagenet2012", seeds=(0,))
    assert {(number.samples, number.why) for number in lawn.l5(split("lawn", runs)[0])} == {((), "AdamP was not run")}
