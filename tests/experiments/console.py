"""What a function prints, as text."""

from io import StringIO

from rich.console import Console


def printed(function, *arguments):
    console = Console(record=True, width=200, file=StringIO())
    function(console, *arguments)
    return console.export_text()
