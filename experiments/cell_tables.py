"""Prints the large-batch study's results: the paper's table beside ours, and what tuning found."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from adamlab.claims.evidence import LARGE_BATCH
from adamlab.claims.published import LAWN, set_name
from adamlab.config import RunConfig
from adamlab.hyperparameters import OPTIMIZERS
from adamlab.records import Run, find_run, run_folder
from experiments.cells import cell
from plots.cells import final, quality
from plots.studies import span

# What a study may vary within a cell, besides alpha in tuning, in a table's words.
VARIED = {"free_epochs": "E_free", "weight_decay": "weight decay", "warmup_epochs": "warm-up"}


class Line(NamedTuple):
    """A line of a table: an optimizer, and its numbers of `VARIED`."""

    optimizer: str
    numbers: tuple[float, ...]


def print_cells(console: Console, out: Path, configs: Sequence[RunConfig]) -> None:
    """Prints the test accuracy of each cell, the paper's beside ours, and the hyperparameters with their origins."""
    cells = _read_cells(out, configs)
    lines = list(dict.fromkeys(line for line, _ in cells))
    batch_sizes = sorted({batch_size for _, batch_size in cells})
    protocol, dataset = configs[0].protocol, configs[0].dataset
    trained = f"{dataset}, {configs[0].model}, {protocol.epochs} epochs"
    title = f"{trained}: test accuracy in %, mean ± standard error (seeds)"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for batch_size in batch_sizes:
        table.add_column(f"batch {batch_size:,}", justify="right")
    for line in lines:
        table.add_row(_label(line, lines), *(_cell_text(cells.get((line, size), []), dataset) for size in batch_sizes))
    if (configs[0].model, protocol.shared) != LARGE_BATCH.get(set_name(dataset)):
        trained = "ResNet-50, all of ImageNet and 90" if protocol.image_size else "VGG-19, all of CIFAR and 300"
        table.caption, table.caption_justify = f"The paper's numbers are for {trained} epochs.", "left"
    console.print(table)
    settings = dict.fromkeys((c.optimizer, c.protocol.batch_size, c.hyperparameters) for c in configs)
    for optimizer, batch_size, h in settings:
        start = cell(dataset, configs[0].model, protocol, optimizer, batch_size)
        origin = f"{start.origin}: {start.source}" if start.hyperparameters == h else "varied from the cell's own"
        values = ", ".join(f"{name} {getattr(h, name):g}" for name in (*OPTIMIZERS[optimizer].names, "warmup_epochs"))
        console.print(f"{OPTIMIZERS[optimizer].title}, batch {batch_size:,}: {values} ({origin})")


def print_tuning(console: Console, out: Path, configs: Sequence[RunConfig]) -> None:
    """Prints the settings of each cell from the best accuracy on held-out training images to the worst."""
    cells = defaultdict(lambda: defaultdict(list))
    for config in configs:
        if run := find_run(run_folder(out, config), config):  # else another process has only just begun it
            cells[config.optimizer, config.protocol.batch_size][config.hyperparameters].append(run)
    for (optimizer, batch_size), settings in cells.items():
        seeds = span(map(len, settings.values()), "seed")
        title = f"{OPTIMIZERS[optimizer].title}, batch {batch_size:,}: {len(settings)} settings, {seeds}: means"
        table = Table(title=title, title_justify="left", title_style="bold")
        for name in ("setting", "accuracy", "loss", "training loss"):
            table.add_column(name, justify="left" if name == "setting" else "right")
        names = (*OPTIMIZERS[optimizer].names, "warmup_epochs")
        varied = [name for name in names if len({getattr(h, name) for h in settings}) > 1]
        ranked = sorted(settings.items(), key=lambda setting: quality(setting[1]), reverse=True)
        for hyperparameters, runs in ranked:
            words = [f"{name} {getattr(hyperparameters, name):g}" for name in varied or ["alpha"]]
            endings = Counter(run.ending for run in runs)
            words += [f"{count} {ending}" for ending, count in endings.items() if ending != "finished"]
            numbers = [
                text.format(mean(final(runs, metric)))
                for metric, text in (("test_accuracy", "{:.2%}"), ("test_loss", "{:.3f}"), ("train_loss", "{:.3f}"))
                if endings["finished"]
            ]
            table.add_row(", ".join(words), *numbers)
        console.print(table)


def _read_cells(out: Path, configs: Sequence[RunConfig]) -> dict[tuple[Line, int], list[Run]]:
    cells = defaultdict(list)
    for config in configs:
        line = Line(config.optimizer, tuple(getattr(config.hyperparameters, name) for name in VARIED))
        if run := find_run(run_folder(out, config), config):
            cells[line, config.protocol.batch_size].append(run)
    return dict(cells)


def _label(line: Line, lines: list[Line]) -> str:
    """The optimizer, and what tells this line from its others."""
    columns = zip(*(other.numbers for other in lines if other.optimizer == line.optimizer), strict=True)
    words = [
        f"{word} {number:g}"
        for word, number, column in zip(VARIED.values(), line.numbers, columns, strict=True)
        if len(set(column)) > 1
    ]
    return ", ".join([OPTIMIZERS[line.optimizer].title, *words])


def _cell_text(runs: list[Run], dataset: str) -> str:
    """`93.84 ± 0.10 (3), paper 93.91`; runs that did not get there are said, not averaged."""
    if not runs:
        return ""
    finished = [100 * accuracy for accuracy in final(runs, "test_accuracy")]
    parts = []
    if finished:
        error = f" ± {stdev(finished) / sqrt(len(finished)):.2f}" if len(finished) > 1 else ""
        parts.append(f"{mean(finished):.2f}{error} ({len(finished)})")
    for ending, count in Counter(run.ending for run in runs).items():
        parts += [f"{count} {ending}"] if ending != "finished" else []
    config = runs[0].config
    published = LAWN.get((set_name(dataset), config.optimizer), {}).get(config.protocol.batch_size)
    return ", ".join(parts + ([f"paper {published:.2f}"] if published else []))
