"""The sensitivity indices of each hyperparameter, from records to text: the numbers beside the figures."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np

from adamlab.analysis.intervals import bootstrap, jackknife
from adamlab.analysis.sensitivity import (
    Floats,
    basin,
    basin_width,
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
from plots.panels import select

LOSSES = {"train_loss": "training loss", "test_loss": "test loss"}


class Curve(NamedTuple):
    """A hyperparameter's losses of the last epoch: what the indices of `adamlab.analysis.sensitivity` take.

    Args:
      values: Of the hyperparameter, ascending.
      positions: In decades.
      seeds: Ascending.
      losses: Clipped at a guess's, float64 (values, seeds).
      default: The row of the default value.
      runs: What they are from, value by value.
    """

    values: list[float]
    positions: list[float]
    seeds: list[int]
    losses: Floats
    default: int
    runs: list[Run]

    @property
    def excess(self) -> float:
        """The expected excess loss."""
        return expected_excess_loss(self.positions, self.losses)

    @property
    def excess_interval(self) -> tuple[float, float]:
        """The ends of its interval; NaN for a single seed."""
        return bootstrap(partial(expected_excess_loss, self.positions), self.losses)


def curves(runs: list[Run], model: str, optimizer: str, metric: str) -> dict[str, Curve]:
    """The curve of each hyperparameter that was varied over orders of magnitude.

    Args:
      runs: One study's runs.
      model: A network.
      optimizer: An optimizer.
      metric: `train_loss` or `test_loss`.

    Returns:
      By hyperparameter. Seeds that have not ended at every value are left out; so is what `left_out` says, and a
      hyperparameter with a single value.
    """
    found = {}
    for parameter in MAGNITUDE:
        ended = _ended(runs, model, optimizer, parameter)
        values, seeds, default = list(ended), _common(ended), getattr(OPTIMIZERS[optimizer].defaults, parameter)
        if len(values) < 2 or not seeds or default not in values:
            continue
        shown = [ended[value][seed] for value in values for seed in seeds]
        losses = [run.epochs[-1][metric] if run.ending == "finished" else math.inf for run in shown]
        table = clip(losses, guess(shown[0])).reshape(len(values), len(seeds))
        positions = [coordinate(parameter, value) for value in values]
        found[parameter] = Curve(values, positions, seeds, table, values.index(default), shown)
    return found


def learned(found: dict[str, Curve]) -> dict[str, Curve]:
    """The curves of which a value is better than a guess: by the others, all clipped, nothing would seem to matter."""
    return {name: curve for name, curve in found.items() if curve.losses.min() < guess(curve.runs[0])}


def left_out(runs: list[Run], model: str, optimizer: str, metrics: Iterable[str] = tuple(LOSSES)) -> list[str]:
    """What has no index although it was varied, and why: an index of some of its values would be of something else."""
    told = []
    for parameter in MAGNITUDE:
        ended, default = _ended(runs, model, optimizer, parameter), getattr(OPTIMIZERS[optimizer].defaults, parameter)
        if len(ended) > 1 and default not in ended:
            told.append(f"{parameter}, whose default {default:g} was not trained")
        elif len(ended) > 1 and not (common := _common(ended)):
            told.append(f"{parameter}, since no seed has ended at all its {len(ended)} values")
        elif len(ended) > 1 and (fewer := sorted(set().union(*ended.values()) - set(common))):
            seeds = f"seed{'s' * (len(fewer) > 1)} {', '.join(map(str, fewer))}"
            told.append(f"{parameter}'s {seeds}, not ended at all its {len(ended)} values")
    for metric in metrics:
        found = curves(runs, model, optimizer, metric)
        kept = learned(found)
        guesses = [name for name in found if name not in kept]
        told += [f"the {LOSSES[metric]} by {name}, of which no value is better than a guess" for name in guesses]
    return [f"{model}, {OPTIMIZERS[optimizer].title}: without {' and '.join(told)}"] if told else []


def _ended(runs: list[Run], model: str, optimizer: str, parameter: str) -> dict[float, dict[int, Run]]:
    """The runs that have ended, by value and seed, of all values at which one was begun, ascending."""
    ended: dict[float, dict[int, Run]] = defaultdict(dict)
    for run in select(runs, model, parameter, "magnitude", optimizer):
        of_value = ended[getattr(run.config.hyperparameters, parameter)]
        if run.outcome:
            of_value[run.config.seed] = run
    # An epsilon of 0 has no place on an axis of decades.
    return {value: ended[value] for value in sorted(ended) if parameter != "epsilon" or value > 0}


def _common(ended: dict[float, dict[int, Run]]) -> list[int]:
    """The seeds that have ended at every value."""
    return sorted(set.intersection(*map(set, ended.values()))) if ended else []


class Index(NamedTuple):
    """A column of the table of indices.

    Args:
      of: From a curve and losses in place of its own, for resampling, to the index.
      interval: From such a function of losses, and a curve's, to the ends of its confidence interval.
      at_least: Whether the grid is too small to say more than this.
    """

    of: Callable[[Curve, Floats], float]
    interval: Callable[[Callable[[Floats], float], Floats], tuple[float, float]] = bootstrap
    at_least: Callable[[Curve], bool] = lambda curve: False


def _reaches_an_end(curve: Curve) -> bool:
    low, high = basin(curve.positions, curve.losses)
    return low == curve.positions[0] or high == curve.positions[-1]


TRIALS = 3
INDICES = {
    "excess loss": Index(lambda curve, losses: expected_excess_loss(curve.positions, losses)),
    "range / noise": Index(lambda curve, losses: noise_normalised_range(losses), interval=jackknife),
    "basin, decades": Index(lambda curve, losses: basin_width(curve.positions, losses), at_least=_reaches_an_end),
    "default's regret": Index(lambda curve, losses: default_regret(losses, curve.default)),
    f"best of {TRIALS}": Index(lambda curve, losses: expected_best(losses, TRIALS)),
}
COLUMNS = ["", "values", "seeds", *INDICES, "share"]


def index_rows(found: dict[str, Curve]) -> list[list[str]]:
    """A row of text per hyperparameter, the one that matters most first, under `COLUMNS`."""
    shares = _shares(found)
    return [
        [
            name,
            f"{curve.values[0]:g} to {curve.values[-1]:g} ({len(curve.values)})",
            str(len(curve.seeds)),
            *(_index_text(index, curve) for index in INDICES.values()),
            shares[name],
        ]
        for name, curve in sorted(found.items(), key=lambda item: -item[1].excess)
    ]


def _shares(found: dict[str, Curve]) -> dict[str, str]:
    """Of the effects of all, on the seeds that all have; one by itself has no share."""
    common = set.intersection(*(set(curve.seeds) for curve in found.values())) if len(found) > 1 else set()
    if not common:
        return dict.fromkeys(found, "-")
    # One above the other, so that a seed is drawn with its losses of all hyperparameters.
    losses = np.concatenate([curve.losses[:, np.isin(curve.seeds, list(common))] for curve in found.values()])
    ends = np.cumsum([len(curve.values) for curve in found.values()])[:-1]

    def share(name: str, losses: Floats) -> float:
        return main_effect_shares(dict(zip(found, np.split(losses, ends), strict=True)))[name]

    texts = {}
    for name in found:
        low, high = bootstrap(partial(share, name), losses)
        texts[name] = f"{share(name, losses):.0%}" + ("" if math.isnan(low) else f" [{low:.0%}, {high:.0%}]")
    return texts


def _index_text(index: Index, curve: Curve) -> str:
    """`0.412 [0.398, 0.431]`."""
    measure = partial(index.of, curve)
    number, (low, high) = measure(curve.losses), index.interval(measure, curve.losses)
    if math.isnan(number):
        return "-"
    bound = "≥ " if index.at_least(curve) else ""
    return f"{bound}{number:.3g}" + ("" if math.isnan(low) else f" [{low:.3g}, {high:.3g}]")


def intervals(found: Iterable[Curve]) -> str:
    """What the intervals are, for a heading: a bootstrap of a few seeds does not see how far others would lie."""
    counts = [len(curve.seeds) for curve in found if len(curve.seeds) > 1]
    narrow = f", too narrow and too high for {min(counts)}" if counts and min(counts) < 10 else ""
    return f"95 % bootstrap intervals over seeds{narrow}" if counts else ""
