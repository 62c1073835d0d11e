"""What a run is trained and evaluated on, in pieces that a compiled program takes.

A chunk of steps is images on the device and, for each step, which of them make its batch. A data set in memory lives on
the device as a whole, and its chunks differ in their indices alone; of one on disk a chunk is the batches themselves,
and the next one is made while the device works on the last.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from adamlab.config import PROBE, RunConfig
from adamlab.data import ArrayDataset, Dataset, StreamDataset
from adamlab.data.batches import check_size, evaluation_images, padded_batches, subset
from adamlab.data.dataset import DataError
from adamlab.data.order import augmentation_seeds, epoch_order, largest_divisor
from adamlab.data.plan import Plan
from adamlab.data.stream import Source, read
from adamlab.files import RecordsError, one_line
from adamlab.hyperparameters import ConfigError
from adamlab.training.parallel import Devices, accelerator
from adamlab.training.step import Arrays

# A chunk of steps is one call of the compiled program: long enough to hide the call, short enough to watch the loss
# and to notice an interrupt. An accelerator's step of a small net takes a millisecond, and so does a chunk's end.
# A chunk has the largest divisor of an epoch's steps up to these, so that one program fits all.
MAX_CHUNK = 25
ACCELERATOR_CHUNK = 250
# So many bytes of images at most make a chunk of several steps: ImageNet's at batch 256 has 6 of them.
MAX_CHUNK_BYTES = 256 * 2**20
EVALUATION_BATCH = 500


class Chunk(NamedTuple):
    """The steps of one call of the compiled program.

    Args:
      data: `image` and `label` of n images; or, where `indices` is None, what `Devices.split` makes of the batches.
      indices: The images of each step's batch, int32 (steps, batch), or None.
      seeds: The seed of each step's augmentation, uint32 (steps,). Both have a leading axis of runs where there are
        several.
    """

    data: Arrays
    indices: np.ndarray | None
    seeds: np.ndarray


def make_feed(dataset: Dataset, configs: Sequence[RunConfig], devices: Devices) -> "ArrayFeed | StreamFeed":
    """The feed of a run, or of several that are trained at once.

    Raises:
      ConfigError: The data set is another than the configuration's, or has fewer images; the images have a size of
        their own and the protocol names one, or the other way round; or several runs would read them from a disk.
    """
    protocol = configs[0].protocol
    if dataset.name != configs[0].dataset:
        raise ConfigError(f"dataset must be the configuration's, {configs[0].dataset}, got {dataset.name}")
    check_size(protocol, dataset)
    size = protocol.image_size
    if isinstance(dataset, StreamDataset) != (size is not None):
        needs = "takes none, having images of one size" if size else "needs one, having images of any"
        raise ConfigError(f"image_size is for photographs: {dataset.name} {needs}, got {size}")
    if isinstance(dataset, ArrayDataset):
        return ArrayFeed(dataset, configs, devices)
    if len(configs) > 1:
        raise ConfigError(f"runs trained together need images in memory, got {dataset.name}")
    return StreamFeed(dataset, configs[0], devices)


class ArrayFeed:
    """The feed of a data set in memory.

    Args:
      dataset: The data set that the runs name.
      configs: What is trained: their protocol says how much, their seeds in which order.
      devices: Where: each has all images to train on, and its share of those to evaluate on.
    """

    def __init__(self, dataset: ArrayDataset, configs: Sequence[RunConfig], devices: Devices) -> None:
        self._protocol, self._seeds = configs[0].protocol, [config.seed for config in configs]
        self.image_shape = dataset.train["image"].shape[1:]
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
        protocol, steps = self._protocol, self._protocol.steps_per_epoch
        size = largest_divisor(steps, ACCELERATOR_CHUNK if accelerator() else MAX_CHUNK)
        orders = [epoch_order(seed, epoch, protocol.train_images, steps, protocol.batch_size) for seed in self._seeds]
        seeds = [augmentation_seeds(seed, epoch, steps) for seed in self._seeds]
        for first in range(done, steps, size):
            rows = slice(first, first + size)
            yield Chunk(
                self._train, _of_runs([order[rows] for order in orders]), _of_runs([row[rows] for row in seeds])
            )

    def evaluation(self) -> Iterator[Arrays]:
        """The images to evaluate on, as arrays (batches, batch, ...) with a `mask` that tells what is real."""
        yield self._evaluation


class StreamFeed:
    """The feed of a data set on disk: `adamlab.data.stream`'s workers, and on the devices one chunk ahead.

    Args:
      dataset: The data set that `config` names.
      config: What is trained: its protocol says how much, its seed in which order.
      devices: Where: each gets its share of every batch.
    """

    def __init__(self, dataset: StreamDataset, config: RunConfig, devices: Devices) -> None:
        protocol, processes = config.protocol, jax.process_count()
        rows = devices.count // processes
        test_batch = min(EVALUATION_BATCH // 2, -(-protocol.test_images // processes))
        self._plan = Plan(
            dataset=dataset,
            protocol=protocol,
            seed=config.seed,
            pieces=protocol.batch_size // config.piece,
            test_batch=-(-test_batch // rows) * rows,
            process=jax.process_index(),
            processes=processes,
        )
        self._devices, self._epoch = devices, 1
        self.image_shape = (self._plan.size, self._plan.size, 3)
        self._source = Source(self._plan, protocol.epochs)
        self._position, self._pieces, self._named = -1, iter(()), set()

    @property
    def probe(self) -> Arrays:
        """The first training images, always the same."""
        images = self._source.first_training_images(min(PROBE, self._plan.protocol.train_images))
        return self._devices.replicate({name: images[name] for name in ("image", "label")})

    def chunks(self, epoch: int, done: int = 0) -> Iterator[Chunk]:
        """The chunks of an epoch, counted from 1, in an order that depends on seed and epoch alone.

        Args:
          epoch: Which.
          done: How many of its steps are left out, at its beginning: whole chunks.

        Raises:
          DataError: An image cannot be decoded, or a worker died.
          RecordsError: `done` is no whole number of chunks.
        """
        plan, self._epoch = self._plan, epoch
        steps = plan.protocol.steps_per_epoch
        # By the whole batch: a run is continued at a whole chunk, perhaps by another number of processes.
        step_bytes = plan.protocol.batch_size * int(np.prod(self.image_shape))
        size = largest_divisor(steps, max(1, min(MAX_CHUNK, MAX_CHUNK_BYTES // step_bytes)))
        if done % size:  # the last chunk would end in the images to evaluate on
            raise RecordsError(f"a checkpoint must end a chunk of {size} steps, got {done}: of a version with others")
        seeds = augmentation_seeds(plan.seed, epoch, steps)

        def make(first: int) -> Chunk:
            position = self._source.position(epoch - 1, first)
            images = self._take(position, plan.share // self._source.train_piece, size)
            batches = {name: images[name] for name in ("image", "label")}
            return Chunk(self._devices.split(batches, plan.pieces, own=True), None, seeds[first : first + size])

        yield from _ahead(make, range(done, steps, size))

    def evaluation(self) -> Iterator[Arrays]:
        """The images to evaluate on, as arrays (batches, batch, ...) with a `mask` that tells what is real."""
        start = self._source.position(self._epoch - 1, self._plan.protocol.steps_per_epoch)
        per_batch = self._plan.test_batch // self._source.test_piece

        def make(batch: int) -> Arrays:
            return self._devices.split(self._take(start + batch * per_batch, per_batch, 1), own=True)

        yield from _ahead(make, range(self._plan.test_batches))

    def _take(self, position: int, pieces: int, batches: int) -> dict[str, np.ndarray]:
        """The next `pieces` pieces of each of `batches` batches, as arrays (batches, batch, ...)."""
        if position != self._position:  # the first one, or another than would have come next
            self._pieces = read(replace(self._source, start=position))
        try:
            taken = [next(self._pieces) for _ in range(pieces * batches)]
        except RuntimeError as error:  # Grain's, of a worker that has not reported an error of its own
            raise DataError(f"a worker that decodes images ended: {one_line(error)}; try fewer --workers") from error
        self._position = position + len(taken)
        for name in (name for piece in taken for name in piece["skipped"]):
            if name not in self._named:
                self._named.add(name)
                logging.getLogger(__name__).warning("left out: %s", name)
        names = ("image", "label", "mask")
        arrays = {name: np.concatenate([piece[name] for piece in taken]) for name in names}
        return {name: array.reshape(batches, -1, *array.shape[1:]) for name, array in arrays.items()}


def _of_runs(arrays: list[np.ndarray]) -> np.ndarray:
    """One run's array as it is, several runs' with a leading axis."""
    return arrays[0] if len(arrays) == 1 else np.stack(arrays)


def _ahead(make: Callable[[int], Any], numbers: range) -> Iterator[Any]:
    """What `make` makes of each number, in a thread that is one ahead of who takes it."""
    thread, coming = ThreadPoolExecutor(1), None
    try:
        for number in numbers:
            ready, coming = coming, thread.submit(make, number)
            if ready:
                yield ready.result()
        if coming:
            yield coming.result()
    finally:
        thread.shutdown(cancel_futures=True)
