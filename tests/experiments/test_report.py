"""Sensitivity indices of records, on the command line."""

import io

from rich.console import Console

from adamlab import records
from experiments.report import print_report
from tests.experiments.processes import finish
from tests.faults.study import recorded
from tests.plots.curves import write_run


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
    write_run(tmp_path, (1.0,), model="plain20", alpha=0.01)
    assert said() == "plain20 and resnet34 were not trained alike: what one setting for both costs is not known."
