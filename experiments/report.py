"""Prints what records say about sensitivity: one table of indices per network and optimizer."""

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from adamlab.analysis.sensitivity import tuning_dependence
from adamlab.claims.measures import accuracy
from adamlab.hyperparameters import OPTIMIZERS
from adamlab.records import Run
from plots.ranking import INDICES, METRICS, Curve, curves, index_rows
from plots.studies import find_studies, span


def print_report(console: Console, results: Path) -> None:
    """Prints the indices of every study below `results`, with 95% bootstrap intervals over seeds.

    Raises:
      RecordsError: There is no run, or a run is damaged.
    """
    for study, runs in find_studies(results).items():
        console.print(f"[bold]{study if study.name else results.name}[/]: losses in nats after the last epoch")
        models = sorted({run.config.model for run in runs})
        for optimizer in (name for name in OPTIMIZERS if any(run.config.optimizer == name for run in runs)):
            for metric in METRICS:
                for model in models:
                    if found := curves(runs, model, optimizer, metric):
                        console.print(make_table(model, optimizer, metric, found))
            _print_dependence(console, runs, models, optimizer)


def make_table(model: str, optimizer: str, metric: str, found: dict[str, Curve]) -> Table:
    """One row per hyperparameter, the one that matters most first."""
    seeds = span({curve.losses.shape[1] for curve in found.values()}, "seed")
    title = f"{model}, {OPTIMIZERS[optimizer].title}, {METRICS[metric]} ({seeds})"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for name in (*INDICES, "share"):
        table.add_column(name, justify="right")
    for row in index_rows(found):
        table.add_row(*row)
    return table


def _print_dependence(console: Console, runs: list[Run], models: list[str], optimizer: str) -> None:
    """How much accuracy is lost where one setting must serve all networks, among those that all were trained with."""
    accuracies: dict[str, dict[tuple[str, float], float]] = {}
    for model in models:
        accuracies[model] = {}
        for name, curve in curves(runs, model, optimizer, "test_loss").items():
            table = [accuracy(run) for run in curve.runs]
            for value, mean in zip(curve.values, np.reshape(table, curve.losses.shape).mean(axis=1), strict=True):
                accuracies[model][name, value] = float(mean)
    models = [model for model in models if accuracies[model]]
    settings = sorted(set.intersection(*(set(accuracies[model]) for model in models))) if models else []
    if len(models) > 1 and settings:
        loss = tuning_dependence([[accuracies[model][setting] for setting in settings] for model in models])
        console.print(
            f"One setting of {OPTIMIZERS[optimizer].title} for {' and '.join(models)} instead of one each costs "
            f"{loss:.1f} points of test accuracy (Adkins et al. 2024)."
        )
