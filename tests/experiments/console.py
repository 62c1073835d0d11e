"""What a function, or a whole command, prints, as text."""

import sys
from io import StringIO

import pytest
from rich.console import Console

from adamlab import command


def printed(function, *arguments):
    console = Console(record=True, width=200, file=StringIO())
    function(console, *arguments)
    return console.export_text()


def ended(module, capsys, monkeypatch, *arguments):
    """A command's exit status, what it prints on a wide terminal, and what it complains of."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "500")
    with pytest.raises(SystemExit) as stop:
        command.run_main(module.main, module.__name__)
    output = capsys.readouterr()
    return stop.value.code, output.out, output.err
