"""Runs a grid of configurations: skips what is finished, resumes what was interrupted, goes on where one diverges."""

import os
import platform
import traceback
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from adamlab import recording, records
from adamlab.config import RunConfig
from adamlab.data import Dataset, StreamDataset
from adamlab.files import RecordsError, make_folder
from adamlab.hyperparameters import ConfigError
from adamlab.provenance import provenance
from adamlab.training.checkpoint import Checkpoints
from adamlab.training.cluster import agree, announce, ends_together, leads
from adamlab.training.parallel import Devices, keep_compilations
from experiments.display import Display
from experiments.execution import Execution
from experiments.launch import Engine, first_line
from experiments.runs import END, clear, follow, run_together

# Seconds that an engine's task waits for a run's lock: NFS keeps that of a node that died for 90.
PATIENCE = 180.0


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
      RecordsError: A folder holds another configuration, or the study runs of another protocol, or its path is none
        that checkpoints can be in. Nothing has been trained then.
      ConfigError: Photographs are to be vmapped, or a job's processes were asked for different runs. The same.
      DataError: An image cannot be decoded.
      WriteError: The disk failed. What was recorded before is there.
      SystemExit: With status 1, after the last run: some failed on the engine.
    """
    folders = {config: records.run_folder(out, config) for config in configs}
    for folder in folders.values():
        Checkpoints(folder / "checkpoint")  # refuses the path
    if execution.vmap > 1 and isinstance(dataset, StreamDataset):
        raise ConfigError(f"--vmap is for images in memory, got {dataset.name}")
    if os.path.isfile(out):  # which, unlike Path's, says no of a name that is too long
        raise RecordsError(f"--out must be a folder, got {out}, which is a file")
    if leads():  # refuses what is another's before anything is trained
        for config, folder in folders.items():
            records.find_run(folder, config)
        recording.check_comparable(out, configs, dataset.contents, matmul_precision())
    if engine is not None:
        _launch(engine, folders, dataset, out, display, execution)
        return
    devices = execution.find_devices()
    _agree_on(configs, dataset, execution)
    if not leads():
        follow(folders, dataset, execution.checkpoint_minutes, devices)
        return
    origin = describe(dataset, devices) | ({"vmap": execution.vmap} if execution.vmap > 1 else {})
    with display.running(configs):
        for number, group in enumerate(_groups(folders, execution.vmap)):  # by which the job's other processes know it
            run_together(group, dataset, origin, display, execution.checkpoint_minutes, devices, number)
    announce(END)


def matmul_precision() -> str | None:
    """JAX's setting, by which float32 is float32 on a GPU or TPU, too; None for its default."""
    return jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]


def _agree_on(configs: Sequence[RunConfig], dataset: Dataset, execution: Execution) -> None:
    """Raises ConfigError in all processes of a job where they were asked for different things: numbers would mix."""
    asked = list(configs), dataset.name, dataset.contents, execution.spmd, matmul_precision()
    mine = zlib.crc32(repr(asked).encode()) >> 1  # as int32
    if agree(announce(mine) != mine)[0]:
        raise ConfigError("all processes of a job must have the same options and data: theirs differ")


def _groups(folders: dict[RunConfig, Path], size: int) -> list[dict[RunConfig, Path]]:
    """The runs in groups of up to `size`, each of unfinished runs that one program trains; in their order.

    What one program has in common is all but hyperparameters and seed.
    """
    groups: list[dict[RunConfig, Path]] = []
    filling: dict[RunConfig | tuple, dict[RunConfig, Path]] = {}
    names = [field.name for field in fields(RunConfig) if field.name not in ("hyperparameters", "seed")]
    for config, folder in folders.items():
        run = records.find_run(folder, config) if size > 1 else None
        alone = size == 1 or (run is not None and run.outcome is not None)
        program = config if alone else tuple(getattr(config, name) for name in names)
        if len(filling.get(program, {})) in (0, size):
            filling[program] = {}
            groups.append(filling[program])
        filling[program][config] = folder
    return groups


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
    make_folder(out)
    given = execution.data_dir or os.environ.get("TFDS_DATA_DIR")  # a node may have another environment
    execution = replace(execution, data_dir=Path(given).expanduser().absolute() if given else None)
    with display.running(list(folders)):
        tasks = []
        for config, folder in folders.items():
            run = records.find_run(folder, config)
            if run is not None and run.outcome is not None:
                display.skip(config)
                clear(folder)
            else:
                task = Task(config, folder.absolute(), execution, engine.name, dataset.note, matmul_precision())
                tasks.append(task)
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
      matmul_precision: JAX's setting where the study was started, which a node may not know.
    """

    config: RunConfig
    folder: Path
    execution: Execution
    launcher: str
    note: str
    matmul_precision: str | None

    def __call__(self) -> str | None:
        """Trains the run from where its folder left off; returns the line that says what went wrong, or None."""
        try:
            self.execution.prepare()
            jax.config.update("jax_default_matmul_precision", self.matmul_precision)
            keep_compilations()
            dataset = replace(_load(self.execution, self.config.dataset), note=self.note)
            devices = self.execution.find_devices(self.config.piece)
            origin = describe(dataset, devices) | {"launcher": self.launcher, "node": platform.node()}
            display = Display(Console(highlight=False, soft_wrap=True))  # into the engine's log
            with display.running([self.config]):
                minutes = self.execution.checkpoint_minutes
                run_together({self.config: self.folder}, dataset, origin, display, minutes, devices, patience=PATIENCE)
        except Exception as error:
            traceback.print_exc()  # likewise
            return first_line(error)
        return None


@lru_cache(maxsize=1)
def _load(execution: Execution, name: str) -> Dataset:
    """The data set, read once by a process that trains many runs."""
    return execution.load(name)


def describe(dataset: Dataset, devices: Devices) -> dict[str, Any]:
    """The provenance of what this process trains on a data set."""
    origin = provenance(devices.describe()) | {"classes": dataset.num_classes, "data": dataset.contents}
    if precision := matmul_precision():
        origin["matmul_precision"] = precision
    if dataset.note:  # such as that these are not the images that were asked for
        origin["note"] = dataset.note
    return origin
