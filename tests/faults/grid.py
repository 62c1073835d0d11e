"""A grid of two small runs, and hands that reach in while it trains.

  python -m tests.faults.grid OUT RUN EPOCH STEP COMMAND...

trains it in a process of its own, and runs a command after a step of a run; `limit BYTES` limits the size of files.
"""

import io
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import pytest
from rich.console import Console

from adamlab import data, models
from adamlab.command import Terminated, run_main
from adamlab.config import RunConfig
from adamlab.hyperparameters import Hyperparameters
from adamlab.protocol import PROTOCOLS
from adamlab.records import run_folder
from adamlab.training import feed
from experiments.display import Display
from experiments.execution import Execution
from experiments.grid import run_grid
from tests.faults.study import ROOT
from tests.training import small

DIGITS = data.load("digits")
PROTOCOL = replace(PROTOCOLS["smoke"], train_images=40, test_images=20, batch_size=10, epochs=3)
NET = partial(small.Net, features=64)  # compiled in a moment; half a megabyte with its moments
CONFIGS = [RunConfig("digits", "small", PROTOCOL, Hyperparameters(alpha=alpha)) for alpha in (1e-3, 1e-2)]
Hand = Callable[[int, int, int], None]


class Watched(Display):
    """A display that calls `hand(run, epoch, step)` after every chunk; after an epoch's record, step is None."""

    def __init__(self, hand: Hand) -> None:
        self.text = io.StringIO()
        super().__init__(Console(file=self.text, width=10_000))
        self._hand = hand

    def step(self, epoch: int, step: int, loss: float) -> None:
        super().step(epoch, step, loss)
        self._hand(self._number, epoch, step)


def train(out: Path, hand: Hand = lambda run, epoch, step: None, minutes: float = 0) -> str:
    """Trains what is not trained yet, by default with a checkpoint after every step; what a person would see."""
    display = Watched(hand)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "small", NET)
        run_grid(CONFIGS, DIGITS, out, display, Execution(devices=1, checkpoint_minutes=minutes))
    return display.text.getvalue()


def terminate_at(run: int, epoch: int, step: int) -> Hand:
    """A hand that sends SIGTERM after a step."""

    def hand(*where: int) -> None:
        if where == (run, epoch, step):
            os.kill(os.getpid(), signal.SIGTERM)

    return hand


def train_until_terminated(out: Path, run: int, epoch: int, step: int) -> None:
    """Trains up to a step, and leaves what a preemption leaves."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as a program that ignores it would not notice
    try:
        with pytest.raises(Terminated):
            train(out, terminate_at(run, epoch, step))
    finally:
        signal.signal(signal.SIGTERM, before)


def folder(out: Path, run: int) -> Path:
    """The folder of the first or second run."""
    return run_folder(out, CONFIGS[run - 1])


def train_in_a_process(out: Path, where: tuple[int, int, int], *command: str) -> subprocess.CompletedProcess[str]:
    """Trains until a command that runs after a step makes that impossible."""
    arguments = [str(out), *map(str, where), *command]
    return subprocess.run(
        [sys.executable, "-m", "tests.faults.grid", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def main() -> None:
    out, *place = sys.argv[1:5]
    command = sys.argv[5:]

    def hand(*where: int) -> None:
        if list(map(str, where)) != place:
            return
        if command[0] == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(command[1]), resource.RLIM_INFINITY))
        else:
            subprocess.run(command, check=True)

    # As in the suite: how many devices share the cores changes the last bits.
    jax.config.update("jax_num_cpu_devices", 4)
    feed.MAX_CHUNK = 1
    run_main(lambda: print(train(Path(out), hand)), "tests.faults.grid")


if __name__ == "__main__":
    main()
