"""Data sets, as arrays in memory or streamed from disk: `load("cifar10")`.

Importing this package imports NumPy and nothing heavier; tensorflow-datasets, Grain and rich come with the first data
set that needs them, and TensorFlow never.
"""

from dataclasses import replace
from pathlib import Path

from adamlab.data import cifar, digits, photographs, synthetic
from adamlab.data.dataset import (
    NAMES,
    ArrayDataset,
    DataError,
    Dataset,
    StreamDataset,
    Unavailable,
    channel_moments,
)

__all__ = ["NAMES", "ArrayDataset", "DataError", "Dataset", "StreamDataset", "channel_moments", "load"]


def load(
    name: str, data_dir: str | Path | None = None, workers: int | None = None, skip_corrupt: bool = False
) -> Dataset:
    """Loads a data set by name.

    `auto` is CIFAR-10 where it is prepared or can be fetched, else the digits, with a `note` that says so.

    Args:
      name: One of `NAMES`, which are loaded into memory; or `imagenet2012` or any other image classification set that
        tensorflow-datasets has prepared as array_record, which is streamed.
      data_dir: tensorflow-datasets' folder; by default `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
      workers: For what is streamed: processes that decode images; 0 for none, by default one for each CPU core.
      skip_corrupt: For what is streamed: whether an image that cannot be decoded is left out, or an error.

    Returns:
      The data set; its `name` is never "auto".

    Raises:
      DataError: The data is missing and cannot be fetched, or is damaged.

    >>> load("digits").num_classes
    10
    """
    if name not in NAMES:
        return photographs.load(name, data_dir, workers, skip_corrupt)
    if name == "auto":
        return _load_auto(data_dir)
    if name == "digits":
        return digits.load()
    if name == "synthetic":
        return synthetic.load()
    return cifar.load(name, data_dir)


def _load_auto(data_dir: str | Path | None) -> ArrayDataset:
    try:
        return cifar.load("cifar10", data_dir)
    except Unavailable as error:  # damage is an error, not a reason to train on something else
        return replace(digits.load(), note=f"These are scikit-learn's 8x8 digits, NOT CIFAR-10: {error}.")
