"""What all command lines of the repository share: one-line errors, a quiet terminal, an honest exit status."""

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Callable
from typing import NoReturn

from adamlab.data.dataset import DataError
from adamlab.hyperparameters import ConfigError
from adamlab.records import RecordsError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, as all errors of adamlab are.

    Args:
      module: The module that is run with `python -m`.
      docstring: Its docstring, which is the help.
    """

    def __init__(self, module: str, docstring: str | None) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        # No abbreviations: a flag added later must not change what a script of today says.
        super().__init__(f"python -m {module}", description=docstring, formatter_class=formatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit status 2."""
        self.exit(2, f"error: {message}\n")


def run_main(main: Callable[[], None], module: str) -> NoReturn:
    """Runs a program's `main` and ends the program.

    Args:
      main: The program.
      module: The module that it was started as, for the command that continues it after Ctrl-C.

    Raises:
      SystemExit: Status 0; 2 after one line on standard error for bad input and unusable files; 130 after Ctrl-C.
    """
    _silence()
    try:
        main()
    except (ConfigError, DataError, RecordsError) as error:
        message, status = f"error: {error}", 2
    except KeyboardInterrupt:
        command = shlex.join(["python", "-m", module, *sys.argv[1:]])
        message, status = f"Interrupted. What is finished is kept; continue with:\n  {command}", 130
    else:
        sys.exit(0)
    print(message, file=sys.stderr)
    sys.exit(status)


def _silence() -> None:
    """Quietens the libraries' chatter, which says nothing that a user of a study can act on."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # the C++ side of XLA and TensorFlow
    for name in ("absl", "jax", "orbax", "etils"):
        logging.getLogger(name).setLevel(logging.ERROR)
