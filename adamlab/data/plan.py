"""Which images a process of a run wants from disk, and in which order."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from adamlab.data.dataset import Records, StreamDataset
from adamlab.data.order import epoch_order
from adamlab.protocol import Protocol


class Plan(NamedTuple):
    """Which images a process of a run wants, and how.

    A step's batch is cut into `pieces`, and each of them is shared out to the processes, as `Devices.split` does.

    Args:
      dataset: The data set.
      protocol: How many to train and evaluate on, of which size, in which batches.
      seed: Decides order, crops and flips.
      pieces: Into how many pieces a batch is cut.
      test_batch: Images of one process in a batch to evaluate.
      process: This process' number.
      processes: How many there are.
    """

    dataset: StreamDataset
    protocol: Protocol
    seed: int
    pieces: int
    test_batch: int
    process: int = 0
    processes: int = 1

    @property
    def size(self) -> int:
        """Side of the images, in pixels."""
        return self.protocol.image_size or 0  # a feed refuses a protocol that names none

    @property
    def share(self) -> int:
        """Images of a step that are this process'."""
        return self.protocol.batch_size // self.processes

    @property
    def evaluated_split(self) -> Records:
        """The split that holds the images to evaluate on."""
        return self.dataset.train if self.protocol.evaluate_on == "validation" else self.dataset.test

    @property
    def test_batches(self) -> int:
        """Batches to evaluate, the last one filled up."""
        return -(-self.protocol.test_images // (self.test_batch * self.processes))

    def order(self, epoch: int) -> np.ndarray:
        """The process' share of the images of each step, int32 (steps, share), as places in the training split."""
        return _order(self, epoch)

    def evaluated(self, batch: int) -> np.ndarray:
        """The process' share of a batch to evaluate, as places in its split; what fills the last one up has -1."""
        count = self.protocol.test_images
        before = self.dataset.train_size - count if self.protocol.evaluate_on == "validation" else 0
        first = (batch * self.processes + self.process) * self.test_batch
        places = np.arange(first, first + self.test_batch)
        return np.where(places < count, before + places, -1)


@lru_cache(maxsize=2)
def _order(plan: Plan, epoch: int) -> np.ndarray:
    protocol, steps = plan.protocol, plan.protocol.steps_per_epoch
    order = epoch_order(plan.seed, epoch, protocol.train_images, steps, protocol.batch_size)
    return order.reshape(steps, plan.pieces, plan.processes, -1)[:, :, plan.process].reshape(steps, -1)
