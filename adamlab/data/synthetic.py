"""Images of any shape made from a fixed seed, for benchmarks and tests: learnable, but about nothing."""

import numpy as np

from adamlab.data.dataset import ArrayDataset, Split, channel_moments

SEED = 0


def load(
    train_size: int = 10_000,
    test_size: int = 2_000,
    height: int = 32,
    width: int = 32,
    channels: int = 3,
    num_classes: int = 10,
) -> ArrayDataset:
    """Generates images that are a pattern of their class plus noise, each uniform over 0 to 127.

    The same arguments give the same images, and more images begin with the same ones. Labels go round the classes.

    Args:
      train_size: Training images.
      test_size: Test images.
      height: Of an image, in pixels.
      width: Of an image, in pixels.
      channels: Of an image.
      num_classes: Classes.

    Returns:
      The data set. Mean and standard deviation are those of its training split.

    Raises:
      ValueError: A number is below 1.

    >>> load(train_size=6, test_size=2, height=4, width=5, channels=1, num_classes=3).train["label"]
    array([0, 1, 2, 0, 1, 2], dtype=int32)
    """
    for name, value in list(locals().items()):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    shape = (height, width, channels)
    patterns = np.random.default_rng(SEED).integers(0, 128, (num_classes, *shape), np.uint8)
    train, test = _split(patterns, train_size, SEED + 1), _split(patterns, test_size, SEED + 2)
    return ArrayDataset("synthetic", train, test, num_classes, *channel_moments(train["image"]))


def _split(patterns: np.ndarray, size: int, seed: int) -> Split:
    label = np.arange(size, dtype=np.int32) % len(patterns)
    noise = np.random.default_rng(seed).integers(0, 128, (size, *patterns.shape[1:]), np.uint8)
    return {"image": patterns[label] + noise, "label": label}
