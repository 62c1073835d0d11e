"""The table of verdicts, from published records and made-up ones, and what is behind one."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from adamlab.claims import CLAIMS, judge
from experiments import claims
from tests.claims.worlds import madan
from tests.experiments.console import ended, printed

ROOT = Path(__file__).parents[2]
ALPHAS = [("plain20", None, None), *(("plain20", "alpha", value) for value in (1e-5, 1e-4, 1e-2, 1e-1))]


@pytest.fixture
def run(capsys, monkeypatch):
    """The function `run(*arguments)`: what the command prints."""

    def call(*arguments):
        status, output, errors = ended(claims, capsys, monkeypatch, *arguments)
        assert (status, errors) == (0, "")
        return output

    return call


def rows(table):
    """By claim: the cells of the first line of its row."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]
    return {row[0]: row for row in cells if row[0]}


def test_published_records_have_a_row_for_every_claim(run, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = rows(run())
    assert list(found) == [claim.name for claim in CLAIMS]


def test_a_study_given_twice_counts_once_and_other_claims_are_not_run(run, tmp_path):
    madan(tmp_path, only=ALPHAS)
    output = run(tmp_path, tmp_path / "cifar10-paper")
    found = rows(output)
    assert found["S3"][2] == "reproduced, 4 of 4 hold"
    assert found["S1"][2] == found["L1"][2] == "not run"
    assert output.count("the paper's protocol") == len([row for row in found.values() if row[2] != "not run"])


def test_results_are_the_default_where_nothing_is_published(run, tmp_path, monkeypatch):
    madan(tmp_path / "results", only=ALPHAS)
    monkeypatch.chdir(tmp_path)
    output = run()
    assert rows(output)["S3"][2] == "reproduced, 4 of 4 hold"
    assert "│ results/cifar10-paper, the paper's protocol" in output


def test_a_verdict_is_traced_to_its_runs(run, tmp_path):
    """Every path that is named holds a run, and the number is that of the records."""
    runs = madan(tmp_path, only=ALPHAS)
    output = run(tmp_path, "--claim=S3")
    assert "Rule: On plain20, the training loss of the last epoch is higher" in output
    assert "section 4" in output
    assert "reproduced" in output
    named = re.findall(r"^ +(/.+)/seed=([\d,]+)$", output, flags=re.MULTILINE)
    folders = {Path(setting) / f"seed={seed}" for setting, seeds in named for seed in seeds.split(",")}
    assert folders == {run.folder for run in runs}
    line = next(line for line in output.splitlines() if "alpha 0.01 against 0.001" in line)
    losses = {run.config.setting: run.epochs[-1]["train_loss"] for run in runs if run.config.seed == 0}
    assert line.startswith("  holds: ")
    by_seed = output.splitlines()[output.splitlines().index(line) + 1]
    assert f"by seed: {losses['alpha=0.01'] / losses['default']:.3g}," in by_seed


def test_a_number_fails_as_one_of_all_those_of_its_claim(tmp_path):
    """The lower loss at alpha 0.01 contradicts S3 at 5 %, but not at 5 %/4, S3 having four numbers.

    Logarithms of -0.7, -1 and -1.3 have the mean -1 and the standard error 0.3 / sqrt(3) = 0.173, 5.77 of which are 1.
    Student's t of two degrees of freedom is 4.30 at 5 %, and 8.86 at 1.25 %.
    """
    runs = {(run.config.setting, run.config.seed): run for run in madan(tmp_path, only=ALPHAS)}
    for seed, logarithm in enumerate((-0.7, -1.0, -1.3)):
        run, default = runs["alpha=0.01", seed], runs["default", seed]
        loss = default.epochs[-1]["train_loss"] * math.exp(logarithm)
        runs["alpha=0.01", seed] = replace(run, epochs=[*run.epochs[:-1], run.epochs[-1] | {"train_loss": loss}])
    (s3,) = (claim for claim in CLAIMS if claim.name == "S3")
    judgements = judge("study", list(runs.values()), [s3])
    text = printed(claims.print_claim, s3, judgements)
    assert "study, the paper's protocol: inconclusive" in text
    assert "  open: plain20: training loss of alpha 0.01 against 0.001: x 0.368 " in text  # exp(-1)
    assert text.count("  holds: ") == 3


def test_what_was_not_run_is_said(run, tmp_path):
    madan(tmp_path, only=ALPHAS)
    assert "not run: no study has any of these runs" in run(tmp_path, "--claim=L8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--claim=S99"], ["--claim must be one of S1", "'S99'"]),
        (["nowhere"], ["nowhere", "not a folder"]),
        (["n" * 300], ["not a folder"]),
        (["."], ["no runs below ."]),
        ([], ["no runs below results"]),
    ],
)
def test_bad_input_is_one_line(refusal, arguments, words):
    error = refusal(claims.main, arguments)
    assert all(word in error for word in words)
