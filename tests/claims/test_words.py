"""Which number decides a verdict."""

import math

import pytest

from adamlab.claims import CLAIMS, Judgement
from adamlab.claims.evidence import Number
from adamlab.claims.words import decisive

INF = math.inf


def number(*samples, region=(0.0, INF)):
    return Number(repr(samples), "points", region, samples, ())


FAILS, OPEN, MISSING, HOLDS = number(-101, -100, -99), number(-1, 1, 3), number(), number(99, 100, 101)


def decides(*numbers):
    """The same one in either order."""
    [found] = {decisive(Judgement(CLAIMS[0], None, list(order))) for order in (numbers, numbers[::-1])}
    return found


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        ((FAILS, OPEN, MISSING, HOLDS), FAILS),
        ((OPEN, MISSING, HOLDS), OPEN),
        ((MISSING, HOLDS), MISSING),
        ((HOLDS,), HOLDS),
    ],
)
def test_a_failure_decides_then_what_is_open_then_what_is_missing(numbers, found):
    assert decides(*numbers) == found


@pytest.mark.parametrize(
    ("found", "other"),
    [
        # Five half widths of 2.48 from its end, and two.
        (number(9, 10, 11, region=(5.0, INF)), number(9, 10, 11)),
        # Of 0.1, the half width is a tenth: farther from its end, though by less.
        (number(9, 10, 11), number(4.9, 5.0, 5.1)),
        # The nearer of two ends.
        (number(9, 10, 11, region=(-INF, 14.0)), number(9, 10, 11, region=(4.0, 15.0))),
        (number(9, 10, 11, region=(4.0, 14.0)), number(9, 10, 11, region=(5.0, INF))),
        # Intervals without width: by the distance itself.
        (number(1, 1, 1), number(2, 2, 2)),
    ],
)
def test_of_those_that_hold_the_one_nearest_to_its_end_decides(found, other):
    """In half widths of its interval."""
    assert (found.state(2), other.state(2)) == ("holds", "holds")
    assert decides(found, other) == found


def test_whether_one_fails_is_asked_among_those_that_are_there():
    """The interval of 9, 10, 11 is [6.4, 13.6] at the level for two numbers, and [1.9, 18.1] at that for ten."""
    unclear = number(9, 10, 11, region=(-INF, 6.0))
    assert decides(unclear, OPEN, *[MISSING] * 8) == unclear
    assert decides(unclear, OPEN, *[HOLDS] * 8) == OPEN
