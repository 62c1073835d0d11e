"""What the tests of training share: the digits, a net that compiles in a moment, chunks of one step."""

import pytest

from adamlab import data, models
from adamlab.training import feed
from tests.training import small


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


@pytest.fixture(autouse=True, scope="module")
def small_net():
    """`small` names `tests.training.small.Net`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "small", small.Net)
        yield


@pytest.fixture
def one_step_chunks(monkeypatch):
    """An epoch of four chunks instead of one."""
    monkeypatch.setattr(feed, "MAX_CHUNK", 1)
