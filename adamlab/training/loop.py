"""Trains one configuration, epoch by epoch."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from adamlab.config import RunConfig
from adamlab.data import Dataset
from adamlab.training.build import build_program
from adamlab.training.checkpoint import Checkpoints
from adamlab.training.feed import ArrayFeed, StreamFeed, make_feed
from adamlab.training.optimizers import traced
from adamlab.training.parallel import Devices
from adamlab.training.step import Arrays


class Diverged(Exception):
    """The loss stopped being a finite number. That is a result of a study, not a fault of the program.

    Args:
      epoch: The epoch, counted from 1, in which it happened.
      step: The step, counted from 1 over the whole run, whose loss was the first not to be finite.
    """

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__(f"the loss is not finite from step {step} (epoch {epoch}) on")
        self.epoch, self.step = epoch, step


def train(
    config: RunConfig,
    dataset: Dataset,
    checkpoints: Checkpoints | None = None,
    report: Callable[[int, int, float], None] = lambda epoch, step, loss: None,
    devices: Devices | None = None,
) -> Iterator[dict[str, Any]]:
    """Trains `config` and yields one record per epoch.

    The order of the images depends on the seed and the epoch alone, and a checkpoint falls on the end of an epoch: a
    resumed run executes the same programs on the same arrays as an uninterrupted one, to the same bits.

    Args:
      config: What to train.
      dataset: The data set that it names.
      checkpoints: Where the state is saved after each epoch but the last, and where an interrupted run is resumed
        from; None for neither.
      report: Called after every chunk of steps with the epoch, the steps done in it, and the chunk's mean loss.
      devices: What it is trained on; None for the first one. Their number does not change the numbers.

    Yields:
      `epoch` (from 1), `train_loss` (mean over the epoch's steps, nats), `test_loss`, `test_accuracy` (in [0, 1], every
      test image once), `seconds` (training and evaluation) and `images_per_second` (training alone); on traced epochs
      those of `adamlab.analysis.flattening.trace` on the first training images, and `trace_seconds`. A resumed run
      starts with the first epoch that the checkpoint does not hold.

    Raises:
      Diverged: The training or test loss became infinite or NaN.
    """
    protocol = config.protocol
    devices = devices or Devices()
    feed = make_feed(dataset, config, devices)
    program = build_program(config, dataset.num_classes, feed.image_shape, dataset.mean, dataset.std, devices)
    arguments = (np.int32(config.seed), traced(config))
    abstract = devices.abstract(jax.eval_shape(program.init, *arguments))
    restored = checkpoints.restore(abstract) if checkpoints else None
    done, state = restored or (0, program.init(*arguments))

    for epoch in range(done + 1, protocol.epochs + 1):
        started = time.perf_counter()
        state, train_loss = _train_epoch(program.train_chunk, state, feed, epoch, protocol.steps_per_epoch, report)
        trained = time.perf_counter()
        test_loss, test_accuracy = _evaluate(program.evaluate, state, feed)
        if not math.isfinite(test_loss):
            raise Diverged(epoch, epoch * protocol.steps_per_epoch)
        record = {
            "epoch": epoch,
            "train_loss": train_loss,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            "seconds": round(time.perf_counter() - started, 3),
            "images_per_second": round(protocol.steps_per_epoch * protocol.batch_size / (trained - started), 1),
        }
        if config.trace_every and epoch % config.trace_every == 0:
            record |= _trace(program.trace, state, feed.probe)
        yield record
        # After the yield: a record is on disk before the checkpoint that makes it final.
        if checkpoints and epoch < protocol.epochs:
            checkpoints.save(epoch, state)


def _train_epoch(
    train_chunk: Callable, state: Any, feed: ArrayFeed | StreamFeed, epoch: int, steps: int, report: Callable
) -> tuple[Any, float]:
    """The state after one epoch, and the mean of its steps' losses."""
    losses = []
    for chunk in feed.chunks(epoch):
        state, chunk_losses = train_chunk(state, *chunk)
        losses.extend(np.asarray(chunk_losses, np.float64))
        if not np.isfinite(losses).all():
            first = int(np.argmin(np.isfinite(losses)))
            raise Diverged(epoch, (epoch - 1) * steps + first + 1)
        report(epoch, len(losses), float(np.mean(losses[-len(chunk.seeds) :])))
    return state, float(np.mean(losses))


def _evaluate(evaluate: Callable, state: Any, feed: ArrayFeed | StreamFeed) -> tuple[float, float]:
    """Mean loss and accuracy over the images that the masks count."""
    loss, correct, count = 0.0, 0, 0
    for batches in feed.evaluation():
        sums = evaluate(state, batches)
        loss, correct = loss + float(sums["loss"]), correct + int(sums["correct"])
        count += int(sums["count"])
    return loss / count, correct / count


def _trace(trace: Callable, state: Any, probe: Arrays) -> dict[str, Any]:
    """What loss flattening shows at a state, as numbers that JSON can hold, and how long that took.

    The loss may be finite where its derivatives are not: None then.
    """
    started = time.perf_counter()
    measured = jax.device_get(trace(state, probe))
    numbers = jax.tree.map(lambda x: float(x) if np.isfinite(x) else None, measured)
    return numbers | {"trace_seconds": round(time.perf_counter() - started, 3)}
