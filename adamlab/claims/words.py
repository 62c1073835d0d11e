"""A claim's numbers in words."""

import math

from adamlab.claims import Judgement
from adamlab.claims.evidence import Number


def describe(number: Number) -> str:
    """The number, its interval, its seeds, and where the claim has it. The best of c settings is told, and has the
    interval at 1 - 5 %/c that decides.

    >>> describe(Number("loss", "factor", (0.0, math.inf), (math.log(2), math.log(2)), ()))
    'loss: x 2 [2, 2], n = 2; claimed: above x 1'
    >>> describe(Number("accuracy", "points", (-1.0, 1.0), (0.5,), ()))
    'accuracy: 0.5 points, n = 1, no interval; claimed: between -1 and 1 points'
    """
    if not number.samples:
        return f"{number.label}: {number.why}; claimed: {_region(number)}"
    low, high = number.interval(1 - number.error)
    spread = f" [{_plain(low, number)}, {_plain(high, number)}]" if math.isfinite(low) else ""
    single = "" if spread else ", no interval"
    shown = _with_unit(f"{_plain(number.mean, number)}{spread}", number)
    chosen = f", best of {number.choices} settings" if number.choices > 1 else ""
    return f"{number.label}: {shown}, n = {len(number.samples)}{single}{chosen}; claimed: {_region(number)}"


def by_seed(number: Number) -> str:
    """The samples, in the order of their seeds."""
    return ", ".join(_plain(sample, number) for sample in number.samples)


def decisive(judgement: Judgement) -> Number:
    """The number that decides a verdict: one that fails, or else is open or missing, or else holds by the least."""
    order = ("fails", "open", "missing", "holds")
    return min(judgement.numbers, key=lambda number: (order.index(judgement.state(number)), _slack(number)))


def _slack(number: Number) -> float:
    """How far the mean is from the region's nearest end, in half widths of its interval: small decides."""
    if not number.samples:
        return 0.0
    low, high = number.interval()
    half = (high - low) / 2
    distances = [abs(number.mean - end) for end in number.region if math.isfinite(end)]
    return min(distances, default=math.inf) / half if half > 0 else min(distances, default=math.inf)


def _plain(value: float, number: Number) -> str:
    return f"{math.exp(value) if number.unit == 'factor' else value:.3g}"


def _with_unit(text: str, number: Number) -> str:
    """`x 1.2`, `1.2 points`; a share speaks for itself."""
    if number.unit == "factor":
        return f"x {text}"
    return text if number.unit == "share" else f"{text} {number.unit}"


def _region(number: Number) -> str:
    low, high = (_plain(end, number) for end in number.region)
    if math.isinf(number.region[0]):
        return f"below {_with_unit(high, number)}"
    if math.isinf(number.region[1]):
        return f"above {_with_unit(low, number)}"
    return f"between {_with_unit(f'{low} and {high}', number)}"
