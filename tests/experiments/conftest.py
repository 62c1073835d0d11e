"""How every study refuses bad input."""

import sys

import pytest

from adamlab import command


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
