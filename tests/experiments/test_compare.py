"""Two settings beside each other, against SciPy's paired t-test, and what cannot be compared."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from adamlab import command
from adamlab.records import read_runs
from experiments import compare
from tests.claims.worlds import gupta, write_run

ROOT = Path(__file__).parents[2]
LAPTOP = ROOT / "docs/results/cifar10-lawn-laptop/plain20"
ADAM = LAPTOP / "alpha=0.003,warmup_epochs=2.0"
LAWN = LAPTOP / "adam_lawn,alpha=0.003,free_epochs=2.0,warmup_epochs=2.0"


@pytest.fixture
def run(capsys, monkeypatch):
    """The function `run(*arguments)`: exit status, what the command prints, and what it complains of."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["compare", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "500")
        with pytest.raises(SystemExit) as stop:
            command.run_main(compare.main, "experiments.compare")
        output = capsys.readouterr()
        return stop.value.code, output.out, output.err

    return call


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
    assert "OTHER here, BASE there: free_epochs 2.0 here, 0.0 there, optimizer adam_lawn here, adam there\n" in output
    assert "after the last epoch, seeds 0, 1, 2, 3, 4, 5\n" in output
    found = numbers(output)
    units = {"train_loss": "training loss, nats", "test_accuracy": "test accuracy, %", "logit_norm": "logit norm"}
    for name, title in units.items():
        base, other = (np.array([run.epochs[-1][name] for run in read_runs(folder)]) for folder in (ADAM, LAWN))
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
    assert "angular step, radians" not in numbers(run(ADAM, LAWN)[1])
    status, output, _ = run(ADAM, LAWN, "--epoch=16")
    assert status == 0
    assert "after epoch 16, seeds" in output
    means, brackets = numbers(output)["angular step, radians"]
    assert (means[3], brackets[3]) == (["1.41"], ["1.28", "1.55"])
    page = " ".join((LAPTOP.parent / "README.md").read_text().split())
    assert "by a factor of 1.41 [1.28, 1.55] at batch 50" in page


def test_a_seed_that_did_not_finish_in_both_is_left_out_and_said(run, tmp_path):
    runs = gupta(tmp_path, seeds=range(3), only=[("adam", False), ("adam_lawn", False)])
    base, other = (
        next(found.folder.parent for found in runs if found.config.optimizer == o) for o in ("adam", "adam_lawn")
    )
    extra = replace(runs[0].config, seed=7)
    write_run(tmp_path, extra, runs[0].epochs)
    write_run(tmp_path, replace(runs[-1].config, seed=7), runs[-1].epochs[:3], outcome="diverged")
    write_run(tmp_path, replace(runs[0].config, seed=8), runs[0].epochs)
    status, output, _ = run(base, other)
    assert status == 0
    assert "seeds 0, 1, 2 (left out, not finished in both: 7, 8)" in output
    for folder in (base, other):
        for seed in (1, 2):
            (folder / f"seed={seed}").rename(tmp_path / f"{folder.name}-{seed}")
    means, *rest = numbers(run(base, other)[1])["training loss, nats"]
    assert not rest  # one pair has no interval
    assert means[4] in (["1 of 1"], ["0 of 1"])


def test_what_cannot_be_compared_is_refused_in_one_line(run, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    apart = gupta(tmp_path / "apart", seeds=(9,), only=[("adam", False)])[0].folder.parent
    for arguments, message in (
        ((LAPTOP, LAWN), f"{LAPTOP} holds 8 settings; expected one, such as {LAWN}"),
        ((ADAM, empty), f"no runs below {empty}: expected folders with a config.json"),
        ((ADAM, LAWN, "--epoch=21"), "--epoch must be from 1 to 20, got 21"),
        ((ADAM, LAWN, "--epoch=0"), "--epoch must be from 1 to 20, got 0"),
        ((ADAM, LAWN, "--comparisons=0"), "--comparisons must be at least 1, got 0"),
        ((ADAM, apart), "expected a seed that finished in both settings, got 0 finished, 1 finished"),
    ):
        status, output, errors = run(*arguments)
        assert (status, output) == (2, "")
        assert errors.startswith(f"error: {message}")
        assert errors.count("\n") == 1
