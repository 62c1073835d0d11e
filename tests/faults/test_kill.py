"""Killed anywhere and continued, a study records what an uninterrupted one does: see `tests.faults.kill`."""

import pytest

from tests.faults.kill import KINDS, strike


def test_a_kill_of_each_kind(tmp_path):
    harness = strike(tmp_path, count=4, seed=81)  # of this seed the first four are one of each
    assert harness.faults == []
    assert harness.kills.total() == 4
    assert set(harness.kills) == set(KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_twenty_kills(seed, tmp_path):
    """A hundred in all: one test of them would be taken for one that hangs."""
    harness = strike(tmp_path, count=20, seed=seed)
    assert harness.faults == []
    assert harness.kills.total() == 20
