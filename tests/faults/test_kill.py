"""Killed anywhere and continued, a study records what an uninterrupted one does: see `tests.faults.kill`."""

import pytest

from tests.faults.kill import strike


def test_eight_kills(tmp_path):
    harness = strike(tmp_path, count=8, seed=0)
    assert harness.faults == []
    assert harness.kills.total() == 8


@pytest.mark.slow
def test_a_hundred_kills(tmp_path):
    harness = strike(tmp_path, count=100, seed=1)
    assert harness.faults == []
    assert harness.kills.total() == 100
    assert set(harness.kills) == {"anywhere", "compiling", "checkpoint", "file"}
