"""Trains configurations, one or several together, epoch by epoch."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from adamlab.config import RunConfig, difference
from adamlab.data import DataError, Dataset
from adamlab.hyperparameters import ConfigError
from adamlab.training.build import build_program
from adamlab.training.checkpoint import Checkpoints, Position
from adamlab.training.cluster import agree
from adamlab.training.feed import ArrayFeed, StreamFeed, make_feed
from adamlab.training.group import Diverged, Evaluation, Group, awaited
from adamlab.training.parallel import Devices


class Interrupted(Exception):
    """The training ended where it was asked to, before its end; the checkpoint is there to continue from."""


def train(
    config: RunConfig,
    dataset: Dataset,
    checkpoints: Checkpoints | None = None,
    report: Callable[[int, int, float], None] = lambda epoch, step, loss: None,
    stop: Callable[[], bool] = lambda: False,
    devices: Devices | None = None,
) -> Iterator[dict[str, Any]]:
    """Trains `config` and yields one record per epoch.

    ``for record in train(config, data.load("cifar10"), Checkpoints(Path("here"))): ...`` is the whole loop: stopped and
    called again, it goes on where it was.

    The order of the images depends on the seed and the epoch alone, and a checkpoint falls between two chunks of steps:
    a resumed run executes the same programs on the same arrays as an uninterrupted one, to the same bits (on a GPU with
    `--deterministic`).

    Args:
      config: What to train.
      dataset: The data set that it names.
      checkpoints: Where the state is saved when that is due, between epochs or within one, and when the run is
        stopped; and where an interrupted run is resumed from. None for neither.
      report: Called after every chunk of steps with the epoch, the steps done in it, and the chunk's mean loss.
      stop: Asked after every chunk of steps and every epoch but the last whether to end there.
      devices: What it is trained on; None for the first one. How many there are changes rounding alone, but for a
        configuration with a `norm_group`, which needs as many again.

    Yields:
      `epoch` (from 1), `train_loss` (mean over the epoch's steps, nats), `test_loss`, `test_accuracy` (in [0, 1], every
      test image once), `temperature` and `scaled_test_loss` (`adamlab.analysis.calibration`: the number by which logits
      are best divided, and the test loss then, nats), `seconds` (training and evaluation) and `images_per_second`
      (training alone); on traced epochs those of `adamlab.analysis.flattening.trace` on the first training images, and
      `trace_seconds`. A resumed run starts with the first epoch that the checkpoint does not hold.

    Raises:
      Diverged: The training or test loss, a parameter, a statistic or a moment became infinite or NaN.
      Interrupted: `stop` said so.
      ConfigError: The data set does not fit the configuration, or a batch the devices.
      DataError: An image cannot be decoded, or, where such are left out, none to evaluate on.
      RecordsError: A checkpoint is of another configuration or program, or cannot be read.
      WriteError: A checkpoint cannot be written.
    """
    for _, result in train_together([config], dataset, [checkpoints], report, stop, devices):
        if isinstance(result, Diverged):
            raise result
        yield result


def train_together(
    configs: Sequence[RunConfig],
    dataset: Dataset,
    checkpoints: Sequence[Checkpoints | None],
    report: Callable[[int, int, float], None] = lambda epoch, step, loss: None,
    stop: Callable[[], bool] = lambda: False,
    devices: Devices | None = None,
) -> Iterator[tuple[int, dict[str, Any] | Diverged]]:
    """Trains runs that differ in hyperparameters and seed alone, all in one program, as `train` does one.

    Several are vmapped: rounding is another than one by one. One that diverges is said to, has no records
    after that, and is computed to the end with the others.

    Args:
      configs: What to train.
      dataset: The data set that they name.
      checkpoints: Those of each run. The runs start together: all from the beginning, or from one position.
      report: As for `train`; the loss is the mean over the runs.
      stop: As for `train`.
      devices: One device for several runs.

    Yields:
      A run's place in `configs` and a record as `train`'s, or how the run diverged. `seconds` are those of all runs.

    Raises:
      Interrupted, DataError, RecordsError, WriteError: As for `train`.
      ConfigError: As for `train`; or, of several runs, they differ in something else, have several devices, or their
        images are not in memory.
      ValueError: The runs' checkpoints stand at several positions.
    """
    protocol, devices = configs[0].protocol, devices or Devices()
    for config in configs:
        alike = replace(configs[0], hyperparameters=config.hyperparameters, seed=config.seed)
        if config != alike:
            said = difference(alike, config)
            raise ConfigError(f"runs trained together must differ in hyperparameters and seed alone, got {said}")
    if len(configs) > 1 and devices.count > 1:
        raise ConfigError(f"runs trained together need one device, got {devices.count}")
    feed = make_feed(dataset, configs, devices)
    facts = dataset.num_classes, feed.image_shape, dataset.mean, dataset.std
    group = Group(configs, checkpoints, build_program(configs[0], *facts, devices, len(configs)), devices)

    def pause(saving: bool) -> None:
        stopping, saving = agree(stop(), saving)
        if stopping or saving:
            group.save()
        if stopping:
            raise Interrupted

    def after_chunk(done: int, loss: float) -> None:
        report(group.epochs + 1, done, loss)
        pause(group.due(epoch_ended=False) and done < protocol.steps_per_epoch)

    while group.running and group.epochs < protocol.epochs:
        yield from group.train_epoch(feed, after_chunk)
        if not group.running:
            return
        started = time.perf_counter()
        evaluations = _evaluate(group.program.evaluate, group.state, feed, len(configs))
        seconds = time.perf_counter() - started
        for place in sorted(group.running):
            if np.isfinite(evaluations[place].loss):
                yield place, group.record(place, evaluations[place], seconds, feed)
            else:
                yield group.drop(place, protocol.steps_per_epoch)
        group.positions = [Position(group.epochs + 1)] * len(configs)
        # After the yield: a record is on disk before the checkpoint that makes it final.
        if group.running and group.epochs < protocol.epochs:
            pause(group.due(epoch_ended=True))


def _evaluate(evaluate: Callable, state: Any, feed: ArrayFeed | StreamFeed, runs: int) -> list[Evaluation]:
    """Each run's, of the images that the masks count."""
    sums: dict[str, Any] = {"loss": 0.0, "correct": 0.0, "count": 0.0, "scaled_losses": 0.0}
    for batches in feed.evaluation():
        found = awaited(evaluate(state, batches))
        sums = {name: total + np.asarray(found[name], np.float64) for name, total in sums.items()}
    losses, correct, counts, scaled = (np.reshape(total, (runs, -1)) for total in sums.values())
    if not counts.all():
        raise DataError("none of the images to evaluate on can be decoded")
    columns = (losses / counts)[:, 0].tolist(), (correct / counts)[:, 0].tolist(), scaled / counts
    return [Evaluation(*row) for row in zip(*columns, strict=True)]
