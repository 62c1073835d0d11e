"""The order of a run's images: pure functions of seed and epoch."""

import numpy as np


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


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of a number up to a limit.

    >>> largest_divisor(500, 25), largest_divisor(391, 25), largest_divisor(29, 25)
    (25, 23, 1)
    """
    return next(size for size in range(min(limit, number), 0, -1) if number % size == 0)
