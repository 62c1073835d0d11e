"""Runs a grid of configurations: skips what is finished, resumes what was interrupted, goes on where one diverges."""

import os
import platform
import shutil
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.console import Console

from adamlab import records
from adamlab.command import Terminated, postponed
from adamlab.config import RunConfig
from adamlab.data import Dataset
from adamlab.files import Held, WriteError, hold
from adamlab.provenance import provenance
from adamlab.training import Diverged, Interrupted, train
from adamlab.training.checkpoint import Checkpoints
from adamlab.training.cluster import announce, ends_together, leads
from adamlab.training.parallel import Devices, keep_compilations
from experiments.display import Display
from experiments.execution import Execution
from experiments.launch import Engine, one_line

# What process 0 announces when there is nothing left to train.
END = -1


@ends_together()
def run_grid(
    configs: Sequence[RunConfig],
    dataset: Dataset,
    out: Path,
    display: Display,
    execution: Execution = Execution(),  # noqa: B008, it is frozen
    engine: Engine | None = None,
) -> None:
    """Trains every configuration that is not finished yet into folders below `out`.

    Of a job with several processes, 0 does so; the others train with it what it tells them to.

    Args:
      configs: What to train.
      dataset: What to train on.
      out: The results folder.
      display: Tells a person.
      execution: How to train.
      engine: Where to train; None for in this process or job, one run after the other.

    Raises:
      RecordsError: A folder holds another configuration. Nothing has been trained then.
      WriteError: The disk failed. What was recorded before is there.
      SystemExit: With status 1, after the last run: some failed on the engine.
    """
    folders = {config: records.run_folder(out, config) for config in configs}
    if leads():
        for config, folder in folders.items():
            records.find_run(folder, config)  # refuses what is another's before anything is trained
    if engine is not None:
        _launch(engine, folders, dataset, out, display, execution)
        return
    devices = execution.find_devices()
    if not leads():
        _follow(folders, dataset, execution.checkpoint_minutes, devices)
        return
    origin = describe(dataset, devices)
    with display.running(configs):
        for number, (config, folder) in enumerate(folders.items()):
            run_one(config, dataset, folder, origin, display, execution.checkpoint_minutes, devices, number)
    announce(END)


def _launch(
    engine: Engine,
    folders: dict[RunConfig, Path],
    dataset: Dataset,
    out: Path,
    display: Display,
    execution: Execution,
) -> None:
    """Gives an engine the runs that are not finished, and says of each how it ended.

    What is in the results folder says what has become of a run. JAX is not started here: it would take a GPU.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot write results to {out}: {error.strerror}") from None
    given = execution.data_dir or os.environ.get("TFDS_DATA_DIR")  # a node may have another environment
    execution = replace(execution, data_dir=Path(given).expanduser().absolute() if given else None)
    with display.running(list(folders)):
        tasks = []
        for config, folder in folders.items():
            run = records.find_run(folder, config)
            if run is not None and run.outcome is not None:
                display.skip(config)
            else:
                tasks.append(Task(config, folder.absolute(), execution, engine.name, dataset.note))
        failed = 0
        for index, error in engine.run(tasks, out.absolute(), display.console.print) if tasks else ():
            task = tasks[index]
            if error is not None:
                failed += 1
                display.failed(task.config, error)
                continue
            run = records.find_run(task.folder, task.config)
            if run is None or run.outcome is None:
                display.held(task.config, f"{task.folder} is being worked on by another process")
            else:
                display.ended(run)
    if failed:
        raise SystemExit(f"error: {failed} of {len(folders)} runs failed; the same command tries them again")


@dataclass(frozen=True)
class Task:
    """One run, for a process of its own on any node that sees the results folder.

    Args:
      config: What to train.
      folder: Where its records and checkpoints are, absolute.
      execution: How to train, with an absolute `data_dir`, or None where the node itself knows.
      launcher: The engine, for the records.
      note: The data set's, for the records.
    """

    config: RunConfig
    folder: Path
    execution: Execution
    launcher: str
    note: str

    def __call__(self) -> str | None:
        """Trains the run from where its folder left off; returns the line that says what went wrong, or None."""
        try:
            self.execution.prepare()
            keep_compilations()
            dataset = replace(_load(self.execution, self.config.dataset), note=self.note)
            devices = self.execution.find_devices()
            origin = describe(dataset, devices) | {"launcher": self.launcher, "node": platform.node()}
            display = Display(Console(highlight=False, soft_wrap=True))  # into the engine's log
            with display.running([self.config]):
                minutes = self.execution.checkpoint_minutes
                run_one(self.config, dataset, self.folder, origin, display, minutes, devices)
        except Exception as error:
            traceback.print_exc()  # likewise
            return one_line(error)
        return None


@lru_cache(maxsize=1)
def _load(execution: Execution, name: str) -> Dataset:
    """The data set, read once by a process that trains many runs."""
    return execution.load(name)


def describe(dataset: Dataset, devices: Devices) -> dict[str, Any]:
    """The provenance of what this process trains on a data set."""
    origin = provenance(devices.describe())
    if dataset.note:  # such as that these are not the images that were asked for
        origin["note"] = dataset.note
    return origin


def run_one(
    config: RunConfig,
    dataset: Dataset,
    folder: Path,
    origin: dict,
    display: Display,
    checkpoint_minutes: float = 10.0,
    devices: Devices | None = None,
    number: int = 0,
) -> None:
    """Trains one configuration, the grid's `number`, from where its folder left off to its outcome.

    A run that another process is at is left to it.
    """
    run = records.find_run(folder, config)
    if run is not None and run.outcome is not None:
        display.skip(config)
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        return
    try:
        with hold(folder):
            run = records.open_run(folder, config, origin, display.warn)
            if run.outcome is None:
                checkpoints = Checkpoints(folder / "checkpoint", checkpoint_minutes, display.warn)
                _train_held(run, dataset, checkpoints, display, devices, number)
            else:  # the process that had it before has finished it meanwhile
                display.skip(config)
    except Held as held:
        display.held(config, str(held))


def _train_held(
    run: records.Run,
    dataset: Dataset,
    checkpoints: Checkpoints,
    display: Display,
    devices: Devices | None,
    number: int,
) -> None:
    """Trains a run that is this process' alone, or this job's."""
    position = checkpoints.find(run.config, len(run.epochs))
    if position.epochs < len(run.epochs) - 1:  # a kill costs the last record's checkpoint at most
        display.warn(f"{checkpoints.folder} has nothing after epoch {position.epochs}: later ones are trained again")
    records.keep_epochs(run.folder, position.epochs)
    display.start(run.config, position)
    announce(number)
    with postponed() as stop:
        try:
            for record in train(run.config, dataset, checkpoints, display.step, stop, devices):
                records.append(run.folder, record)
                display.epoch(record)
            outcome = {"outcome": "finished"}
        except Diverged as diverged:
            outcome = {"outcome": "diverged", "epoch": diverged.epoch, "step": diverged.step}
        except Interrupted:
            if stop():
                return  # and what was held back arrives
            raise Terminated from None  # it is another process of the job that was told to stop
        finally:
            checkpoints.close()
        records.append(run.folder, outcome)
        display.end(outcome)
        checkpoints.delete()


def _follow(folders: dict[RunConfig, Path], dataset: Dataset, checkpoint_minutes: float, devices: Devices) -> None:
    """Trains with process 0, which decides what, and records it."""
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
