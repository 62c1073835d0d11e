"""What all command lines of the repository share: one-line errors, a quiet terminal, an honest exit status."""

import argparse
import logging
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from adamlab.data.dataset import DataError
from adamlab.files import RecordsError, WriteError
from adamlab.hyperparameters import ConfigError

# How a launcher has a process told that its machine is about to be taken: submitit's is the second, once the first.
# Windows, where records can be read, has neither.
PREEMPTION = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
# Seconds that a process which has failed gives the others of its job to fail, too.
FAREWELL = 5.0


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
        self.exit(2, f"{_one_line(message)}\n")


def path(text: str) -> Path:
    """The type of an option that is a path; an empty one, of an unset variable, would be the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("must be a path, got ''")
    return Path(text)


class Terminated(BaseException):
    """SIGTERM, such as before a machine is taken away: raised where it arrives, as KeyboardInterrupt is for Ctrl-C."""


def run_main(main: Callable[[], None], module: str) -> NoReturn:
    """Runs a program's `main` and ends the program.

    Args:
      main: The program.
      module: The module that it was started as, for the command that continues it.

    Raises:
      SystemExit: Status 0; after one line on standard error 2 for bad input and unusable files, 1 for a disk that takes
        nothing more; 1 where nobody reads the output any more, or after the traceback of a defect; 130 after Ctrl-C and
        143 after SIGTERM.
    """
    _silence()
    try:
        with _raised():
            main()
            sys.stdout.flush()
    except WriteError as error:
        message, status = _one_line(error), 1
    except (ConfigError, DataError, RecordsError) as error:
        message, status = _one_line(error), 2
    except BrokenPipeError:
        # Who reads the output has seen enough, such as head: "Note on SIGPIPE" in Python's `signal`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still flushes
        _leave_job(1)
        sys.exit(1)
    except KeyboardInterrupt:
        message, status = f"Interrupted. {_continue_with(module)}", 130
    except Terminated:
        message, status = f"Terminated. {_continue_with(module)}", 143
    except Exception:  # a defect of ours
        message, status = traceback.format_exc(), 1
    else:
        sys.exit(0)
    print(message, file=sys.stderr, flush=True)
    _leave_job(status)
    sys.exit(status)


def _leave_job(status: int) -> None:
    """Ends one of a job's processes, which may be the only one that has failed, without waiting for the others.

    At exit JAX would: for five minutes, for those that wait for this one, and then abort. Where all end, they take
    leave of each other at once.
    """
    if "jax" not in sys.modules or not (job := sys.modules["jax"].distributed).is_initialized():
        return
    farewell = threading.Thread(target=job.shutdown, daemon=True)
    farewell.start()
    farewell.join(FAREWELL)
    if farewell.is_alive():
        sys.stdout.flush()
        os._exit(status)


def make_deterministic() -> None:
    """Has XLA take, on a GPU, operations and kernels that give the same bits at every start; call it before JAX starts.

    Without, kernels are chosen by how long they happen to take, and some add in the order in which threads arrive.

    Source: https://openxla.org/xla/determinism; the first flag includes `--xla_gpu_exclude_nondeterministic_ops`.
    """
    given = os.environ.get("XLA_FLAGS", "").split()
    flags = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_autotune_level=0")
    os.environ["XLA_FLAGS"] = " ".join([*(flag for flag in given if flag not in flags), *flags])


@contextmanager
def postponed() -> Iterator[Callable[[], bool]]:
    """Holds Ctrl-C and SIGTERM back until the end of a block, which gets a function that tells whether one arrived.

    So it does with a launcher's signal of preemption, whose handler is called at the end. A second Ctrl-C ends the
    program at once, since the system does that, as soon as Python sees it: a long computation is awaited with
    `adamlab.training.group.awaited`.

    Raises:
      KeyboardInterrupt, Terminated: At the end of the block, for what was held back.
    """
    arrived: list[int] = []

    def note(number: int, frame: object) -> None:
        arrived.append(number)
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        # Who reads it may be gone, or never have been: Ctrl-C ends `tee`, too. We stop and save all the same.
        with suppress(OSError):
            show_cursor = "\x1b[?25h" if os.isatty(2) else ""  # which a live display has hidden
            os.write(2, f"\nStopping after these steps; Ctrl-C ends at once.\n{show_cursor}".encode())

    with _handling(dict.fromkeys((signal.SIGINT, signal.SIGTERM, *PREEMPTION), note)):
        yield lambda: bool(arrived)
    if arrived:
        if arrived[0] in PREEMPTION:
            signal.raise_signal(arrived[0])  # the launcher has the job queued again, and ends it
        raise KeyboardInterrupt if arrived[0] == signal.SIGINT else Terminated


@contextmanager
def _raised() -> Iterator[None]:
    """Turns SIGTERM into an exception, so that what is half-done is cleaned up."""

    def terminate(number: int, frame: object) -> NoReturn:
        raise Terminated

    with _handling({signal.SIGTERM: terminate}):
        yield


@contextmanager
def _handling(handlers: dict[signal.Signals, Callable[[int, object], None]]) -> Iterator[None]:
    """Handles signals within a block.

    Those that are ignored go on being so: a program in the background, Ctrl-C. So does SIGTERM where a launcher handles
    it: submitit, which has SLURM queue a job again, lets it pass. A signal of preemption is handled where a launcher
    does so, and only there.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone may
        yield
        return

    def concerns_us(number: signal.Signals) -> bool:
        current = signal.getsignal(number)
        if number in PREEMPTION:
            return callable(current)
        own = getattr(current, "__module__", None) == __name__  # of a block around this one
        return own or current in (signal.SIG_DFL, signal.default_int_handler)

    watched = {number: handler for number, handler in handlers.items() if concerns_us(number)}
    before = {number: signal.signal(number, handler) for number, handler in watched.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _one_line(error: object) -> str:
    """What is said of an error. Names are from people and disks: line breaks and control characters show as escapes."""
    return "error: " + "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in str(error))


def _continue_with(module: str) -> str:
    command = shlex.join(["python", "-m", module, *sys.argv[1:]])
    return f"What is finished is kept; continue with:\n  {command}"


def _silence() -> None:
    """Quietens the libraries' chatter, which says nothing that a user of a study can act on."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # the C++ side of XLA and TensorFlow
    for name in ("jax", "orbax", "etils"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Where a checkpoint cannot be written, we say so in one line, of the first error. Orbax logs all those that follow
    # in its threads, and TensorStore calls back into event loops that are gone by then.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    report = sys.unraisablehook
    closed = "Event loop is closed"
    sys.unraisablehook = lambda error: None if str(error.exc_value) == closed else report(error)
