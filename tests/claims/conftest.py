"""Shared by the tests of claims."""

import pytest

from tests.claims.worlds import gupta, madan


@pytest.fixture(scope="session")
def worlds(tmp_path_factory):
    """The papers' worlds, by the first letter of a claim's name."""
    return {"S": madan(tmp_path_factory.mktemp("madan")), "L": gupta(tmp_path_factory.mktemp("gupta"))}
