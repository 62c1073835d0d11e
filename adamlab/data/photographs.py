"""ImageNet, and any other image classification set that tensorflow-datasets has prepared as array_record.

Nothing is read here but what tensorflow-datasets says of the set: its images stay on disk, and `adamlab.data.stream`
reads them while a run trains. TensorFlow is not imported.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from adamlab.data.dataset import NAMES, DataError, Records, StreamDataset, data_folder
from adamlab.files import one_line

# Of ImageNet's training images, as in github.com/facebookarchive/fb.resnet.torch, datasets/imagenet.lua.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load(
    name: str, data_dir: str | Path | None = None, workers: int | None = None, skip_corrupt: bool = False
) -> StreamDataset:
    """Finds a prepared data set; its images stay where they are.

    Args:
      name: As tensorflow-datasets calls it: `imagenet2012`, `imagenette/320px-v2`, also with a version, `name:1.0.0`.
      data_dir: tensorflow-datasets' folder; by default `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
      workers: Processes that decode images, or 0; by default one for each CPU core.
      skip_corrupt: Whether images that cannot be decoded are left out.

    Returns:
      The data set: its split `train`, and to be evaluated on `validation` if there is one (ImageNet's test labels are
      secret), else `test`.

    Raises:
      DataError: It is not there, or is no image classification set in array_record.
    """
    if not re.fullmatch(r"[\w./:+-]+", name):
        raise DataError(f"a data set must be one of {', '.join(NAMES)} or a name of tensorflow-datasets, got {name!r}")
    # tensorflow-datasets takes most of a second to import.
    from tensorflow_datasets.core.read_only_builder import builder_from_files
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    root = data_folder(data_dir)
    try:
        info: Any = builder_from_files(name, data_dir=str(root)).info
        splits, features = dict(info.splits), info.features
    except DatasetNotFoundError:
        raise DataError(f"{name} is not prepared in {root}. {_advice(name)}") from None
    except Exception as error:  # for a name or metadata that it cannot read, tensorflow-datasets raises many kinds
        raise DataError(f"{name} in {root} cannot be read: {one_line(error)}") from error
    keys = info.supervised_keys
    test = next((split for split in ("validation", "test") if split in splits), None)
    kinds = [type(features[key]).__name__ for key in keys] if keys and len(keys) == 2 else []
    # Of 16 bits Pillow would keep the brightest 255 levels of 65,536.
    is_set = kinds == ["Image", "ClassLabel"] and features[keys[0]].np_dtype == np.uint8
    if not is_set or "train" not in splits or test is None:
        expected = "(image, label) of 8 bits a channel, with the splits train and validation or test"
        raise DataError(f"{name} in {info.data_dir} is no image classification set: expected {expected}")
    file_format = getattr(info.file_format, "value", info.file_format)
    if file_format != "array_record":
        raise DataError(f"{name} in {info.data_dir} is prepared as {file_format}, not array_record. {_advice(name)}")
    note = "Images that cannot be decoded are left out (--skip-corrupt)." if skip_corrupt else ""
    train, evaluated = (_records(name, splits[split], keys) for split in ("train", test))
    num_classes = features[keys[1]].num_classes
    workers = available_cores() if workers is None else workers
    version = str(info.version)
    return StreamDataset(name, train, evaluated, num_classes, MEAN, STD, note, workers, skip_corrupt, version)


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _advice(name: str) -> str:
    how = (
        f"{', '.join(NAMES)} need no preparation; `tfds build --file_format=array_record`, with TensorFlow, does others"
    )
    if name.startswith("imagenet2012"):
        how = "ImageNet has to be downloaded by hand; docs/imagenet.md says how to prepare it"
    return f"{how}; if it is prepared elsewhere, give that folder by TFDS_DATA_DIR or --data-dir"


def _records(name: str, split: Any, keys: tuple[str, str]) -> Records:
    paths = tuple(str(path) for path in split.filepaths)
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise DataError(f"{name} lacks {len(missing)} of the {len(paths)} files of {split.name}, first {missing[0]}")
    return Records(paths, tuple(split.shard_lengths), *keys)
