"""What the tests of faults share: a grid that was never interrupted."""

import pytest

from adamlab.training import feed
from tests.faults import grid, study


@pytest.fixture(scope="module")
def one_step_chunks():
    """An epoch of four chunks: a run can be stopped between any two of its steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "MAX_CHUNK", 1)
        yield


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """The records of a grid that nothing happened to."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "MAX_CHUNK", 1)
        said = grid.train(out)
    assert "warning" not in said
    assert study.leftovers(out) == []
    return study.recorded(out)


@pytest.fixture(scope="module")
def whole(uninterrupted, one_step_chunks):
    """The same, for a test that trains the grid again, step by step."""
    return uninterrupted
