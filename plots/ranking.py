"""Which hyperparameter matters most: what a random value of each costs, with its confidence interval, high to low."""

import numpy as np
from matplotlib.figure import Figure

from adamlab.hyperparameters import OPTIMIZERS
from adamlab.records import Run
from plots import style
from plots.indices import LOSSES, Curve, curves, intervals, learned, left_out
from plots.panels import SYMBOLS, own_scales
from plots.studies import heading, optimizers_of


def compose_ranking(runs: list[Run]) -> Figure | None:
    """The expected excess loss of each hyperparameter, from high to low: a row per loss, a column per network.

    Args:
      runs: One study's runs.

    Returns:
      The figure; None unless two hyperparameters were varied.
    """
    models = sorted({run.config.model for run in runs})
    studied = optimizers_of(runs)
    found = {
        (metric, model, name): learned(curves(runs, model, name, metric))
        for metric in LOSSES
        for model in models
        for name in studied
    }
    models = [model for model in models if any(len(found["train_loss", model, name]) > 1 for name in studied)]
    studied = [name for name in studied if any(found["train_loss", model, name] for model in models)]
    if not models:
        return None
    drawn = [curve for each in found.values() for curve in each.values()]
    shown = {run.folder: run for curve in drawn for run in curve.runs}
    notes = ["how much worse than its best a value drawn at random is, log-uniform over the values tried"]
    notes += ["losses above a guess's, and diverged runs, count as a guess"]
    notes += [f"bars: {said}; chance alone puts a cost above 0"] if (said := intervals(drawn)) else []
    notes += ["points: of the mean curve"] if any(len(curve.seeds) > 1 for curve in drawn) else []
    notes += own_scales("train_loss", len(LOSSES), len(models))
    notes += ["without a bar: one seed, no interval"] if any(len(curve.seeds) == 1 for curve in drawn) else []
    notes += [line for model in models for name in studied for line in left_out(runs, model, name)]
    title = "What a random value costs, by hyperparameter: expected excess loss"
    figure = style.new_figure(heading(title, list(shown.values()), notes), len(LOSSES))
    grid = figure.add_gridspec(len(LOSSES), len(models))
    for row, (metric, label) in enumerate(LOSSES.items()):
        for column, model in enumerate(models):
            axes = figure.add_subplot(grid[row, column])
            axes.set_title(f"{model}, {label}")
            _draw(axes, {name: found[metric, model, name] for name in studied})
    figure.supxlabel("expected excess loss (nats)", size="medium")
    entries = [(OPTIMIZERS[name].title, style.OPTIMIZER_STYLES[name] | {"linestyle": ""}) for name in studied]
    style.place_legend(figure, figure.axes[0], entries, "optimizer")
    return figure


def _draw(axes, optimizers: dict[str, dict[str, Curve]]) -> None:
    """One line per hyperparameter, the most sensitive on top, and on it one point per optimizer."""
    numbers = {
        (name, parameter): (curve.excess, *curve.excess_interval)
        for name, found in optimizers.items()
        for parameter, curve in found.items()
    }
    highest = {parameter: max(n[0] for (_, p), n in numbers.items() if p == parameter) for _, parameter in numbers}
    order = sorted(highest, key=lambda parameter: highest[parameter])
    for place, name in enumerate(optimizers):
        points = [(order.index(parameter), *n) for (optimizer, parameter), n in numbers.items() if optimizer == name]
        if not points:
            continue
        y, x, low, high = np.array(points, np.float64).T
        y += 0.16 * ((len(optimizers) - 1) / 2 - place)
        look = style.OPTIMIZER_STYLES[name] | {"linestyle": ""}
        axes.plot(x, y, label=name, **look)
        # About its own middle: resampling may leave a cost near 0 outside of its interval.
        bars = {"fmt": "none", "ecolor": look["color"], "capsize": 2.5, "elinewidth": 1, "capthick": 1}
        axes.errorbar((low + high) / 2, y, xerr=(high - low) / 2, **bars)
    axes.set_yticks(range(len(order)), [SYMBOLS[parameter] for parameter in order])
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_xlim(left=0)
