"""Which images a process of a run wants from disk, and in which order."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from adamlab.data.dataset import StreamDataset
from adamlab.data.order import epoch_order


class Plan(NamedTuple):
    """Which images a process of a run wants, and how.

    A step's batch is cut into `pieces`, and each of them is shared out to the processes, as `Devices.split` does.

    Args:
      dataset: The data set.
      seed: Decides order, crops and flips.
      size: Side of the images, in pixels.
      augment: Whether training images are cropped and flipped at random; else they are cut as for evaluation.
      train_images: The first ones of the training split, to train on.
      batch_size: Images of a step.
      pieces: Into how many pieces a batch is cut.
      held_out: Whether to evaluate on the last training images in place of test images.
      test_images: How many to evaluate on.
      test_batch: Images of one process in a batch to evaluate.
      process: This process' number.
      processes: How many there are.
    """

    dataset: StreamDataset
    seed: int
    size: int
    augment: bool
    train_images: int
    batch_size: int
    pieces: int
    held_out: bool
    test_images: int
    test_batch: int
    process: int = 0
    processes: int = 1

    @property
    def steps(self) -> int:
        """Training steps in an epoch."""
        return self.train_images // self.batch_size

    @property
    def share(self) -> int:
        """Images of a step that are this process'."""
        return self.batch_size // self.processes

    @property
    def test_batches(self) -> int:
        """Batches to evaluate, the last one filled up."""
        return -(-self.test_images // (self.test_batch * self.processes))

    def order(self, epoch: int) -> np.ndarray:
        """The process' share of the images of each step, int32 (steps, share), as places in the training split."""
        return _order(self, epoch)

    def evaluated(self, batch: int) -> np.ndarray:
        """The process' share of a batch to evaluate, as places in its split; what fills the last one up has -1."""
        split_size = self.dataset.train_size if self.held_out else self.test_images
        first = (batch * self.processes + self.process) * self.test_batch
        places = np.arange(first, first + self.test_batch)
        return np.where(places < self.test_images, places + split_size - self.test_images, -1)


@lru_cache(maxsize=2)
def _order(plan: Plan, epoch: int) -> np.ndarray:
    order = epoch_order(plan.seed, epoch, plan.train_images, plan.steps, plan.batch_size)
    return order.reshape(plan.steps, plan.pieces, plan.processes, -1)[:, :, plan.process].reshape(plan.steps, -1)
