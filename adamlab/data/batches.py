"""Parts of a data set in memory: what is trained and evaluated on, and in which batches."""

import numpy as np

from adamlab.data.dataset import ArrayDataset, Dataset
from adamlab.hyperparameters import ConfigError
from adamlab.protocol import Protocol


def check_size(protocol: Protocol, dataset: Dataset) -> None:
    """Raises ConfigError where a data set has fewer images than a protocol asks for, its held-out ones included."""
    held_out = protocol.evaluate_on == "validation"
    available = {
        "test_images": dataset.train_size if held_out else dataset.test_size,
        "train_images": dataset.train_size - (protocol.test_images if held_out else 0),
    }
    for name, count in available.items():
        if getattr(protocol, name) > count:
            raise ConfigError(f"{name} must be at most {count} for {dataset.name}, got {getattr(protocol, name)}")


def subset(split: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """The first `count` examples of a split."""
    return {name: array[:count] for name, array in split.items()}


def evaluation_images(dataset: ArrayDataset, protocol: Protocol) -> dict[str, np.ndarray]:
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
