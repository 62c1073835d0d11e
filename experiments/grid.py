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

import jax
from rich.console import Console

from adamlab import data, records
from adamlab.command import postponed
from adamlab.config import RunConfig
from adamlab.data import Dataset
from adamlab.training import Diverged, Interrupted, train
from adamlab.training.checkpoint import Checkpoints
from adamlab.training.parallel import keep_compilations
from experiments.display import Display
from experiments.launch import Engine, one_line


def run_grid(
    configs: Sequence[RunConfig],
    dataset: Dataset,
    out: Path,
    display: Display,
    engine: Engine | None = None,
    data_dir: Path | None = None,
    checkpoint_minutes: float = 10.0,
) -> None:
    """Trains every configuration that is not finished yet into folders below `out`.

    Args:
      configs: What to train.
      dataset: What to train on.
      out: The results folder.
      display: Tells a person.
      engine: Where to train; None for in this process, one run after the other.
      data_dir: Where an engine's processes find the data set, as for `adamlab.data.load`.

    Raises:
      RecordsError: A folder holds another configuration. Nothing has been trained then.
      WriteError: The disk failed. What was recorded before is there.
      SystemExit: With status 1, after the last run: some failed on the engine.
    """
    folders = {config: records.run_folder(out, config) for config in configs}
    for config, folder in folders.items():
        records.find_run(folder, config)  # refuses what is another's before anything is trained
    if engine is not None:
        _launch(engine, folders, dataset, out, display, data_dir, checkpoint_minutes)
        return
    provenance = describe(dataset)
    with display.running(configs):
        for config, folder in folders.items():
            run_one(config, dataset, folder, provenance, display, checkpoint_minutes)


def _launch(
    engine: Engine,
    folders: dict[RunConfig, Path],
    dataset: Dataset,
    out: Path,
    display: Display,
    data_dir: Path | None,
    checkpoint_minutes: float,
) -> None:
    """Gives an engine the runs that are not finished, and says of each how it ended.

    What is in the results folder says what has become of a run. JAX is not started here: it would take a GPU.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise records.WriteError(f"cannot write results to {out}: {error.strerror}") from None
    given = data_dir or os.environ.get("TFDS_DATA_DIR")  # a node may have another environment
    data_dir = Path(given).expanduser().absolute() if given else None
    with display.running(list(folders)):
        tasks = []
        for config, folder in folders.items():
            run = records.find_run(folder, config)
            if run is not None and run.outcome is not None:
                display.skip(config)
            else:
                tasks.append(Task(config, folder.absolute(), data_dir, checkpoint_minutes, engine.name, dataset.note))
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
      data_dir: Where the data set is, absolute; None where the node itself knows.
      checkpoint_minutes: How often a checkpoint is written within an epoch.
      launcher: The engine, for the records.
      note: The data set's, for the records.
    """

    config: RunConfig
    folder: Path
    data_dir: Path | None
    checkpoint_minutes: float
    launcher: str
    note: str

    def __call__(self) -> str | None:
        """Trains the run from where its folder left off; returns the line that says what went wrong, or None."""
        try:
            keep_compilations()
            dataset = replace(_load(self.config.dataset, self.data_dir), note=self.note)
            provenance = describe(dataset) | {"launcher": self.launcher, "node": platform.node()}
            display = Display(Console(highlight=False, soft_wrap=True))  # into the engine's log
            with display.running([self.config]):
                run_one(self.config, dataset, self.folder, provenance, display, self.checkpoint_minutes)
        except Exception as error:
            traceback.print_exc()  # likewise
            return one_line(error)
        return None


@lru_cache(maxsize=1)
def _load(name: str, data_dir: Path | None) -> Dataset:
    """The data set, read once by a process that trains many runs."""
    return data.load(name, data_dir)


def describe(dataset: Dataset) -> dict[str, Any]:
    """The provenance of what this process trains on a data set."""
    provenance = records.provenance(describe_device())
    if dataset.note:  # such as that these are not the images that were asked for
        provenance["note"] = dataset.note
    return provenance


def run_one(
    config: RunConfig,
    dataset: Dataset,
    folder: Path,
    provenance: dict,
    display: Display,
    checkpoint_minutes: float = 10.0,
) -> None:
    """Trains one configuration from where its folder left off to its outcome, unless another process is at it."""
    run = records.find_run(folder, config)
    if run is not None and run.outcome is not None:
        display.skip(config)
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        return
    try:
        with records.hold(folder):
            run = records.open_run(folder, config, provenance, display.warn)
            if run.outcome is None:
                checkpoints = Checkpoints(folder / "checkpoint", checkpoint_minutes, display.warn)
                _train_held(run, dataset, checkpoints, display)
            else:  # the process that had it before has finished it meanwhile
                display.skip(config)
    except records.Held as held:
        display.held(config, str(held))


def _train_held(run: records.Run, dataset: Dataset, checkpoints: Checkpoints, display: Display) -> None:
    """Trains a run that is this process' alone."""
    position = checkpoints.find(run.config, len(run.epochs))
    if position.epochs < len(run.epochs) - 1:  # a kill costs the last record's checkpoint at most
        display.warn(f"{checkpoints.folder} has nothing after epoch {position.epochs}: later ones are trained again")
    records.keep_epochs(run.folder, position.epochs)
    display.start(run.config, position)
    with postponed() as stop:
        try:
            for record in train(run.config, dataset, checkpoints, display.step, stop):
                records.append(run.folder, record)
                display.epoch(record)
            outcome = {"outcome": "finished"}
        except Diverged as diverged:
            outcome = {"outcome": "diverged", "epoch": diverged.epoch, "step": diverged.step}
        except Interrupted:
            return  # and what was held back arrives
        finally:
            checkpoints.close()
        records.append(run.folder, outcome)
        display.end(outcome)
        checkpoints.delete()


def describe_device() -> str:
    """The devices that train, as they call themselves: `1 x NVIDIA H200`, `1 x cpu`."""
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind}"
