"""What a run is trained and evaluated on, in pieces that a compiled program takes.

A chunk of steps is images on the device and, for each step, which of them make its batch. A data set in memory lives on
the device as a whole, and its chunks differ in their indices alone.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from adamlab.config import Protocol, RunConfig
from adamlab.data import Dataset
from adamlab.training.parallel import Devices
from adamlab.training.step import Arrays

# A chunk of steps is one call of the compiled program: long enough to hide the call, short enough to watch the loss
# and to notice an interrupt.
MAX_CHUNK = 25
EVALUATION_BATCH = 500
# Training images on which loss flattening is measured. A Hessian-vector product costs a few gradients, and an
# eigenvalue takes many of them.
PROBE = 100


class Chunk(NamedTuple):
    """The steps of one call of the compiled program.

    Args:
      data: `image` and `label` of n images.
      indices: The images of each step's batch, int32 (steps, batch).
      seeds: The seed of each step's augmentation, uint32 (steps,).
    """

    data: Arrays
    indices: np.ndarray
    seeds: np.ndarray


class ArrayFeed:
    """The feed of a data set in memory.

    Args:
      dataset: The data set that `config` names.
      config: What is trained: its protocol says how much, its seed in which order.
      devices: Where: each has all images to train on, and its share of those to evaluate on.
    """

    def __init__(self, dataset: Dataset, config: RunConfig, devices: Devices) -> None:
        self._protocol, self._seed = config.protocol, config.seed
        self._train = devices.replicate(subset(dataset.train, self._protocol.train_images))
        images = evaluation_images(dataset, self._protocol)
        self._evaluation = devices.split(padded_batches(images, EVALUATION_BATCH, devices.count))

    @property
    def probe(self) -> Arrays:
        """The first training images, always the same."""
        return {name: array[:PROBE] for name, array in self._train.items()}

    def chunks(self, epoch: int, done: int = 0) -> Iterator[Chunk]:
        """The chunks of an epoch, counted from 1, in an order that depends on seed and epoch alone.

        Args:
          epoch: Which.
          done: How many of its steps are left out, at its beginning: whole chunks.
        """
        steps = self._protocol.steps_per_epoch
        order = epoch_order(self._seed, epoch, self._protocol.train_images, steps, self._protocol.batch_size)
        seeds, size = augmentation_seeds(self._seed, epoch, steps), chunk_size(steps)
        for first in range(done, steps, size):
            yield Chunk(self._train, order[first : first + size], seeds[first : first + size])

    def evaluation(self) -> Iterator[Arrays]:
        """The images to evaluate on, as arrays (batches, batch, ...) with a `mask` that tells what is real."""
        yield self._evaluation


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


def padded_batches(split: dict[str, np.ndarray], batch_size: int, multiple: int = 1) -> dict[str, np.ndarray]:
    """A split as (batches, batch, ...), filled up with zeros, and a `mask` that tells what is real.

    Batches hold `batch_size` images, or all if there are fewer, and some more to be divisible by `multiple`.

    >>> padded_batches({"label": np.arange(5)}, 3)["mask"]
    array([[ True,  True,  True],
           [ True,  True, False]])
    """
    count = len(split["label"])
    batch_size = -(-min(batch_size, count) // multiple) * multiple
    filled = -(-count // batch_size) * batch_size
    batches = {}
    for name, array in (split | {"mask": np.ones(count, bool)}).items():
        padding = np.zeros((filled - count, *array.shape[1:]), array.dtype)
        batches[name] = np.concatenate([array, padding]).reshape(-1, batch_size, *array.shape[1:])
    return batches
