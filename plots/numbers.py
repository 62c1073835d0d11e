"""The numbers behind the figures as tables of text: what was run, what came out beside what the papers print, where."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from statistics import mean, stdev
from typing import NamedTuple

from adamlab.claims import published
from adamlab.config import RunConfig
from adamlab.hyperparameters import MAGNITUDE, OPTIMIZERS
from adamlab.records import Run
from plots.cells import cell_of, final, rank
from plots.final import evaluated
from plots.indices import COLUMNS, LOSSES, curves, index_rows, intervals, learned, left_out
from plots.panels import group, select
from plots.studies import optimizers_of, span
from plots.style import format_value


class Table(NamedTuple):
    """A table of text.

    Args:
      caption: What it shows.
      header: The titles of its columns.
      rows: As many cells each; the first one names the row.
    """

    caption: str
    header: list[str]
    rows: list[list[str]]


def tables(runs: list[Run]) -> list[Table]:
    """All of one study: last epochs and sensitivity indices, or accuracies by batch size."""
    if runs[0].config.protocol.schedule == "phases":
        return [accuracies(runs)]
    models = sorted({run.config.model for run in runs})
    found = [(model, name) for model in models for name in optimizers_of(runs)]
    last = [last_epoch(runs, model, name, study) for model, name in found for study in ("magnitude", "perturbation")]
    return [table for table in last if table.rows] + [
        table for model, name in found for metric in LOSSES if (table := indices(runs, model, name, metric)).rows
    ]


def what_was_run(runs: list[Run]) -> Table:
    """A row per network and optimizer: how much was trained on what, and how it ended."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: rank(cell_of(run))):
        groups[run.config.model, OPTIMIZERS[run.config.optimizer].title].append(run)
    rows = []
    for (model, optimizer), found in groups.items():
        protocols, settings = [run.config.protocol for run in found], Counter(run.without_seed for run in found)
        endings = Counter(run.ending for run in found)
        rows.append(
            [
                f"{model}, {optimizer}",
                found[0].config.dataset,
                span(protocol.train_images for protocol in protocols),
                span(protocol.batch_size for protocol in protocols),
                span(protocol.epochs for protocol in protocols),
                str(len(settings)),
                span(settings.values()),
                ", ".join(f"{count} {ending}" for ending, count in endings.items()),
            ]
        )
    header = ["", "data set", "training images", "batch", "epochs", "settings", "seeds each", "runs"]
    return Table("What was run", header, rows)


def last_epoch(runs: list[Run], model: str, optimizer: str, study: str) -> Table:
    """A row per value of each hyperparameter: losses and accuracy of the last epoch, and the paper's accuracy."""
    rows = []
    for parameter in MAGNITUDE:
        default = getattr(OPTIMIZERS[optimizer].defaults, parameter)
        for value, seeds in group(select(runs, model, parameter, study, optimizer), parameter).items():
            is_papers = (parameter, optimizer, runs[0].config.dataset) == ("alpha", "adam", "cifar10")
            papers = published.SENSITIVITY.get((model, value)) if is_papers else None
            rows.append(
                [
                    f"{parameter} {format_value(value)}{', default' if value == default else ''}",
                    _spread(seeds, "train_loss", "{:.4f}"),
                    _spread(seeds, "test_loss", "{:.4f}"),
                    _spread(seeds, "test_accuracy", "{:.2f}", 100),
                    f"about {papers:g}" if papers and study == "magnitude" else "",
                    _seeds(seeds),
                ]
            )
    change = "one hyperparameter varies" if study == "magnitude" else "one hyperparameter is perturbed"
    caption = f"{model}, {OPTIMIZERS[optimizer].title}, when {change}: last epoch, mean ± standard deviation over seeds"
    header = ["", "training loss", "test loss", "test accuracy, %", "the paper's, %", "seeds"]
    return Table(caption, header, rows)


def indices(runs: list[Run], model: str, optimizer: str, metric: str) -> Table:
    """A row per hyperparameter: its sensitivity indices with intervals."""
    found = learned(curves(runs, model, optimizer, metric))
    what = f"{model}, {OPTIMIZERS[optimizer].title}, {LOSSES[metric]}"
    said = intervals(found.values())
    caption = f"{what}: sensitivity indices, of losses in nats"
    caption += f", with {said}; range / noise: 95 % jackknife intervals" if said else ""
    return Table("; ".join([caption, *left_out(runs, model, optimizer, [metric])]), COLUMNS, index_rows(found))


def accuracies(runs: list[Run]) -> Table:
    """A row per setting of each network, optimizer and batch size: accuracy, the paper's accuracy, losses."""
    names = ("alpha", "weight_decay", "free_epochs", "warmup_epochs")

    def place(run: Run) -> tuple:
        return rank(cell_of(run)), *(getattr(run.config.hyperparameters, name) for name in names)

    settings: dict[RunConfig, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=place):
        settings[run.without_seed].append(run)
    rows = []
    for config, seeds in settings.items():
        batch_size, h = config.protocol.batch_size, config.hyperparameters
        said = [name for name in names if name in (*OPTIMIZERS[config.optimizer].names, "warmup_epochs")]
        papers = published.LAWN.get((published.set_name(config.dataset), config.optimizer), {}).get(batch_size)
        rows.append(
            [
                f"{config.model}, {OPTIMIZERS[config.optimizer].title}, batch {batch_size:,}",
                ", ".join(f"{name} {format_value(getattr(h, name))}" for name in said),
                _spread(seeds, "test_accuracy", "{:.2f}", 100),
                f"{papers:.2f}" if papers else "",
                _spread(seeds, "test_loss", "{:.3f}"),
                _spread(seeds, "train_loss", "{:.3f}"),
                _seeds(seeds),
            ]
        )
    caption = "Last epoch, mean ± standard deviation over seeds; the paper's are for VGG-19 (ImageNet: ResNet-50)"
    kind = evaluated(runs).lower()
    header = ["", "hyperparameters", f"{kind} accuracy, %", "the paper's, %", f"{kind} loss", "training loss", "seeds"]
    return Table(caption, header, rows)


def provenance(runs: list[Run]) -> Table:
    """A row per commit, device and set of versions that runs are from. A continued run counts in the rows of all."""
    sources: Counter[tuple[str, str, str, str]] = Counter()
    for run in runs:
        sources.update({_source(origin) for origin in (run.provenance, *run.continued)})
    rows = [
        [commit, str(count), device, system, versions] for (commit, device, system, versions), count in sources.items()
    ]
    return Table("Where the runs are from", ["commit", "runs", "device", "system", "versions"], rows)


def _source(origin: dict) -> tuple[str, str, str, str]:
    versions = ", ".join(f"{name} {version}" for name, version in origin.get("versions", {}).items())
    return _text(origin, "commit"), _text(origin, "device"), _text(origin, "system"), versions


def _text(source: dict, name: str) -> str:
    return str(source.get(name) or "unknown")


def _spread(runs: Sequence[Run], metric: str, text: str, factor: float = 1) -> str:
    """`0.1234 ± 0.0056`, of the runs that finished."""
    numbers = [factor * number for number in final(runs, metric)]
    if not numbers:
        return "-"
    show: Callable[[float], str] = text.format
    return show(mean(numbers)) + (f" ± {show(stdev(numbers))}" if len(numbers) > 1 else "")


def _seeds(runs: Sequence[Run]) -> str:
    """`3`, or `2, 1 diverged`: how many the numbers are of, and those which they are not."""
    endings = Counter(run.ending for run in runs)
    finished = endings.pop("finished", 0)
    return ", ".join([str(finished), *(f"{count} {ending}" for ending, count in endings.items())])
