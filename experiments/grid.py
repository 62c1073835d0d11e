"""Runs a grid of configurations: skips what is finished, resumes what was interrupted, goes on where one diverges."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import jax

from adamlab import records
from adamlab.config import RunConfig
from adamlab.data import Dataset
from adamlab.training import Diverged, train
from adamlab.training.checkpoint import Checkpoints
from experiments.display import Display


def run_grid(configs: Sequence[RunConfig], dataset: Dataset, out: Path, display: Display) -> None:
    """Trains every configuration that is not finished yet, one after the other, into folders below `out`.

    Raises:
      RecordsError: A folder holds another configuration or cannot be written. Nothing has been trained then, unless
        the disk failed on the way.
    """
    folders = {config: records.run_folder(out, config) for config in configs}
    provenance = records.provenance(describe_device())
    if dataset.note:  # such as that these are not the images that were asked for
        provenance["note"] = dataset.note
    for config, folder in folders.items():
        if folder.exists():
            records.open_run(folder, config, provenance)
    with display.running(configs):
        for config, folder in folders.items():
            run_one(config, dataset, folder, provenance, display)


def run_one(config: RunConfig, dataset: Dataset, folder: Path, provenance: dict, display: Display) -> None:
    """Trains one configuration from where its folder left off to its outcome, unless another process is at it."""
    run = records.open_run(folder, config, provenance)
    if run.outcome is None:
        try:
            with records.hold(folder):
                _train_held(config, dataset, folder, display)
        except records.Held as held:
            display.held(config, str(held))
    else:
        display.skip(config)
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)


def _train_held(config: RunConfig, dataset: Dataset, folder: Path, display: Display) -> None:
    """Trains a run that is this process' alone."""
    run = records.read_run(folder)
    if run.outcome is not None:  # the process that had it before has finished it meanwhile
        display.skip(config)
        return
    checkpoints = Checkpoints(folder / "checkpoint")
    done = checkpoints.latest_epoch() or 0
    if done > len(run.epochs):  # records were lost: no part of this run can be trusted
        checkpoints.delete()
        done = 0
    records.keep_epochs(folder, done)
    display.start(config, done)
    try:
        for record in train(config, dataset, checkpoints, display.step):
            records.append(folder, record)
            display.epoch(record)
        outcome = {"outcome": "finished"}
    except Diverged as diverged:
        outcome = {"outcome": "diverged", "epoch": diverged.epoch, "step": diverged.step}
    finally:
        checkpoints.close()
    records.append(folder, outcome)
    display.end(outcome)
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)


def describe_device() -> str:
    """The devices that train, as they call themselves: `1 x NVIDIA H200`, `1 x cpu`."""
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind}"
