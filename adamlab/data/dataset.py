"""What a loader returns: two splits, NumPy arrays or files to be streamed; and the error that a person must see."""

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Split = dict[str, np.ndarray]
Moments = tuple[tuple[float, ...], tuple[float, ...]]


# Data sets that adamlab loads into memory; "auto" is one of the others.
NAMES = ("auto", "cifar10", "cifar100", "digits", "synthetic")


class DataError(Exception):
    """Data that is missing, damaged or unreachable. The message is one line for the person who asked for it."""


class Unavailable(DataError):
    """Data that is not here and cannot be had now. What is here and damaged is not that."""


@dataclass(frozen=True, eq=False)
class ArrayDataset:
    """A data set in memory.

    Args:
      name: What it is called on the command line, e.g. "cifar10".
      train: `image`, uint8 of shape (n, height, width, channels), and `label`, int32 of shape (n,).
      test: The same, to be evaluated on only.
      num_classes: Labels are in [0, num_classes).
      mean: Per channel, of training images scaled to [0, 1].
      std: Per channel, of training images scaled to [0, 1], over all pixels.
      note: What a person must be told about this data, or "".

    Raises:
      DataError: The arrays are not as described here.
    """

    name: str
    train: Split
    test: Split
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    note: str = ""

    def __post_init__(self) -> None:
        shape = self.train["image"].shape[1:]
        if not len(shape) == 3 or not len(self.mean) == len(self.std) == shape[2]:
            raise DataError(f"{self.name}: {len(self.mean)} channel means do not fit images of shape {shape}")
        for split, arrays in (("train", self.train), ("test", self.test)):
            _check_split(f"{self.name} {split}", arrays, shape, self.num_classes)

    @property
    def train_size(self) -> int:
        """Images in the training split."""
        return len(self.train["label"])

    @property
    def test_size(self) -> int:
        """Images in the test split."""
        return len(self.test["label"])

    @property
    def contents(self) -> str:
        """What tells it from another data set of its name: sizes, classes, and a checksum.

        It is of all labels and every hundredth image, since that of all images would take a part of each start.
        """
        checksum = 0
        for split in (self.train, self.test):
            for array in (split["label"], split["image"][::100]):
                checksum = zlib.crc32(array.tobytes(), checksum)
        return f"{_sizes(self)}, checksum {checksum:08x}"


@dataclass(frozen=True)
class Records:
    """Where the encoded images of a split are: array_record files of tensorflow-datasets.

    Args:
      paths: Of the files, in order.
      sizes: The records in each.
      image: The name of the feature that is an encoded image.
      label: The name of the feature that is its class.
    """

    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    image: str
    label: str


@dataclass(frozen=True, eq=False)
class StreamDataset:
    """A data set of photographs that stays on disk: images of any size, to be cut to one and the same.

    Args:
      name: What it is called on the command line, e.g. "imagenet2012".
      train: Its training images.
      test: Its images to be evaluated on only.
      num_classes: Labels are in [0, num_classes).
      mean: Per channel, of images scaled to [0, 1]; by it and `std` images are normalised.
      std: Per channel, of images scaled to [0, 1].
      note: What a person must be told about this data, or "".
      workers: Processes that decode images; 0 for threads of this one. It changes no pixel.
      skip_corrupt: Whether an image that cannot be decoded is left out and named, or an error.
      version: tensorflow-datasets' of it, or "".
    """

    name: str
    train: Records
    test: Records
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    note: str = ""
    workers: int = 0
    skip_corrupt: bool = False
    version: str = ""

    @property
    def train_size(self) -> int:
        """Images in the training split."""
        return sum(self.train.sizes)

    @property
    def test_size(self) -> int:
        """Images in the test split."""
        return sum(self.test.sizes)

    @property
    def contents(self) -> str:
        """What tells it from another data set of its name: the version, sizes and classes."""
        return f"version {self.version}, {_sizes(self)}"


Dataset = ArrayDataset | StreamDataset


def _sizes(dataset: Dataset) -> str:
    return f"{dataset.train_size} and {dataset.test_size} images of {dataset.num_classes} classes"


def data_folder(data_dir: str | Path | None) -> Path:
    """tensorflow-datasets' folder: what was asked for, else `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    Raises:
      DataError: It begins with the home of somebody who has none.
    """
    # tensorflow-datasets reads the variable too, but once and for all when it is imported.
    folder = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    try:
        return folder.expanduser()
    except RuntimeError:
        raise DataError(f"there is no home folder for {folder}: give --data-dir a whole path") from None


def _check_split(where: str, arrays: Split, shape: tuple[int, ...], num_classes: int) -> None:
    image, label = arrays["image"], arrays["label"]
    if image.dtype != np.uint8 or image.shape[1:] != shape:
        raise DataError(f"{where}: images are {image.dtype} of shape {image.shape[1:]}, expected uint8 of {shape}")
    if label.dtype != np.int32 or label.shape != image.shape[:1]:
        raise DataError(f"{where}: labels are {label.dtype} {label.shape}, expected int32 {image.shape[:1]}")
    if len(label) == 0:
        raise DataError(f"{where}: holds no images")
    if label.min() < 0 or label.max() >= num_classes:
        raise DataError(f"{where}: labels run from {label.min()} to {label.max()}, expected 0 to {num_classes - 1}")


def channel_moments(images: np.ndarray) -> Moments:
    """Mean and standard deviation of each channel over all images and pixels, for images scaled to [0, 1].

    Exact sums over the 256 levels that a pixel can have: no float copy of the images, no rounding.

    Args:
      images: uint8 of shape (n, height, width, channels).

    Returns:
      Means and standard deviations, one of each per channel.

    >>> channel_moments(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1))
    ((0.5,), (0.5,))
    """
    levels = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[-1]):
        frequency = np.bincount(images[..., channel].ravel(), minlength=256) / images[..., channel].size
        means.append(float(frequency @ levels))
        stds.append(float(np.sqrt(frequency @ (levels - means[-1]) ** 2)))
    return tuple(means), tuple(stds)
