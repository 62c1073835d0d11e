"""Curves over the epochs: each value's mean over its seeds, in the band of the seeds."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

from adamlab.records import Run
from plots.style import METRICS, diverged_mark, finish_epochs, finish_numbers, format_value

ARROW = 5.0  # points from one to the next


def seed_statistics(runs: Sequence[Run], metric: str) -> np.ndarray:
    """Epoch, mean, smallest and largest number over the seeds that reached it, float64 (4, epochs)."""
    factor = METRICS[metric].factor
    return over_seeds((record["epoch"], factor * record[metric]) for run in runs for record in run.epochs)


def over_seeds(numbers: Iterable[tuple[int, float]]) -> np.ndarray:
    """Epoch, mean, smallest and largest of all seeds' numbers, each with its epoch; float64 (4, epochs)."""
    by_epoch = defaultdict(list)
    for epoch, number in numbers:
        by_epoch[epoch].append(number)
    table = [(epoch, np.mean(seeds), min(seeds), max(seeds)) for epoch, seeds in sorted(by_epoch.items())]
    return np.array(table, np.float64).reshape(-1, 4).T


def exceeds_axis(runs: Sequence[Run], metric: str) -> bool:
    """Whether a number lies above the axis' upper end."""
    drawn = METRICS[metric]
    return any(drawn.factor * record[metric] > drawn.ceiling for run in runs for record in run.epochs)


def draw(axes: Axes, runs: Mapping[float, Sequence[Run]], metric: str, styles: Mapping[float, dict[str, Any]]) -> None:
    """One curve per value: the mean of its seeds, in a band from their smallest to their largest number.

    With the three to five seeds that a study has, the range says more than a standard deviation, and it stays positive
    on a logarithmic axis. Arrows at the upper edge, side by side, stand for means above it. A diverged run ends in an
    x; if it has no epoch, the x stands before epoch 1.

    Args:
      axes: Where to draw.
      runs: For each value its runs, one per seed.
      metric: A key of `METRICS`.
      styles: From `curve_styles`.
    """
    ceiling = METRICS[metric].ceiling
    levels = count(0.95, -0.11)  # of runs without an epoch, one below the other
    beyond = [value for value, seeds in runs.items() if (seed_statistics(seeds, metric)[1] > ceiling).any()]
    for value, seeds in runs.items():
        epochs, mean, low, high = seed_statistics(seeds, metric)
        axes.plot(epochs, mean, label=format_value(value), **styles[value])
        if len(seeds) > 1:
            axes.fill_between(epochs, low, high, color=styles[value]["color"], alpha=0.13, linewidth=0, zorder=2)
        mark = diverged_mark(styles[value])
        if value in beyond:
            place = beyond.index(value) - (len(beyond) - 1) / 2
            aside = ScaledTranslation(place * ARROW / 72, 0, axes.figure.dpi_scale_trans)
            above = mark | {"marker": r"$\uparrow$", "markersize": 8, "markeredgewidth": 0.3}
            axes.plot(
                epochs[mean > ceiling], [ceiling] * sum(mean > ceiling), transform=axes.transData + aside, **above
            )
        diverged = [run for run in seeds if run.ending == "diverged"]
        ends = [seed_statistics([run], metric)[:2, -1] for run in diverged if run.epochs]
        for epoch, number in ends:
            axes.plot(epoch, min(number, ceiling), **mark)
        if len(ends) < len(diverged):
            axes.plot(0.5, next(levels), transform=axes.get_xaxis_transform(), **mark)


def finish_row(row: Mapping[Axes, Sequence[Run]], metric: str) -> None:
    """Limits and ticks of a row, whose axes share x, once the curves of their runs are drawn: whole epochs on x, plain
    numbers on y."""
    together = [run for runs in row.values() for run in runs]
    finish_epochs(next(iter(row)), 1 if all(run.epochs for run in together) else 0.5, together)
    for axes, runs in row.items():
        if exceeds_axis(runs, metric):
            shown = [number for number in seed_statistics(runs, metric)[2] if 0 < number < METRICS[metric].ceiling]
            axes.set_ylim(0.9 * min(shown, default=1), METRICS[metric].ceiling)
        finish_numbers(axes)
