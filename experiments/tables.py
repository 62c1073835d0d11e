"""Prints a study's results: one table per network and varied hyperparameter."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from rich.console import Console
from rich.table import Table

from adamlab.config import RunConfig
from adamlab.hyperparameters import OPTIMIZERS, varied
from adamlab.records import Run, find_run, run_folder
from plots.cells import final

# Name in the records, title, format, and which of several means is the best one.
METRICS = (
    ("train_loss", "training loss", "{:.4f}", min),
    ("test_loss", "test loss", "{:.4f}", min),
    ("test_accuracy", "test accuracy", "{:.2%}", max),
)


def print_tables(
    console: Console, out: Path, configs: Sequence[RunConfig], grid: dict[tuple[str, str], tuple[float, ...]]
) -> None:
    """Prints the last epoch of the runs of `configs`: mean over seeds, standard deviation, best and default marked.

    Runs that another process has only just begun are left out.
    """
    runs = defaultdict(list)
    for config in configs:
        if run := find_run(run_folder(out, config), config):
            runs[config.model, config.optimizer, config.hyperparameters].append(run)
    for model in dict.fromkeys(config.model for config in configs):
        for (optimizer, parameter), values in grid.items():
            rows = {value: runs[model, optimizer, varied(optimizer, parameter, value)] for value in values}
            if any(rows.values()):
                console.print(make_table(model, optimizer, parameter, rows))


def make_table(model: str, optimizer: str, parameter: str, rows: dict[float, list[Run]]) -> Table:
    """One row per value of the parameter, from the runs (one per seed) with that value.

    Of a value with a run that diverged, or that another process is still at or has only just begun, this is said; its
    numbers are those of the runs that finished, and it is never the best.
    """
    seeds = max(len(runs) for runs in rows.values())
    spread = f", mean ± standard deviation of {seeds} seeds" if seeds > 1 else ""
    epochs = next(run for runs in rows.values() for run in runs).config.protocol.epochs
    title = f"{model}, {OPTIMIZERS[optimizer].title}, {parameter}: epoch {epochs}{spread}"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(parameter, justify="right")
    for _, title, _, _ in METRICS:
        table.add_column(title, justify="right")
    table.add_column("")

    whole = {value: runs for value, runs in rows.items() if len(runs) == seeds and not _others(runs)}
    means = {metric: {value: mean(final(runs, metric)) for value, runs in whole.items()} for metric, *_ in METRICS}
    for value, runs in rows.items():
        cells = []
        for metric, _, text, best_of in METRICS:
            best = value in whole and means[metric][value] == best_of(means[metric].values())
            cells.append(_cell(final(runs, metric), text, best))
        notes = ["default"] if value == getattr(OPTIMIZERS[optimizer].defaults, parameter) else []
        notes += [f"{ending} ({count} of {len(runs)})" for ending, count in _others(runs).items()]
        notes += [f"{len(runs)} of {seeds} seeds"] if len(runs) < seeds else []
        table.add_row(f"{value:g}", *cells, ", ".join(notes))
    table.caption, table.caption_justify = "* best of the column", "left"
    return table


def _others(runs: list[Run]) -> Counter[str]:
    """How many runs are not finished, by what has become of them."""
    return Counter(run.ending for run in runs if run.ending != "finished")


def _cell(values: list[float], text: str, best: bool) -> str:
    if not values:
        return "- "
    spread = f" ± {text.format(stdev(values))}" if len(values) > 1 else ""
    cell = text.format(mean(values)) + spread
    return f"[bold]{cell}*[/]" if best else f"{cell} "
