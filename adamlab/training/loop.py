"""Trains one configuration, epoch by epoch."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamlab.config import RunConfig
from adamlab.data import DataError, Dataset
from adamlab.training.build import build_program
from adamlab.training.checkpoint import Checkpoints, Position
from adamlab.training.cluster import agree
from adamlab.training.feed import ArrayFeed, StreamFeed, make_feed
from adamlab.training.optimizers import traced
from adamlab.training.parallel import Devices
from adamlab.training.step import Arrays


class Diverged(Exception):
    """The training stopped being a matter of finite numbers. That is a result of a study, not a fault of the program.

    Args:
      epoch: The epoch, counted from 1, in which it happened.
      step: The step, counted from 1 over the whole run, whose loss was the first not to be finite; where the losses
        are finite and what the steps made of the parameters and moments is not, the last step before that was noticed.
    """

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__(f"not all numbers are finite from step {step} (epoch {epoch}) on")
        self.epoch, self.step = epoch, step


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

    The order of the images depends on the seed and the epoch alone, and a checkpoint falls between two chunks of steps:
    a resumed run executes the same programs on the same arrays as an uninterrupted one, to the same bits.

    Args:
      config: What to train.
      dataset: The data set that it names.
      checkpoints: Where the state is saved after each epoch but the last, within an epoch when that is due, and when
        the run is stopped; and where an interrupted run is resumed from. None for neither.
      report: Called after every chunk of steps with the epoch, the steps done in it, and the chunk's mean loss.
      stop: Asked after every chunk of steps and every epoch whether to end there.
      devices: What it is trained on; None for the first one. Their number does not change the numbers.

    Yields:
      `epoch` (from 1), `train_loss` (mean over the epoch's steps, nats), `test_loss`, `test_accuracy` (in [0, 1], every
      test image once), `seconds` (training and evaluation) and `images_per_second` (training alone); on traced epochs
      those of `adamlab.analysis.flattening.trace` on the first training images, and `trace_seconds`. A resumed run
      starts with the first epoch that the checkpoint does not hold.

    Raises:
      Diverged: The training or test loss, a parameter or a moment became infinite or NaN.
      Interrupted: `stop` said so.
      DataError: An image cannot be decoded, or, where such are left out, none to evaluate on.
    """
    protocol, steps = config.protocol, config.protocol.steps_per_epoch
    devices = devices or Devices()
    feed = make_feed(dataset, config, devices)
    program = build_program(config, dataset.num_classes, feed.image_shape, dataset.mean, dataset.std, devices)
    arguments = (np.int32(config.seed), traced(config))
    abstract = devices.abstract(jax.eval_shape(program.init, *arguments))
    restored = checkpoints.restore(config, abstract) if checkpoints else None
    position, state = restored or (Position(), program.init(*arguments))

    def after_chunk(position: Position, state: Any, loss: float) -> None:
        report(position.epochs + 1, len(position.losses), loss)
        stopping, due = agree(stop(), checkpoints is not None and checkpoints.due())
        if checkpoints and (stopping or (due and len(position.losses) < steps)):
            checkpoints.save(config, position, state)
        if stopping:
            raise Interrupted

    while position.epochs < protocol.epochs:
        epoch = position.epochs + 1
        position, state = _train_epoch(program.train_chunk, position, state, feed, steps, after_chunk)
        started = time.perf_counter()
        test_loss, test_accuracy = _evaluate(program.evaluate, state, feed)
        if not math.isfinite(test_loss):
            raise Diverged(epoch, epoch * steps)
        record = {
            "epoch": epoch,
            "train_loss": float(np.mean(position.losses)),
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            "seconds": round(position.seconds + time.perf_counter() - started, 3),
            "images_per_second": round(steps * protocol.batch_size / position.seconds, 1),
        }
        if config.trace_every and epoch % config.trace_every == 0:
            record |= _trace(program.trace, state, feed.probe)
        yield record
        position = Position(epoch)
        # After the yield: a record is on disk before the checkpoint that makes it final.
        if checkpoints and epoch < protocol.epochs:
            checkpoints.save(config, position, state)
        if epoch < protocol.epochs and agree(stop())[0]:
            raise Interrupted


def _train_epoch(
    train_chunk: Callable,
    position: Position,
    state: Any,
    feed: ArrayFeed | StreamFeed,
    steps: int,
    after_chunk: Callable,
) -> tuple[Position, Any]:
    """The position after the steps that an epoch still has, and the state there."""
    epoch, losses = position.epochs + 1, list(position.losses)
    started = time.perf_counter() - position.seconds
    for chunk in feed.chunks(epoch, len(losses)):
        state, chunk_losses = train_chunk(state, *chunk)
        done = len(losses)
        losses.extend(np.asarray(chunk_losses, np.float64).tolist())
        finite = np.isfinite(losses)
        if not finite.all():
            raise Diverged(epoch, (epoch - 1) * steps + int(np.argmin(finite)) + 1)
        if not _all_finite(state):
            raise Diverged(epoch, (epoch - 1) * steps + len(losses))
        position = Position(epoch - 1, tuple(losses), time.perf_counter() - started)
        after_chunk(position, state, float(np.mean(losses[done:])))
    return position, state


@jax.jit
def _all_finite(state: Any) -> jax.Array:
    """Whether no parameter, statistic or moment is infinite or NaN; a loss can be finite beside those."""
    floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in floats]).all()


def _evaluate(evaluate: Callable, state: Any, feed: ArrayFeed | StreamFeed) -> tuple[float, float]:
    """Mean loss and accuracy over the images that the masks count."""
    loss, correct, count = 0.0, 0, 0
    for batches in feed.evaluation():
        sums = evaluate(state, batches)
        loss, correct = loss + float(sums["loss"]), correct + int(sums["correct"])
        count += int(sums["count"])
    if count == 0:
        raise DataError("none of the images to evaluate on can be decoded")
    return loss / count, correct / count


def _trace(trace: Callable, state: Any, probe: Arrays) -> dict[str, Any]:
    """What loss flattening shows at a state, as numbers that JSON can hold, and how long that took.

    The loss may be finite where its derivatives are not: None then.
    """
    started = time.perf_counter()
    measured = jax.device_get(trace(state, probe))
    numbers = jax.tree.map(lambda x: float(x) if np.isfinite(x) else None, measured)
    return numbers | {"trace_seconds": round(time.perf_counter() - started, 3)}
