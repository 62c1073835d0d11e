"""Prints what records say about sensitivity: one table of indices per network and optimizer."""

import math
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adamlab.analysis.intervals import bootstrap
from adamlab.analysis.sensitivity import tuning_dependence
from adamlab.claims.measures import accuracy
from adamlab.files import RecordsError
from adamlab.hyperparameters import OPTIMIZERS
from adamlab.records import Run
from plots.indices import COLUMNS, LOSSES, Curve, curves, index_rows, learned, left_out
from plots.studies import find_studies, optimizers_of


def print_report(console: Console, results: Path) -> None:
    """Prints the indices of every study below `results`, with 95 % intervals over seeds: `plots.indices.INDICES`.

    Raises:
      RecordsError: There is no run of such a study, or a run is damaged.
    """
    below = find_studies(results)
    studies = {study: runs for study, runs in below.items() if runs[0].config.protocol.schedule == "constant"}
    if not studies:
        raise RecordsError(f"no sensitivity study below {results}: what is there is of experiments.large_batch")
    for study, runs in studies.items():
        console.print(f"[bold]{escape((results / study).as_posix())}[/]: losses of the last epoch, in nats")
        models = sorted({run.config.model for run in runs})
        for optimizer in optimizers_of(runs):
            for metric in LOSSES:
                for model in models:
                    if found := learned(curves(runs, model, optimizer, metric)):
                        console.print(make_table(model, optimizer, metric, found))
            for line in (line for model in models for line in left_out(runs, model, optimizer)):
                console.print(line)
            _print_dependence(console, runs, models, optimizer)


def make_table(model: str, optimizer: str, metric: str, found: dict[str, Curve]) -> Table:
    """One row per hyperparameter, the one that matters most first."""
    title = f"{model}, {OPTIMIZERS[optimizer].title}, {LOSSES[metric]}"
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in COLUMNS:
        # On a narrow screen or in a pipe an interval takes several lines; cut short, it would be another number.
        table.add_column(name, justify="right" if name else "left", overflow="fold")
    for row in index_rows(found):
        table.add_row(*row)
    return table


def _print_dependence(console: Console, runs: list[Run], models: list[str], optimizer: str) -> None:
    """How much accuracy is lost where one setting must serve all networks, if they were trained alike."""
    accuracies: dict[str, dict[tuple, np.ndarray]] = {}
    for model in models:
        found = curves(runs, model, optimizer, "test_loss")
        accuracies[model] = {
            (run.config.protocol, name, value, *curve.seeds): by_seed
            for name, curve in found.items()
            for run, value, by_seed in zip(
                curve.runs[:: len(curve.seeds)],
                curve.values,
                np.reshape([accuracy(run) for run in curve.runs], curve.losses.shape),
                strict=True,
            )
        }
    models = [model for model in models if accuracies[model]]
    if len(models) < 2:
        return
    first = accuracies[models[0]]
    if any(accuracies[model].keys() != first.keys() for model in models):
        console.print(f"{' and '.join(models)} were not trained alike: what one setting for both costs is not known.")
        return
    rows = [accuracies[model][key] for model in models for key in first]
    loss = tuning_dependence(np.reshape([row.mean() for row in rows], (len(models), -1)))
    interval = ""
    if len({key[3:] for key in first}) == 1:  # else a seed cannot be drawn with all its accuracies
        low, high = bootstrap(lambda drawn: tuning_dependence(drawn.mean(axis=1).reshape(len(models), -1)), rows)
        interval = "" if math.isnan(low) else f" [{low:.1f}, {high:.1f}]"
    console.print(
        f"One of these settings of {OPTIMIZERS[optimizer].title} for {' and '.join(models)} instead of one each costs "
        f"{loss:.1f}{interval} points of test accuracy (Adkins et al. 2024)."
    )
