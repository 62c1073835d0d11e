"""What tests of the commands share: a whole study, and how every study refuses bad input."""

import sys

import pytest

from adamlab import command
from tests.experiments.processes import LONGER, TINY, finish
from tests.faults.study import recorded


@pytest.fixture
def refusal(capsys, monkeypatch, tmp_path):
    """The function `refusal(main, arguments)`: the one line that a study answers, having written nothing."""

    def refuse(main, arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["study", *arguments])
        with pytest.raises(SystemExit) as stop:
            command.run_main(main, "experiments.study")
        error = capsys.readouterr().err
        assert stop.value.code == 2
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert list(tmp_path.iterdir()) == []  # nothing half-written
        return error

    return refuse


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The results folder of the two settings of `LONGER` with the small net, uninterrupted."""
    out = tmp_path_factory.mktemp("finished")
    status, _, errors = finish([*LONGER, f"--out={out}"], small=True)
    assert status == 0, errors
    return out


@pytest.fixture(scope="session")
def longer(finished):
    """What they record."""
    return recorded(finished)


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A whole study, uninterrupted."""
    out = tmp_path_factory.mktemp("study")
    status, output, errors = finish(["--param=alpha", *TINY, f"--out={out}"])
    assert status == 0, errors
    return out, output, errors
