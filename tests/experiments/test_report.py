"""Sensitivity indices of records, on the command line."""

import io
import re

import pytest
from rich.console import Console

from adamlab import records
from adamlab.claims import CLAIMS, judge
from experiments.claims import print_claim
from experiments.report import print_report
from plots.sensitivity import compose_all
from plots.studies import gather
from tests.experiments.console import printed
from tests.experiments.processes import finish
from tests.faults.study import recorded
from tests.plots import cells
from tests.plots.curves import ADAM, write_grid, write_run


def test_the_report_reads_records_and_trains_nothing(study):
    out, _, _ = study
    before = recorded(out)
    status, output, errors = finish(["--report", f"--out={out}"])
    assert status == 0, errors
    losses = [
        run.epochs[-1]["train_loss"] for run in records.read_runs(out)
    ]  # by path: 0.01, 0.1, 0.0001, 1e-05, default
    regret = losses[-1] - min(losses)
    row = next(line for line in output.splitlines() if line.startswith("│ alpha"))
    assert f" {regret:.3g} " in row
    assert "digits-smoke" in output
    assert recorded(out) == before
    status, _, errors = finish(["--report", f"--out={out / 'nothing'}"])
    assert (status, errors.count("\n")) == (2, 1)
    assert "no runs below" in errors


def test_what_one_setting_for_both_networks_costs_is_said_of_networks_trained_alike(tmp_path):
    """plain20 is best at 1e-3 and ResNet-34 at 1e-4, by 10 points of accuracy, a tenth of the loss given; either gives
    away 5 on average."""
    for model, accuracies in (("plain20", (0.5, 0.6)), ("resnet34", (0.6, 0.5))):
        for alpha, accuracy in zip((1e-4, 1e-3), accuracies, strict=True):
            write_run(tmp_path, (10 * accuracy,), model=model, alpha=alpha)

    def said():
        console = Console(record=True, width=200, file=io.StringIO())
        print_report(console, tmp_path)
        return console.export_text().splitlines()[-1]

    assert said().endswith(
        "plain20 and resnet34 instead of one each costs 5.0 points of test accuracy (Adkins et al. 2024)."
    )
    # A second seed that likes 1e-3 on both networks: nothing is given away there, and 5 in the first.
    for model in ("plain20", "resnet34"):
        for alpha, accuracy in ((1e-4, 0.5), (1e-3, 0.6)):
            write_run(tmp_path, (10 * accuracy,), model=model, alpha=alpha, seed=1)
    assert "each costs 0.0 [0.0, 5.0] points" in said()
    # Of other seeds at another value there is no seed to draw with all its accuracies.
    for model in ("plain20", "resnet34"):
        for beta1 in (0.5, 0.9):
            write_run(tmp_path, (4.0,), model=model, beta1=beta1, seed=1)
            write_run(tmp_path, (4.0,), model=model, beta1=beta1, seed=2)
    assert re.search(r"each costs \d\.\d points", said())  # no interval
    write_run(tmp_path, (1.0,), model="plain20", alpha=0.01)
    assert said() == "plain20 and resnet34 were not trained alike: what one setting for both costs is not known."


def test_what_has_no_index_is_said(tmp_path):
    write_grid(tmp_path, {"alpha": ADAM["alpha"][:-1], "beta1": ADAM["beta1"]})
    write_run(tmp_path, outcome=None, alpha=ADAM["alpha"][-1])
    lines = printed(print_report, tmp_path).splitlines()
    unfinished = "alpha, since no seed has ended at all its 5 values"
    # Its test losses are above a guess's: an index of them would say that beta1 does not matter.
    guesses = "the test loss by beta1, of which no value is better than a guess"
    assert f"plain20, Adam: without {unfinished} and {guesses}" in lines
    assert [line.split()[1] for line in lines if line.startswith("│")] == ["beta1"]


def test_a_study_of_batch_sizes_is_no_sensitivity_study(tmp_path):
    """Its alphas go with the batch: read as one curve they would mix batch sizes as if they were seeds."""
    for batch_size, alpha in ((50, 1e-3), (250, 2e-3)):
        cells.write_run(tmp_path, "adam", batch_size, alpha=alpha)
    assert compose_all(records.read_runs(tmp_path)) == {}
    with pytest.raises(records.RecordsError, match="no sensitivity study below"):
        print_report(Console(file=io.StringIO()), tmp_path)
    write_run(tmp_path, alpha=0.1)
    console = Console(record=True, width=200, file=io.StringIO())
    print_report(console, tmp_path)
    assert "lawn-laptop" not in console.export_text()


def test_a_folders_name_is_no_markup(tmp_path):
    """The first would lose its brackets, the second end a style that was not begun."""
    for name in ("a[b]", "x[/b]"):
        write_grid(tmp_path / name, {"alpha": ADAM["alpha"]})
        console = Console(record=True, width=400, file=io.StringIO())
        print_report(console, tmp_path)
        assert f"{name}/cifar10-laptop: losses" in console.export_text()
        ((study, runs),) = gather([tmp_path / name]).items()
        (s3,) = (claim for claim in CLAIMS if claim.name == "S3")
        print_claim(console, s3, judge(study, runs, [s3]))
        assert f"{name}/cifar10-laptop, " in console.export_text()


@pytest.mark.parametrize(
    ("arguments", "named"), [(["--optimizer=sgd"], "--optimizer"), (["--seeds=3", "--data-dir=."], "--data-dir")]
)
def test_a_report_takes_no_option_that_it_would_not_look_at(tmp_path, arguments, named):
    status, output, errors = finish(["--report", *arguments, f"--out={tmp_path}"])
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert errors.endswith(f"the only option that it takes; got {named}\n")
