"""Runs a grid of configurations: skips what is finished, resumes what was interrupted, goes on where one diverges."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import jax

from adamlab import records
from adamlab.command import postponed
from adamlab.config import RunConfig
from adamlab.data import Dataset
from adamlab.training import Diverged, Interrupted, train
from adamlab.training.checkpoint import Checkpoints
from experiments.display import Display


def run_grid(
    configs: Sequence[RunConfig], dataset: Dataset, out: Path, display: Display, checkpoint_minutes: float = 10.0
) -> None:
    """Trains every configuration that is not finished yet, one after the other, into folders below `out`.

    Raises:
      RecordsError: A folder holds another configuration. Nothing has been trained then.
      WriteError: The disk failed. What was recorded before is there.
    """
    folders = {config: records.run_folder(out, config) for config in configs}
    provenance = records.provenance(describe_device())
    if dataset.note:  # such as that these are not the images that were asked for
        provenance["note"] = dataset.note
    for config, folder in folders.items():
        records.find_run(folder, config)  # refuses what is another's before anything is trained
    with display.running(configs):
        for config, folder in folders.items():
            run_one(config, dataset, folder, provenance, display, checkpoint_minutes)


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
