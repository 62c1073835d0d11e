"""Sensitivity indices: how much does training care about a hyperparameter?

A study gives a curve: losses at several values of one hyperparameter, each with several seeds, as an array of float64
(values, seeds). Every index takes one. Positions of the values are in decades: `coordinate`.

Divergence has one rule, `clip`, applied before everything else: a loss above that of a guess counts as that of a guess,
and so does a run that diverged. No index depends on how badly a useless run ended.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def coordinate(parameter: str, value: float) -> float:
    r"""Where a hyperparameter's value stands, in decades.

    Learning rates and epsilons by their size, decay rates by the length of their average, epochs by their number and 1:

    .. math:: \log_{10} \alpha, \quad -\log_{10} (1 - \beta), \quad \log_{10} (1 + E)

    Args:
      parameter: Its name in `Hyperparameters`.
      value: Its value.

    Returns:
      The position, in decades.

    Raises:
      ValueError: The value has no place on that axis: an alpha or epsilon of 0, a decay rate of 1.

    >>> round(coordinate("beta2", 0.999), 6), coordinate("alpha", 0.01), coordinate("free_epochs", 9.0)
    (3.0, -2.0, 1.0)
    """
    if parameter in ("beta1", "beta2"):
        return -math.log10(1 - value)
    return math.log10(1 + value if parameter.endswith("_epochs") else value)


def clip(losses: ArrayLike, guess: float) -> Floats:
    """The losses with those above a guess's, infinite or NaN replaced by it.

    >>> clip([[1.0, 50.0], [float("nan"), 2.0]], guess=2.3).tolist()
    [[1.0, 2.3], [2.3, 2.0]]
    """
    array = np.asarray(losses, np.float64)
    return np.where(array < guess, array, guess)


def expected_excess_loss(positions: ArrayLike, losses: ArrayLike) -> float:
    r"""How much worse than the best a value drawn at random is, in the losses' unit.

    .. math:: S = \mathbb{E}_{x \sim U[a, b]} \left[ \bar\ell(x) - \min_{x'} \bar\ell(x') \right]

    with the mean of the seeds between neighbours interpolated linearly. Chance alone makes it positive: of a flat curve
    of five values and three seeds, 0.67 standard deviations of a seed.

    Args:
      positions: From `coordinate`, ascending, (values,): uniform in them is log-uniform in the values.
      losses: Clipped, (values, seeds); the source clips at the loss at initialisation, which is a guess's.

    Returns:
      S >= 0; 0 for a curve that is exactly flat.

    Raises:
      ValueError: Positions are not ascending, not one per value, or fewer than two.

    Source:
      Wortsman et al., "Small-scale proxies for large-scale Transformer training instabilities", arXiv:2309.14322,
      section 2.2, there of the learning rate.

    >>> expected_excess_loss([0, 1, 2], [[1.0], [0.0], [1.0]])  # a V: half of its height
    0.5
    """
    x, means = _curve(positions, losses)
    return float(np.trapezoid(means - means.min(), x) / (x[-1] - x[0]))


def noise_normalised_range(losses: ArrayLike) -> float:
    r"""The range of the curve in standard deviations of a seed.

    .. math:: R = \frac{\max_i \bar\ell_i - \min_i \bar\ell_i}{s}, \qquad
        s^2 = \frac{1}{v (n - 1)} \sum_{ij} (\ell_{ij} - \bar\ell_i)^2

    Args:
      losses: Clipped, (values, seeds).

    Returns:
      R >= 0; chance alone makes about 2.3 / sqrt(n) of five values. NaN for a single seed, infinite if seeds do not
      differ and values do.

    >>> round(noise_normalised_range([[0.0, 2.0], [10.0, 12.0]]), 6)  # s^2 = 2
    7.071068
    """
    array = np.asarray(losses, np.float64)
    if array.shape[1] < 2:
        return math.nan
    spread = float(np.sqrt(array.var(axis=1, ddof=1).mean()))
    height = float(np.ptp(array.mean(axis=1)))
    # Equal losses, but for the rounding of their mean, have none.
    return height / spread if spread > 1e-12 * np.abs(array).max() else (math.inf if height > 0 else 0.0)


def basin(positions: ArrayLike, losses: ArrayLike, tolerance: float = 0.1) -> tuple[float, float]:
    r"""From where to where, around the best value, all are nearly as good.

    The interval around the minimum in which the curve, interpolated linearly, stays at or below (1 + tolerance) times
    the minimum. It ends where the grid does; how far it goes beyond that is not known.

    Args:
      positions: From `coordinate`, ascending, (values,).
      losses: Clipped, (values, seeds), > 0.
      tolerance: How much worse is as good, relative.

    Returns:
      The positions of its ends.

    Raises:
      ValueError: Positions are not ascending, not one per value, or fewer than two.

    >>> basin([0, 1, 2], [[2.0], [1.0], [2.0]], tolerance=0.25)  # a quarter of each side
    (0.75, 1.25)
    """
    x, means = _curve(positions, losses)
    best, level = int(means.argmin()), (1 + tolerance) * means.min()

    def reach(step: int) -> float:
        """The last position in one direction at which the curve has not yet crossed the level."""
        at = best
        while 0 <= at + step < len(x):
            if means[at + step] > level:
                share = (level - means[at]) / (means[at + step] - means[at])
                return float(x[at] + share * (x[at + step] - x[at]))
            at += step
        return float(x[at])

    return reach(-1), reach(1)


def basin_width(positions: ArrayLike, losses: ArrayLike, tolerance: float = 0.1) -> float:
    """How many decades around the best value are nearly as good: the length of the `basin`, whose arguments and errors
    it has.

    >>> basin_width([0, 1, 2], [[2.0], [1.0], [2.0]], tolerance=0.25)
    0.5
    """
    low, high = basin(positions, losses, tolerance)
    return high - low


def default_regret(losses: ArrayLike, default: int) -> float:
    r"""What the default costs: the mean of its seeds above that of the best value.

    .. math:: D = \bar\ell_{\mathrm{default}} - \min_i \bar\ell_i

    Chance alone makes it positive, as it does `expected_excess_loss`.

    Args:
      losses: Clipped, (values, seeds).
      default: The default's row.

    Returns:
      D >= 0, in the losses' unit; 0 if the default is the best value.

    >>> default_regret([[1.0, 1.0], [0.5, 0.7]], default=0)
    0.4
    """
    means = np.asarray(losses, np.float64).mean(axis=1)
    return float(means[default] - means.min())


def main_effect_shares(curves: Mapping[str, ArrayLike]) -> dict[str, float]:
    r"""Each hyperparameter's share of what all of them, varied one at a time, change.

    .. math:: \frac{V_p}{\sum_q V_q}, \qquad
        V_p = \max \left( 0, \tfrac{1}{v} \sum_i (\bar\ell_i - \bar\ell)^2 - \tfrac{v - 1}{v} \tfrac{s^2}{n} \right),
        \qquad s^2 = \frac{1}{(v - 1)(n - 1)} \sum_{ij} (\ell_{ij} - \bar\ell_i - \bar\ell_j + \bar\ell)^2

    The variance of the seeds' means, less what chance alone makes of it: nothing for a single seed, and nothing of what
    a seed does to all values alike. These are main effects around the default, not those of a functional ANOVA: nothing
    varied together.

    Args:
      curves: Clipped losses (values, seeds) by hyperparameter, a column for each seed, and the same seeds in all:
        what is corrected for chance is not compared with what is not.

    Returns:
      Shares that sum to 1, or 0 for all if nothing changes anything.

    Raises:
      ValueError: The curves have different numbers of seeds.

    >>> main_effect_shares({"alpha": [[0.0], [6.0]], "beta1": [[0.0], [2.0]]})
    {'alpha': 0.9, 'beta1': 0.1}
    """
    variances = {}
    arrays = {name: np.asarray(losses, np.float64) for name, losses in curves.items()}
    if len({array.shape[1] for array in arrays.values()}) > 1:
        counts = {name: array.shape[1] for name, array in arrays.items()}
        raise ValueError(f"curves must have the same seeds, got {counts} of them")
    for name, array in arrays.items():
        values, seeds = array.shape
        means = array.mean(axis=1, keepdims=True)
        chance = array - means - array.mean(axis=0) + array.mean()
        # (v - 1) / v of s^2 / n, in which v - 1 cancels.
        noise = (chance**2).sum() / (values * (seeds - 1) * seeds) if seeds > 1 else 0.0
        variances[name] = max(0.0, float(means.var() - noise))
    total = sum(variances.values())
    return {name: variance / total if total > 0 else 0.0 for name, variance in variances.items()}


def tuning_dependence(performance: ArrayLike) -> float:
    r"""How much is lost when one setting must serve all environments instead of each having its own.

    .. math:: \Phi = \frac{1}{|E|} \sum_e \max_h \Gamma(e, h) - \max_h \frac{1}{|E|} \sum_e \Gamma(e, h)

    Args:
      performance: Gamma, (environments, settings): higher is better, normalised so that environments can be averaged.
        Here environments are networks and data sets, and accuracies need no normalisation.

    Returns:
      Phi >= 0; 0 if one setting is the best everywhere.

    Source:
      Adkins, Bowling and White, "A Method for Evaluating Hyperparameter Sensitivity in Reinforcement Learning",
      arXiv:2412.07165, section 4.

    >>> tuning_dependence([[0.8, 0.4], [0.4, 0.8]])  # the best of each is bad for the other
    0.2
    """
    gamma = np.asarray(performance, np.float64)
    return round(float(gamma.max(axis=1).mean() - gamma.mean(axis=0).max()), 12)


def expected_best(losses: ArrayLike, trials: int) -> float:
    r"""The loss to expect of the best of k runs whose value and seed are drawn at random, with replacement.

    With the N losses in ascending order,

    .. math:: \mathbb{E}[\min] = \sum_{i=1}^{N} \ell_{(i)} \left[ \left( \tfrac{N - i + 1}{N} \right)^k
        - \left( \tfrac{N - i}{N} \right)^k \right]

    Args:
      losses: Clipped, (values, seeds).
      trials: k, >= 1.

    Returns:
      The expectation, in the losses' unit.

    Raises:
      ValueError: `trials` is below 1.

    Source:
      Dodge et al., "Show Your Work: Improved Reporting of Experimental Results", arXiv:1909.03004, equation 5, there of
      the maximum of accuracies.

    >>> expected_best([[0.0], [1.0]], trials=2)  # 1 only if both draws are: a quarter
    0.25
    """
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    ordered = np.sort(np.asarray(losses, np.float64), axis=None)
    survival = (np.arange(len(ordered), -1, -1) / len(ordered)) ** trials
    return float(ordered @ (survival[:-1] - survival[1:]))


def _curve(positions: ArrayLike, losses: ArrayLike) -> tuple[Floats, Floats]:
    """Positions and means of seeds, checked."""
    x, means = np.asarray(positions, np.float64), np.asarray(losses, np.float64).mean(axis=1)
    if x.shape != means.shape or len(x) < 2 or not (np.diff(x) > 0).all():
        raise ValueError(f"positions must be ascending, one per value and at least two, got {x.tolist()}")
    return x, means
