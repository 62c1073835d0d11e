"""Data sets as arrays in memory: `load("cifar10")`.

Importing this package imports NumPy and nothing heavier; tensorflow-datasets, scikit-learn and rich come with the
first data set that needs them, and TensorFlow never.
"""

from dataclasses import replace
from pathlib import Path

from adamlab.data import cifar, digits, synthetic
from adamlab.data.dataset import DataError, Dataset

__all__ = ["NAMES", "DataError", "Dataset", "load"]

NAMES = ("auto", "cifar10", "cifar100", "digits", "synthetic")


def load(name: str, data_dir: str | Path | None = None) -> Dataset:
    """Loads a data set by name.

    `auto` is CIFAR-10 where it is prepared or can be fetched, else the digits, with a `note` that says so.

    Args:
      name: One of `NAMES`.
      data_dir: tensorflow-datasets' folder, for CIFAR; by default `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    Returns:
      The data set; its `name` is never "auto".

    Raises:
      ValueError: The name is none of `NAMES`.
      DataError: The data is missing and cannot be fetched, or is damaged.

    >>> load("digits").num_classes
    10
    """
    if name not in NAMES:
        raise ValueError(f"dataset must be one of {', '.join(NAMES)}, got {name!r}")
    if name == "auto":
        return _load_auto(data_dir)
    if name == "digits":
        return digits.load()
    if name == "synthetic":
        return synthetic.load()
    return cifar.load(name, data_dir)


def _load_auto(data_dir: str | Path | None) -> Dataset:
    try:
        cifar.prepare("cifar10", data_dir)
    except DataError as error:
        return replace(digits.load(), note=f"These are scikit-learn's 8x8 digits, NOT CIFAR-10: {error}.")
    return cifar.load("cifar10", data_dir)  # damaged records are an error, not a reason to train on something else
