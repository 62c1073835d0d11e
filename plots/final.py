"""Accuracy and loss after the last epoch: against the batch size, and against the length of the free phase.

Source: Gupta et al., "Adam vs. SGD: Closing the generalization gap on image classification", figure 1, section 3.1.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from adamlab.hyperparameters import OPTIMIZERS
from adamlab.records import Run
from plots import style
from plots.cells import Cell, final, select_free_epochs
from plots.studies import heading, optimizers_of

BEST = "best of several settings on these images"
DODGE = 6.0  # points between two lines at the same x: their error bars stand side by side


def compose_batch_size(cells: Mapping[Cell, Sequence[Run]], several: bool) -> Figure | None:
    """Figure 1: accuracy against batch size, a panel per network, a line per optimizer.

    Args:
      cells: From `plots.cells.select`.
      several: Whether their settings were chosen among several.

    Returns:
      The figure; None for a single batch size.
    """
    if len({cell.batch_size for cell in cells}) < 2:
        return None
    shown = [run for runs in cells.values() for run in runs]
    title = f"{evaluated(shown)} accuracy after the last epoch, by batch size"
    notes = [f"each point: {BEST}"] if several else []
    figure = style.new_figure(heading(title, shown, notes + reading(shown)), rows=1, panel_height=3.0)
    models = list(dict.fromkeys(cell.model for cell in cells))
    grid = figure.add_gridspec(1, len(models))
    row = style.new_row(figure, [grid[0, column] for column in range(len(models))], "test_accuracy")
    optimizers = optimizers_of(shown)
    for axes, model in zip(row, models, strict=True):
        for place, name in enumerate(optimizers):
            line = {float(cell.batch_size): runs for cell, runs in cells.items() if cell[:2] == (model, name)}
            shift = DODGE * (place - (len(optimizers) - 1) / 2)
            draw_final(axes, line, "test_accuracy", style.OPTIMIZER_STYLES[name], OPTIMIZERS[name].title, shift)
        axes.set_title(model)
        axes.set_xlabel("batch size (images)")
    finish(row[0], "test_accuracy", {cell.batch_size for cell in cells}, shown)
    entries = []
    for name in optimizers:
        ended = diverged(run for run in shown if run.config.optimizer == name)
        entries.append((OPTIMIZERS[name].title + ended, style.OPTIMIZER_STYLES[name]))
    style.place_legend(figure, row[0], entries, "optimizer", 2.8)
    return figure


def compose_free_epochs(runs: Sequence[Run]) -> Figure | None:
    """Accuracy and loss against the length of the free phase: a row per network, a line per optimizer and batch size.

    Args:
      runs: One study's runs.

    Returns:
      The figure; None if no optimizer was trained with two lengths.
    """
    cells, several = select_free_epochs(runs)
    if not cells:
        return None
    shown = [run for line in cells.values() for seeds in line.values() for run in seeds]
    title = f"{evaluated(shown)} accuracy and loss after the last epoch, by the length of the free phase"
    notes = [f"each line: {BEST}"] if several else []
    models = list(dict.fromkeys(cell.model for cell in cells))
    figure = style.new_figure(heading(title, shown, notes + reading(shown)), len(models))
    grid = figure.add_gridspec(len(models), 2)
    for number, model in enumerate(models):
        of_model = [cell for cell in cells if cell.model == model]
        lines = {cell.title: cells[cell] for cell in of_model}
        looks = shades(of_model)
        row = []
        for column, metric in enumerate(("test_accuracy", "test_loss")):
            row += style.new_row(figure, [grid[number, column]], metric)
            for place, (label, line) in enumerate(lines.items()):
                shift = DODGE * (place - (len(lines) - 1) / 2)
                draw_final(row[-1], line, metric, looks[label], label, shift)
            finish(row[-1], metric, {value for line in lines.values() for value in line}, shown)
            row[-1].set_title(model)
            row[-1].set_xlabel("free phase $E_{free}$ (epochs)")
        ended = {label: diverged(run for seeds in line.values() for run in seeds) for label, line in lines.items()}
        entries = [(label + ended[label], looks[label]) for label in looks]
        style.place_legend(figure, row[0], entries, "optimizer, batch size", 2.8)
    return figure


def draw_final(
    axes: Axes, line: Mapping[float, Sequence[Run]], metric: str, look: dict[str, Any], label: str, shift: float
) -> None:
    """The mean of the seeds that finished, on a bar from the smallest to the largest; an x below where one diverged.

    Of three seeds a standard error is less than a quarter of a 95 % interval, so it would say more than is known.

    Args:
      axes: Where to draw.
      line: For each x its runs, one per seed.
      metric: A key of `style.METRICS`.
      look: Line properties.
      label: The line's name.
      shift: How far to the right of its x the line is drawn, in points.
    """
    numbers = {x: style.METRICS[metric].factor * np.array(final(runs, metric)) for x, runs in line.items()}
    points = [(x, seeds.mean(), seeds.min(), seeds.max()) for x, seeds in numbers.items() if len(seeds)]
    xs, means, lows, highs = np.array(points, np.float64).reshape(-1, 4).T
    aside = ScaledTranslation(shift / 72, 0, axes.figure.dpi_scale_trans)
    bars = {"capsize": 2.5, "elinewidth": 1, "capthick": 1}
    errors = np.where(highs > lows, [means - lows, highs - means], np.nan)  # one seed has no bar
    axes.errorbar(xs, means, errors, label=label, transform=axes.transData + aside, **bars, **look)
    # The transform hides what is drawn from automatic limits.
    for ends in (lows, highs):
        axes.update_datalim(np.stack([xs, ends], axis=1))
    for x, runs in line.items():
        if any(run.ending == "diverged" for run in runs):
            below = sum(mark.get_marker() == "x" and np.ravel(mark.get_xdata())[0] == x for mark in axes.lines)
            level = 0.04 + 0.07 * below  # of the lines which diverged there, one above the other
            axes.plot(x, level, transform=axes.get_xaxis_transform(), **style.diverged_mark(look))


def finish(axes: Axes, metric: str, values: Iterable[float], runs: Sequence[Run]) -> None:
    """Labels, and ticks on x at `values`, spaced by their ratios; 0 stands to the left of the others."""
    ticks = sorted(values)
    if ticks[0] > 0:
        axes.set_xscale("log")
    else:
        axes.set_xscale("symlog", linthresh=ticks[1] if len(ticks) > 1 else 1, linscale=0.3)
    axes.margins(0.09, 0.1)
    axes.autoscale_view()
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.12g}"))
    style.finish_numbers(axes)
    axes.set_ylabel(style.METRICS[metric].axis.replace("test", evaluated(runs).lower()))


def shades(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Line properties by a cell's title: the optimizer's; the larger the batch, the lighter, with a larger marker."""
    sizes = sorted({cell.batch_size for cell in cells})
    looks = {}
    for cell in cells:
        look = style.OPTIMIZER_STYLES[cell.optimizer]
        step = sizes.index(cell.batch_size) / max(1, len(sizes) - 1)
        color = tuple(1 - (1 - channel) * (1 - 0.6 * step) for channel in to_rgb(look["color"]))
        looks[cell.title] = look | {"color": color, "markersize": 4 + 3 * step, "zorder": 3 - step / 2}
    return looks


def evaluated(runs: Sequence[Run]) -> str:
    """`Test`, or `Validation` for a study of training images that were held out."""
    return runs[0].config.protocol.evaluate_on.capitalize()


def diverged(runs: Iterable[Run]) -> str:
    """How many of an entry's runs diverged, for the legend; empty if none did."""
    outcomes = [run.ending for run in runs]
    count = outcomes.count("diverged")
    return f"\n({count} of {len(outcomes)} diverged)" if count else ""


def reading(runs: Sequence[Run]) -> list[str]:
    """How to read the points, for the heading."""
    notes = ["mean of seeds, bars: smallest to largest"] if len({run.config.seed for run in runs}) > 1 else []
    return notes + endings(runs, diverged=r"$\times$: diverged, not in the mean", unfinished="unfinished, left out")


def endings(runs: Sequence[Run], **notes: str) -> list[str]:
    """For each ending that some runs have its note, with how many they are."""
    outcomes = Counter(run.ending for run in runs)
    return [f"{note} ({outcomes[ending]} of {len(runs)} runs)" for ending, note in notes.items() if outcomes[ending]]
