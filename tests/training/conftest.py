"""What the tests of training share: the digits, nets that compile in a moment, chunks of one step."""

from functools import partial

import pytest

from adamlab import data, models
from adamlab.models.plain import Plain
from adamlab.training import feed
from tests.training import small


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


@pytest.fixture(autouse=True, scope="module")
def small_nets():
    """`small` names `tests.training.small.Net`, `plain8` the plain net with two layers in each set instead of six."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "small", small.Net)
        patch.setitem(models.MODELS, "plain8", partial(Plain, set_size=2))
        yield


@pytest.fixture
def one_step_chunks(monkeypatch):
    """An epoch of four chunks instead of one."""
    monkeypatch.setattr(feed, "MAX_CHUNK", 1)
