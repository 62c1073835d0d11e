"""Loss flattening over the epochs: losses, norms and curvature, one column per batch size.

LAWN is meant to keep the loss from flattening: gradients and curvature stay away from zero, weights go on turning.

Source: Gupta et al., "Adam vs. SGD: Closing the generalization gap on image classification", section 2.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adamlab.config import PROBE
from adamlab.hyperparameters import OPTIMIZERS
from adamlab.records import Run
from plots import style
from plots.cells import Cell
from plots.curves import over_seeds
from plots.final import BEST, endings
from plots.studies import heading, optimizers_of

# From cause to effect: keys of `style.METRICS`. The first is recorded at every epoch, the others at traced ones.
ROWS = ("train_loss", "gradient_norm", "logit_norm", "weight_norm", "angular_step", "hessian_eigenvalue")
PANEL_HEIGHT = 1.5  # inches; six rows on one page
# Where an axis begins that has one. A decayed schedule ends with a step of length 0, of which float32 makes an angle.
LOWEST = {metric: 0.0 for metric in ROWS if style.METRICS[metric].scale == "log"} | {"angular_step": 1e-7}


def traced(run: Run) -> bool:
    """Whether loss flattening was measured after several epochs: a single one shows no course."""
    return sum("gradient_norm" in record for record in run.epochs) > 1


def drawable(run: Run, metric: str) -> tuple[dict[int, float], int]:
    """The numbers of one run that its axis has, by epoch, and how many it has not.

    A logarithm has no place for a negative curvature, and no axis for a number that is not finite, None in records.
    """
    recorded = {record["epoch"]: record[metric] for record in run.epochs if metric in record}
    lowest = LOWEST.get(metric, -math.inf)
    drawn = {epoch: number for epoch, number in recorded.items() if number is not None and number > lowest}
    return drawn, len(recorded) - len(drawn)


def left_out(runs: Sequence[Run]) -> list[str]:
    """How many numbers of each row are not drawn, for the heading; empty if all are."""
    missing = {metric: sum(drawable(run, metric)[1] for run in runs) for metric in ROWS}
    return [
        f"left out of {' '.join(style.METRICS[metric].label.split())}: {count} {'value' if count == 1 else 'values'} "
        f"{f'not above {style.format_value(LOWEST[metric])} or ' if metric in LOWEST else ''}not finite"
        for metric, count in missing.items()
        if count
    ]


def compose(cells: Mapping[Cell, Sequence[Run]], several: bool) -> dict[str, Figure]:
    """The figure of each network, by the name of its file, which has the network's name if there is more than one.

    Args:
      cells: From `plots.cells.select`, of traced runs.
      several: Whether their settings were chosen among several.

    Returns:
      The figures; none without cells.
    """
    models = list(dict.fromkeys(cell.model for cell in cells))
    return {
        "figure-flattening" + (f"-{model}" if len(models) > 1 else ""): compose_one(
            {cell: runs for cell, runs in cells.items() if cell.model == model}, several
        )
        for model in models
    }


def compose_one(cells: Mapping[Cell, Sequence[Run]], several: bool) -> Figure:
    """The figure of one network: a row per quantity, a column per batch size, a line per optimizer."""
    shown = [run for runs in cells.values() for run in runs]
    batch_sizes = sorted({cell.batch_size for cell in cells})
    columns = [{c.optimizer: cells[c] for c in cells if c.batch_size == batch_size} for batch_size in batch_sizes]
    lines = heading(f"Loss flattening: {shown[0].config.model}", shown, reading(shown, several))
    figure = style.new_figure(lines, len(ROWS), PANEL_HEIGHT)
    grid = figure.add_gridspec(len(ROWS), len(columns))
    first = min([1, *(end for column in columns for end in phases(column))])
    for number, metric in enumerate(ROWS):
        row = style.new_row(figure, [grid[number, place] for place in range(len(columns))], metric)
        for axes, column in zip(row, columns, strict=True):
            for optimizer, runs in column.items():
                draw_line(axes, runs, metric, optimizer)
            draw_phases(axes, column)
            axes.tick_params(labelbottom=metric == ROWS[-1])
            axes.set_xlabel("epoch" if metric == ROWS[-1] else "")
        style.finish_epochs(row[0], first, shown)
        row[0].locator_params("x", nbins=max(2, min(9, 15 // len(columns))), steps=(1, 2, 5, 10))
        style.finish_numbers(row[0])
    for axes, batch_size in zip(figure.axes, batch_sizes, strict=False):  # the first row's
        axes.set_title(f"batch size {batch_size:,}")
    optimizers = optimizers_of(shown)
    entries = [(OPTIMIZERS[name].title, style.OPTIMIZER_STYLES[name]) for name in optimizers]
    style.place_legend(figure, figure.axes[0], entries, "optimizer", 2.8)
    figure.align_ylabels()
    return figure


def reading(runs: Sequence[Run], several: bool) -> list[str]:
    """How to read the lines, for the heading: what they are, where phases end, what is left out."""
    probed = min(PROBE, *(run.config.protocol.train_images for run in runs))
    notes = [f"all but the training loss measured on the first {probed} training images"]
    notes += [f"each line: {BEST}"] if several else []
    notes += ["line: mean of seeds, band: smallest to largest"] if len({run.config.seed for run in runs}) > 1 else []
    lawn = any(OPTIMIZERS[run.config.optimizer].has_free_phase for run in runs)
    notes += ["vertical line: end of the free phase"] if lawn else []
    notes += endings(runs, diverged=r"$\times$: diverged later", unfinished="unfinished")
    return notes + left_out(runs)


def draw_line(axes: Axes, runs: Sequence[Run], metric: str, optimizer: str) -> None:
    """The mean of the seeds in a band from their smallest to their largest number; a diverged one ends in an x."""
    look = style.OPTIMIZER_STYLES[optimizer]
    epochs, mean, low, high = over_seeds(pair for run in runs for pair in drawable(run, metric)[0].items())
    # About ten markers, however long the training: they tell the lines apart, and lines shall be seen.
    spaced = {"markersize": 3.5, "markevery": max(1, len(epochs) // 10)}
    axes.plot(epochs, mean, label=OPTIMIZERS[optimizer].title, **look | spaced)
    if len(runs) > 1:
        axes.fill_between(epochs, low, high, color=look["color"], alpha=0.16, linewidth=0, zorder=1.5)
    for run in runs:
        numbers, _ = drawable(run, metric)
        if run.ending == "diverged" and numbers:
            axes.plot(max(numbers), numbers[max(numbers)], **style.diverged_mark(look))


def phases(column: Mapping[str, Sequence[Run]]) -> "Counter[float]":
    """Where free phases end, in epochs, and how many optimizers have theirs end there."""
    lawn = [runs[0].config for name, runs in column.items() if OPTIMIZERS[name].has_free_phase]
    return Counter(config.hyperparameters.free_epochs for config in lawn)


def draw_phases(axes: Axes, column: Mapping[str, Sequence[Run]]) -> None:
    """A thin vertical line at the end of each free phase: in the optimizer's colour, grey if several share it."""
    ends = phases(column)
    for name, runs in column.items():
        end = runs[0].config.hyperparameters.free_epochs
        if OPTIMIZERS[name].has_free_phase and (alone := ends.pop(end, 0)):
            color = style.OPTIMIZER_STYLES[name]["color"] if alone == 1 else "#606060"
            axes.axvline(end, color=color, linewidth=0.8, zorder=1.2)
