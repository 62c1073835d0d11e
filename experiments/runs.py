"""Trains runs in this process, or in a job of several, and records them as they go."""

import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from adamlab import recording, records
from adamlab.command import Terminated, postponed
from adamlab.config import RunConfig
from adamlab.data import Dataset
from adamlab.files import Held, WriteError, hold
from adamlab.training import Diverged, Interrupted, train, train_together
from adamlab.training.checkpoint import Checkpoints, Position
from adamlab.training.cluster import announce
from adamlab.training.parallel import Devices
from experiments.display import Display

# What process 0 announces when there is nothing left to train.
END = -1


def run_together(
    folders: dict[RunConfig, Path],
    dataset: Dataset,
    origin: dict,
    display: Display,
    checkpoint_minutes: float,
    devices: Devices,
    number: int = 0,
    patience: float = 0.0,
) -> None:
    """Trains runs of one program at once, the first of them the grid's `number`, from where their folders left off.

    One that is finished is left alone, and one that another process is at is left to it, after so many seconds of
    patience. Those that stand at different positions are trained one position after the other.
    """
    with ExitStack() as holding:
        waiting: dict[tuple[int, int], list[tuple[records.Run, Checkpoints, Position]]] = {}
        for config, folder in folders.items():
            run = records.find_run(folder, config)
            if run is not None and run.outcome is not None:
                display.skip(config)
                clear(folder)
                continue
            try:
                holding.enter_context(hold(folder, patience))
            except Held as held:
                display.held(config, str(held))
                continue
            run = recording.open_run(folder, config, origin, display.warn)
            if run.outcome is not None:  # the process that had it before has finished it meanwhile
                display.skip(config)
                shutil.rmtree(folder / "checkpoint", ignore_errors=True)
                continue
            checkpoints = Checkpoints(folder / "checkpoint", checkpoint_minutes, display.warn)
            position = checkpoints.find(config, len(run.epochs))
            recording.resume(folder, position.epochs, origin, anew=position == Position())
            steps = position.epochs, len(position.losses)
            waiting.setdefault(steps, []).append((run, checkpoints, position))
        for alike in waiting.values():
            runs, checkpoints, positions = (list(column) for column in zip(*alike, strict=True))
            _train_held(runs, checkpoints, positions[0], dataset, display, devices, number)


def clear(folder: Path) -> None:
    """Removes what a process left behind that was killed after its run's outcome, unless one is still at it."""
    if any((folder / name).exists() for name in ("checkpoint", "lock")):
        with suppress(Held, WriteError), hold(folder):
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)


def _train_held(
    runs: list[records.Run],
    checkpoints: list[Checkpoints],
    position: Position,
    dataset: Dataset,
    display: Display,
    devices: Devices,
    number: int,
) -> None:
    """Trains runs that are this process' alone, or this job's, and stand at one position."""
    configs = [run.config for run in runs]

    def end(place: int, outcome: dict[str, Any]) -> None:
        recording.append(runs[place].folder, outcome)
        display.end(configs[place], outcome)
        checkpoints[place].delete()

    display.start(configs, position)
    announce(number)
    with postponed() as stop:
        try:
            going = set(range(len(runs)))
            for place, result in train_together(configs, dataset, checkpoints, display.step, stop, devices):
                if isinstance(result, Diverged):
                    going.remove(place)
                    end(place, {"outcome": "diverged", "epoch": result.epoch, "step": result.step})
                else:
                    recording.append(runs[place].folder, result)
                    display.epoch(configs[place], result)
            for place in sorted(going):
                end(place, {"outcome": "finished"})
        except Interrupted:
            if not stop():  # it is another process of the job that was told to stop
                raise Terminated from None
            # else what was held back arrives
        finally:
            for own in checkpoints:
                own.close()


def follow(folders: dict[RunConfig, Path], dataset: Dataset, checkpoint_minutes: float, devices: Devices) -> None:
    """Trains with process 0, which decides what, and records it, until it announces the end."""
    configs = list(folders)
    while (number := announce()) != END:
        checkpoints = Checkpoints(folders[configs[number]] / "checkpoint", checkpoint_minutes)
        with postponed() as stop:
            try:
                for _ in train(configs[number], dataset, checkpoints, stop=stop, devices=devices):
                    pass
            except Diverged:
                pass  # process 0 saw the same, and says so
            except Interrupted:
                if stop():
                    return
                raise Terminated from None
            finally:
                checkpoints.close()
