"""Trains one configuration, epoch by epoch."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamlab.config import Protocol, RunConfig
from adamlab.data import Dataset
from adamlab.training.build import build_program
from adamlab.training.checkpoint import Checkpoints
from adamlab.training.optimizers import traced
from adamlab.training.step import Arrays

# A chunk of steps is one call of the compiled program: long enough to hide the call, short enough to watch the loss
# and to notice an interrupt.
MAX_CHUNK = 25
EVALUATION_BATCH = 500
# Training images on which loss flattening is measured. A Hessian-vector product costs a few gradients, and an
# eigenvalue takes many of them.
PROBE = 100


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

    Yields:
      `epoch` (from 1), `train_loss` (mean over the epoch's steps, nats), `test_loss`, `test_accuracy` (in [0, 1], every
      test image once), `seconds` (training and evaluation) and `images_per_second` (training alone); on traced epochs
      those of `adamlab.analysis.flattening.trace` on the first training images, and `trace_seconds`. A resumed run
      starts with the first epoch that the checkpoint does not hold.

    Raises:
      Diverged: The training or test loss became infinite or NaN.
    """
    protocol = config.protocol
    data = jax.device_put(subset(dataset.train, protocol.train_images))
    test = jax.device_put(padded_batches(evaluation_images(dataset, protocol), EVALUATION_BATCH))
    probe = {name: array[:PROBE] for name, array in data.items()}
    image_shape = dataset.train["image"].shape[1:]
    program = build_program(config, dataset.num_classes, image_shape, dataset.mean, dataset.std)
    arguments = (jnp.int32(config.seed), traced(config))
    restored = checkpoints.restore(jax.eval_shape(program.init, *arguments)) if checkpoints else None
    done, state = restored or (0, program.init(*arguments))

    for epoch in range(done + 1, protocol.epochs + 1):
        started = time.perf_counter()
        state, train_loss = _train_epoch(program.train_chunk, state, data, config, epoch, report)
        trained = time.perf_counter()
        test_loss, test_accuracy = _evaluate(program.evaluate, state, test)
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
            record |= _trace(program.trace, state, probe)
        yield record
        # After the yield: a record is on disk before the checkpoint that makes it final.
        if checkpoints and epoch < protocol.epochs:
            checkpoints.save(epoch, state)


def _train_epoch(
    train_chunk: Callable, state: Any, data: Arrays, config: RunConfig, epoch: int, report: Callable
) -> tuple[Any, float]:
    """The state after one epoch, and the mean of its steps' losses."""
    steps, losses = config.protocol.steps_per_epoch, []
    order = epoch_order(config.seed, epoch, config.protocol.train_images, steps, config.protocol.batch_size)
    seeds, chunks = augmentation_seeds(config.seed, epoch, steps), steps // chunk_size(steps)
    for indices, chunk_seeds in zip(np.split(order, chunks), np.split(seeds, chunks), strict=True):
        state, chunk_losses = train_chunk(state, data, indices, chunk_seeds)
        losses.extend(np.asarray(chunk_losses, np.float64))
        if not np.isfinite(losses).all():
            first = int(np.argmin(np.isfinite(losses)))
            raise Diverged(epoch, (epoch - 1) * steps + first + 1)
        report(epoch, len(losses), float(np.mean(losses[-len(indices) :])))
    return state, float(np.mean(losses))


def _evaluate(evaluate: Callable, state: Any, test: Arrays) -> tuple[float, float]:
    """Mean loss and accuracy over the images that the mask counts."""
    sums = evaluate(state, test)
    count = int(np.sum(np.asarray(test["mask"])))
    return float(sums["loss"]) / count, int(sums["correct"]) / count


def _trace(trace: Callable, state: Any, probe: Arrays) -> dict[str, Any]:
    """What loss flattening shows at a state, as numbers that JSON can hold, and how long that took.

    The loss may be finite where its derivatives are not: None then.
    """
    started = time.perf_counter()
    measured = jax.device_get(trace(state, probe))
    numbers = jax.tree.map(lambda x: float(x) if np.isfinite(x) else None, measured)
    return numbers | {"trace_seconds": round(time.perf_counter() - started, 3)}


def epoch_order(seed: int, epoch: int, images: int, steps: int, batch_size: int) -> np.ndarray:
    """The images of each step, int32 (steps, batch): a permutation that depends on seed and epoch alone.

    >>> epoch_order(seed=0, epoch=1, images=6, steps=3, batch_size=2).shape
    (3, 2)
    """
    order = np.random.default_rng([seed, epoch]).permutation(images)[: steps * batch_size]
    return order.astype(np.int32).reshape(steps, batch_size)


def augmentation_seeds(seed: int, epoch: int, steps: int) -> np.ndarray:
    """The seed of each step's augmentation, uint32 (steps,): as pure a function as `epoch_order`, and independent."""
    return np.random.default_rng([seed, epoch, 1]).integers(2**32, size=steps, dtype=np.uint32)


def chunk_size(steps: int) -> int:
    """Steps per call: the largest divisor of an epoch's steps up to `MAX_CHUNK`, so that one program fits all chunks.

    >>> chunk_size(500), chunk_size(14), chunk_size(391), chunk_size(29)
    (25, 14, 23, 1)
    """
    return next(size for size in range(min(MAX_CHUNK, steps), 0, -1) if steps % size == 0)


def subset(split: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """The first `count` examples of a split."""
    return {name: array[:count] for name, array in split.items()}


def evaluation_images(dataset: Dataset, protocol: Protocol) -> dict[str, np.ndarray]:
    """What a protocol evaluates on: the first test images, or the last training images, which it does not train on."""
    if protocol.evaluate_on == "test":
        return subset(dataset.test, protocol.test_images)
    return {name: array[-protocol.test_images :] for name, array in dataset.train.items()}


def padded_batches(split: dict[str, np.ndarray], batch_size: int) -> dict[str, np.ndarray]:
    """A split as (batches, batch, ...), filled up with zeros, and a `mask` that tells what is real.

    >>> padded_batches({"label": np.arange(5)}, 3)["mask"]
    array([[ True,  True,  True],
           [ True,  True, False]])
    """
    count = len(split["label"])
    batch_size = min(batch_size, count)
    filled = -(-count // batch_size) * batch_size
    batches = {}
    for name, array in (split | {"mask": np.ones(count, bool)}).items():
        padding = np.zeros((filled - count, *array.shape[1:]), array.dtype)
        batches[name] = np.concatenate([array, padding]).reshape(-1, batch_size, *array.shape[1:])
    return batches
