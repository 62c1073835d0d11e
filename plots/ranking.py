"""Which hyperparameter matters most: a sensitivity index of each, with its confidence interval, from high to low."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from adamlab.analysis.sensitivity import (
    Floats,
    basin_width,
    bootstrap,
    clip,
    coordinate,
    default_regret,
    expected_best,
    expected_excess_loss,
    main_effect_shares,
    noise_normalised_range,
)
from adamlab.claims.measures import guess
from adamlab.hyperparameters import MAGNITUDE, OPTIMIZERS
from adamlab.records import Run
from plots import style
from plots.panels import SYMBOLS, select
from plots.studies import heading

METRICS = {"train_loss": "training loss", "test_loss": "test loss"}


class Curve(NamedTuple):
    """A hyperparameter's losses after the last epoch: what the indices of `adamlab.analysis.sensitivity` take.

    Args:
      values: Of the hyperparameter, ascending.
      positions: In decades.
      losses: Clipped at a guess's, float64 (values, seeds).
      default: The row of the default value.
      runs: What they are from.
    """

    values: list[float]
    positions: list[float]
    losses: Floats
    default: int
    runs: list[Run]


def curves(runs: list[Run], model: str, optimizer: str, metric: str) -> dict[str, Curve]:
    """The curve of each hyperparameter that was varied over orders of magnitude.

    Args:
      runs: One study's runs.
      model: A network.
      optimizer: An optimizer.
      metric: `train_loss` or `test_loss`.

    Returns:
      By hyperparameter. Seeds that have not ended at every value are left out, curves without a seed or with a single
      value as well.
    """
    found = {}
    for parameter in MAGNITUDE:
        ended: dict[float, dict[int, Run]] = defaultdict(dict)
        for run in select(runs, model, parameter, "magnitude", optimizer):
            if run.outcome:
                ended[getattr(run.config.hyperparameters, parameter)][run.config.seed] = run
        # An epsilon of 0 has no place on an axis of decades.
        values = [value for value in sorted(ended) if parameter != "epsilon" or value > 0]
        seeds = sorted(set.intersection(*(set(ended[value]) for value in values))) if values else []
        default = getattr(OPTIMIZERS[optimizer].defaults, parameter)
        if len(values) < 2 or not seeds or default not in values:
            continue
        shown = [ended[value][seed] for value in values for seed in seeds]
        losses = [run.epochs[-1][metric] if run.ending == "finished" else math.inf for run in shown]
        table = clip(losses, guess(shown[0])).reshape(len(values), len(seeds))
        positions = [coordinate(parameter, value) for value in values]
        found[parameter] = Curve(values, positions, table, values.index(default), shown)
    return found


TRIALS = 3
# Title, and from a curve to the index of its losses.
INDICES: dict[str, Callable[[Curve], Callable[[Floats], float]]] = {
    "excess loss": lambda curve: lambda losses: expected_excess_loss(curve.positions, losses),
    "range / noise": lambda curve: noise_normalised_range,
    "basin, decades": lambda curve: lambda losses: basin_width(curve.positions, losses),
    "default's regret": lambda curve: lambda losses: default_regret(losses, curve.default),
    f"best of {TRIALS}": lambda curve: lambda losses: expected_best(losses, TRIALS),
}


def index_rows(found: dict[str, Curve]) -> list[list[str]]:
    """A row of text per hyperparameter, the one that matters most first: its name, the `INDICES`, its share."""
    shares = main_effect_shares({name: curve.losses for name, curve in found.items()})
    excess = INDICES["excess loss"]
    ordered = sorted(found.items(), key=lambda item: -excess(item[1])(item[1].losses))
    return [
        [name, *(_index_text(index(curve), curve.losses) for index in INDICES.values()), f"{shares[name]:.0%}"]
        for name, curve in ordered
    ]


def _index_text(index: Callable[[Floats], float], losses: Floats) -> str:
    """`0.412 [0.398, 0.431]`."""
    number, (low, high) = index(losses), bootstrap(index, losses)
    if math.isnan(number):
        return "-"
    return f"{number:.3g}" + ("" if math.isnan(low) else f" [{low:.3g}, {high:.3g}]")


def intervals(runs: Iterable[Run]) -> str:
    """What the intervals are, for a heading: a bootstrap of a few seeds does not see how far others would lie."""
    seeds = len({run.config.seed for run in runs})
    narrow = f", too narrow for {seeds}" if seeds < 10 else ""
    return f"95 % bootstrap intervals over seeds{narrow}" if seeds > 1 else ""


def compose_ranking(runs: list[Run]) -> Figure | None:
    """The expected excess loss of each hyperparameter, from high to low: a row per loss, a column per network.

    Args:
      runs: One study's runs.

    Returns:
      The figure; None unless two hyperparameters were varied.
    """
    models = sorted({run.config.model for run in runs})
    studied = [name for name in OPTIMIZERS if any(run.config.optimizer == name for run in runs)]
    found = {
        (metric, model, name): curves(runs, model, name, metric)
        for metric in METRICS
        for model in models
        for name in studied
    }
    models = [model for model in models if any(len(found["train_loss", model, name]) > 1 for name in studied)]
    studied = [name for name in studied if any(found["train_loss", model, name] for model in models)]
    if not models:
        return None
    shown = {run.folder: run for each in found.values() for curve in each.values() for run in curve.runs}
    notes = ["how much worse than its best a value drawn at random is, log-uniform over the values tried"]
    notes += ["losses above a guess's, and diverged runs, count as a guess"]
    notes += [f"bars: {said}"] if (said := intervals(shown.values())) else ["one seed: no intervals"]
    title = "What a random value costs, by hyperparameter: expected excess loss"
    figure = style.new_figure(heading(title, list(shown.values()), notes), len(METRICS))
    grid = figure.add_gridspec(len(METRICS), len(models))
    for row, (metric, label) in enumerate(METRICS.items()):
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
        (name, parameter): (
            expected_excess_loss(curve.positions, curve.losses),
            *bootstrap(lambda losses, curve=curve: expected_excess_loss(curve.positions, losses), curve.losses),
        )
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
        shift = 0.16 * ((len(optimizers) - 1) / 2 - place)
        errors = np.nan_to_num([x - low, high - x]).clip(min=0)
        look = style.OPTIMIZER_STYLES[name] | {"linestyle": ""}
        axes.errorbar(x, y + shift, xerr=errors, capsize=2.5, elinewidth=1, capthick=1, label=name, **look)
    axes.set_yticks(range(len(order)), [SYMBOLS[parameter] for parameter in order])
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_xlim(left=0)
    axes.margins(x=0.08)
