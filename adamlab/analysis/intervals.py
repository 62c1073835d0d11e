"""Confidence intervals of an index, from a study's few seeds.

A column of losses is a seed: its runs share initial weights and the order of the images, so that a curve is that of
pairs, and a seed is drawn or left out with its losses at all values.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from adamlab.analysis.sensitivity import Floats


def student(samples: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    r"""Student's confidence interval of a mean, such as that of differences paired by seed.

    .. math:: \bar x \pm t_{n-1} \frac{s}{\sqrt{n}}, \qquad s^2 = \frac{1}{n - 1} \sum_i (x_i - \bar x)^2

    Args:
      samples: One per seed, (n,).
      level: Of confidence.

    Returns:
      The interval's ends, in the samples' unit; infinite for a single sample.

    Source:
      Student, "The probable error of a mean", Biometrika 6, 1908.

    >>> low, high = student([1.0, 2.0, 3.0])  # t of 2 degrees of freedom is 4.303
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    """
    from scipy.stats import t  # here: --help does not wait for it

    array = np.asarray(samples, np.float64)
    if len(array) < 2:
        return -math.inf, math.inf
    half = float(t.ppf((1 + level) / 2, len(array) - 1) * np.std(array, ddof=1) / math.sqrt(len(array)))
    return float(array.mean()) - half, float(array.mean()) + half


def bootstrap(
    index: Callable[[Floats], float], losses: ArrayLike, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """A confidence interval of an index, by drawing seeds anew (percentile bootstrap).

    With three seeds such an interval is too narrow: it never sees a seed that was not among them. For an index that is
    measured from the lowest of several means, which chance alone puts above 0, it is also too high, since drawing anew
    adds chance to chance. For an index in units of the noise it is wrong, since a seed that is drawn twice makes the
    noise look smaller: see `jackknife`.

    Args:
      index: From losses (values, seeds) to a number.
      losses: Clipped, (values, seeds), a column for each seed.
      resamples: How often seeds are drawn.
      level: Of confidence.
      seed: Of the draws.

    Returns:
      The interval's ends; NaN for both with a single seed. Resamples whose index is infinite are left out.

    Source:
      Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    array = np.asarray(losses, np.float64)
    if array.shape[1] < 2:
        return math.nan, math.nan
    draws = np.random.default_rng(seed).integers(array.shape[1], size=(resamples, array.shape[1]))
    numbers = [number for number in (index(array[:, draw]) for draw in draws) if math.isfinite(number)]
    if not numbers:
        return math.nan, math.nan
    low, high = np.quantile(numbers, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def jackknife(index: Callable[[Floats], float], losses: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    r"""A confidence interval of a positive index, by leaving out one seed at a time.

    .. math:: \log \theta \pm t_{n-1} \sqrt{\tfrac{n - 1}{n} \sum_j (\log \theta_{(j)} - \overline{\log \theta})^2}

    with theta_(j) the index without seed j: on a logarithmic axis, where a variance's error is nearly symmetric.

    Args:
      index: From losses (values, seeds) to a number above 0.
      losses: Clipped, (values, seeds), a column for each seed.
      level: Of confidence.

    Returns:
      The interval's ends; NaN for both where the index, or one of those without a seed, is not positive and finite:
      for one that needs two seeds, with fewer than three.

    Source:
      Miller, "The jackknife - a review", Biometrika 61, 1974.
    """
    from scipy.stats import t  # here: --help does not wait for it

    array = np.asarray(losses, np.float64)
    n = array.shape[1]
    if n < 2:
        return math.nan, math.nan
    numbers = np.array([index(array), *(index(np.delete(array, seed, axis=1)) for seed in range(n))])
    if not (np.isfinite(numbers) & (numbers > 0)).all():
        return math.nan, math.nan
    center, *rest = np.log(numbers)
    half = float(t.ppf((1 + level) / 2, n - 1) * math.sqrt((n - 1) ** 2 / n * np.var(rest, ddof=1)))
    return math.exp(center - half), math.exp(center + half)
