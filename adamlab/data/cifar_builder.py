"""tensorflow-datasets' CIFAR builders, taught to prepare without TensorFlow.

tensorflow-datasets writes and reads array_record without TensorFlow; its CIFAR builders need it for two things only,
`tf.io.gfile` to read the original archive and an op to encode an image as PNG. The builders here override a builder's
two documented methods, `_split_generators` and `_generate_examples`, and yield images that are PNG already. All else
is tensorflow-datasets' own: features, order of the records, shards, metadata, and the temporary folder that gets its
name when everything is written. What they write is what any tensorflow-datasets reads, and nobody installs 600 MB of
TensorFlow to convert 60,000 small images once.

Importing this module imports tensorflow-datasets, which takes a second: `adamlab.data.cifar` does so when it must.
"""

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from rich.console import Console
from rich.progress import track

from adamlab.data.dataset import Split


class _FromArrays:
    """Makes a builder write arrays instead of downloading them."""

    info: Any
    splits: dict[str, Split]
    label_names: dict[str, list[str]]

    def write(self, splits: dict[str, Split], label_names: dict[str, list[str]], scratch: Path) -> None:
        """Writes the data set into the builder's `data_dir`, with a progress bar on standard error.

        Args:
          splits: For `train` and `test`, `image` (uint8) and each label feature (integers), in CIFAR's order.
          label_names: For each label feature, the classes' names.
          scratch: A folder for whatever tensorflow-datasets leaves behind.
        """
        self.splits, self.label_names = splits, label_names
        self.console = Console(file=sys.stderr)
        # tensorflow-datasets' own bars and remarks would be drawn across ours.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            self.download_and_prepare(download_dir=scratch)  # type: ignore[attr-defined]

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        for feature, names in self.label_names.items():
            self.info.features[feature].names = names
        return {split: self._generate_examples(split, arrays) for split, arrays in self.splits.items()}

    def _generate_examples(self, split: str, arrays: Split) -> Iterator[tuple[int, dict[str, Any]]]:
        images = track(arrays["image"], f"writing {split} images", console=self.console)
        for index, image in enumerate(images):
            labels = {feature: int(arrays[feature][index]) for feature in self.label_names}
            # The key decides the order on disk, the id says the original one; both as tensorflow-datasets has them.
            yield index, {"id": f"{split}_{index:05d}", "image": _png(image), **labels}


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


class Cifar10(_FromArrays, tfds.image_classification.Cifar10, skip_registration=True):
    """CIFAR-10, prepared from arrays."""


class Cifar100(_FromArrays, tfds.image_classification.Cifar100, skip_registration=True):
    """CIFAR-100, prepared from arrays."""
