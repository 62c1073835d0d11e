"""Two settings beside each other, against SciPy's paired t-test, and what cannot be compared."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from adamlab.records import read_runs
from experiments import compare
from tests.claims.worlds import gupta, write_run
from tests.experiments.console import ended

ROOT = Path(__file__).parents[2]
LAPTOP = ROOT / "docs/results/cifar10-lawn-laptop/plain20"
ADAM = LAPTOP / "alpha=0.003,warmup_epochs=2.0"
LAWN = LAPTOP / "adam_lawn,alpha=0.003,free_epochs=2.0,warmup_epochs=2.0"


@pytest.fixture
def run(capsys, monkeypatch):
    """The function `run(*arguments)`: exit status, what the command prints, and what it complains of."""

    return partial(ended, compare, capsys, monkeypatch)


def numbers(output):
    """By title: the lines of a row's cells, each as its numbers."""
    found, title = {}, None
    for line in output.splitlines():
        if line.startswith("│"):
            first, *cells = [cell.strip() for cell in line.split("│")[1:-1]]
            title = first or title
            found.setdefault(title, []).append([cell.strip("±[] ").split(", ") if cell else [] for cell in cells])
    return found


@pytest.mark.parametrize("comparisons", [1, 4])
def test_differences_and_factors_are_those_of_a_paired_t_test(run, comparisons):
    status, output, errors = run(ADAM, LAWN, f"--comparisons={comparisons}")
    assert (status, errors) == (0, "")
    assert f"BASE   {ADAM}: free_epochs 0.0, optimizer adam, after epoch 20 of 20\n" in output
    assert f"OTHER  {LAWN}: free_epochs 2.0, optimizer adam_lawn, after epoch 20 of 20\n" in output
    assert f"Brackets, paired by seed: {100 - 5 / comparisons:g} % intervals" in output
    found = numbers(output)
    titles = {
        "training loss, nats": lambda epochs: epochs[-1]["train_loss"],
        "test accuracy, %": lambda epochs: epochs[-1]["test_accuracy"],
        "logit norm": lambda epochs: epochs[-1]["logit_norm"],
        "weight norm, head": lambda epochs: epochs[-1]["layer_weight_norms"]["head/linear/kernel"],
        "lowest test loss, nats": lambda epochs: min(record["test_loss"] for record in epochs),
        "highest test accuracy, %": lambda epochs: max(record["test_accuracy"] for record in epochs),
    }
    for title, number in titles.items():
        base, other = (np.array([number(run.epochs) for run in read_runs(folder)]) for folder in (ADAM, LAWN))
        unit = 100 if title.endswith("%") else 1
        means, brackets = found[title]
        ours = [float(number) for cell in means[:4] for number in cell]
        log = np.log(other / base)
        theirs = [unit * base.mean(), unit * other.mean(), unit * (other - base).mean(), np.exp(log.mean())]
        np.testing.assert_allclose(ours, theirs, rtol=6e-3)
        low, high = scipy.stats.ttest_rel(other, base).confidence_interval(1 - 0.05 / comparisons)
        np.testing.assert_allclose([float(x) for x in brackets[2]], [unit * low, unit * high], rtol=6e-3)
        ends = scipy.stats.t.interval(1 - 0.05 / comparisons, 5, log.mean(), scipy.stats.sem(log))
        np.testing.assert_allclose([float(x) for x in brackets[3]], np.exp(ends), rtol=6e-3)
        np.testing.assert_allclose([float(x) for x in brackets[0]], [unit * base.std(ddof=1)], rtol=6e-3)
        assert means[4] == [f"{(other > base).sum()} of 6"]


def test_an_earlier_epoch_has_its_own_numbers_and_the_last_no_angle(run):
    """The page of this study has both: a factor of 1.41 [1.28, 1.55] at epoch 16, and a learning rate of 0 at 20."""
    output = run(ADAM, LAWN)[1]
    assert "angular step, radians" not in numbers(output)
    assert "Not in all of these records: angular step.\n" in output
    assert "Not in all of these records: gradient norm, logit norm, " in run(ADAM, LAWN, "--epoch=15")[1]
    status, output, _ = run(ADAM, LAWN, "--epoch=16")
    assert status == 0
    assert "after epoch 16 of 20\n" in output
    assert "Not in" not in output
    means, brackets = numbers(output)["angular step, radians"]
    assert (means[3], brackets[3]) == (["1.41"], ["1.28", "1.55"])
    page = " ".join((LAPTOP.parent / "README.md").read_text().split())
    assert "by a factor of 1.41 [1.28, 1.55] at batch 50" in page


def test_each_run_has_its_own_last_epoch(run):
    longer = ROOT / "docs/results/cifar10-lawn-laptop-40-epochs/plain20" / ADAM.name
    status, output, _ = run(ADAM, longer)
    assert status == 0
    assert ", epochs 20, after epoch 20 of 20\n" in output
    assert ", epochs 40, after epoch 40 of 40\n" in output
    [mean], *_ = numbers(output)["training loss, nats"][0][1:]
    assert float(mean) == pytest.approx(np.mean([run.epochs[-1]["train_loss"] for run in read_runs(longer)]), rel=1e-3)


def test_held_out_images_are_not_called_test_images(run):
    settings = sorted((ROOT / "docs/results/cifar10-lawn-laptop-tuning/plain20").iterdir())[:2]
    output = run(*settings)[1]
    assert "validation accuracy, %" in numbers(output)
    assert "test" not in "".join(numbers(output))
    assert "Brackets" not in output  # a single seed has none


def test_a_seed_that_did_not_finish_in_both_is_left_out_and_said(run, tmp_path):
    runs = gupta(tmp_path, seeds=range(3), only=[("adam", False), ("adam_lawn", False)])
    base, other = (
        next(found.folder.parent for found in runs if found.config.optimizer == o) for o in ("adam", "adam_lawn")
    )
    write_run(tmp_path, replace(runs[0].config, seed=7), runs[0].epochs)
    write_run(tmp_path, replace(runs[-1].config, seed=7), runs[-1].epochs[:3], outcome="diverged")
    write_run(tmp_path, replace(runs[0].config, seed=8), runs[0].epochs)
    status, output, _ = run(base, other)
    assert status == 0
    assert "Seeds left out: 7 (diverged in OTHER, 3 epochs), 8 (not in OTHER).\n" in output
    assert numbers(output)["training loss, nats"][0][4][0].endswith(" of 3")
    output = run(base, other, "--epoch=3")[1]
    assert "Seeds left out: 8 (not in OTHER).\n" in output
    assert numbers(output)["training loss, nats"][0][4][0].endswith(" of 4")
    means, *rest = numbers(run(base / "seed=0", other)[1])["training loss, nats"]
    assert not rest  # one pair has no interval
    first, second = (records.epochs[-1]["train_loss"] for records in (runs[0], runs[3]))
    assert float(means[2][0]) == pytest.approx(second - first, rel=6e-3)
    assert means[4] == [f"{int(second > first)} of 1"]


def test_what_cannot_be_compared_is_refused_in_one_line(run, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    apart = gupta(tmp_path / "apart", seeds=(9,), only=[("adam", False)])[0].folder.parent
    both = "0 (not in OTHER), 1 (not in OTHER), 2 (not in OTHER), 3 (not in OTHER), 4 (not in OTHER), 5 (not in OTHER)"
    long = ", ".join(f"{seed} (finished in BASE, 20 epochs, finished in OTHER, 20 epochs)" for seed in range(6))
    expected = "expected a seed that both settings have"
    for arguments, message in (
        ((LAPTOP, LAWN), f"{LAPTOP} must hold the seeds of one setting, got "),
        ((ADAM, empty), f"no runs below {empty}: expected folders with a config.json"),
        (
            (ADAM, LAWN, "--epoch=21"),
            f"expected a seed that both settings have trained for 21 epochs, got seeds {long}",
        ),
        ((ADAM, LAWN, "--epoch=0"), "--epoch must be at least 1, got 0"),
        ((ADAM, LAWN, "--comparisons=0"), "--comparisons must be at least 1, got 0"),
        ((ADAM, apart), f"{expected} finished, got seeds {both}, 9 (not in BASE)"),
    ):
        status, output, errors = run(*arguments)
        assert (status, output) == (2, "")
        assert errors.startswith(f"error: {message}")
        assert errors.count("\n") == 1
