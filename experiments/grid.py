"""Runs a grid of configurations: skips what is finished, resumes what was interrupted, goes on where one diverges."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from adamlab import records
from adamlab.command import Terminated, postponed
from adamlab.config import RunConfig
from adamlab.data import Dataset
from adamlab.training import Diverged, Interrupted, train
from adamlab.training.checkpoint import Checkpoints
from adamlab.training.cluster import announce, ends_together, leads
from adamlab.training.parallel import Devices
from experiments.display import Display

# What process 0 announces when there is nothing left to train.
END = -1


@ends_together()
def run_grid(
    configs: Sequence[RunConfig],
    dataset: Dataset,
    out: Path,
    display: Display,
    checkpoint_minutes: float = 10.0,
    devices: Devices | None = None,
) -> None:
    """Trains every configuration that is not finished yet, one after the other, into folders below `out`.

    Of a job with several processes, 0 does so; the others train with it what it tells them to.

    Raises:
      RecordsError: A folder holds another configuration. Nothing has been trained then.
      WriteError: The disk failed. What was recorded before is there.
    """
    devices = devices or Devices()
    folders = {config: records.run_folder(out, config) for config in configs}
    if not leads():
        _follow(folders, dataset, checkpoint_minutes, devices)
        return
    provenance = records.provenance(devices.describe())
    if dataset.note:  # such as that these are not the images that were asked for
        provenance["note"] = dataset.note
    for config, folder in folders.items():
        records.find_run(folder, config)  # refuses what is another's before anything is trained
    with display.running(configs):
        for number, (config, folder) in enumerate(folders.items()):
            run_one(config, dataset, folder, provenance, display, checkpoint_minutes, devices, number)
    announce(END)


def run_one(
    config: RunConfig,
    dataset: Dataset,
    folder: Path,
    provenance: dict,
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
        with records.hold(folder):
            run = records.open_run(folder, config, provenance, display.warn)
            if run.outcome is None:
                checkpoints = Checkpoints(folder / "checkpoint", checkpoint_minutes, display.warn)
                _train_held(run, dataset, checkpoints, display, devices, number)
            else:  # the process that had it before has finished it meanwhile
                display.skip(config)
    except records.Held as held:
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
