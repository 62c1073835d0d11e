"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) through tensorflow-datasets, without TensorFlow.

Data that is missing is fetched, verified and prepared once, and decoded once; data that is damaged is refused by name.
Images come in the order of their SHA-256, so that "the first 3,000 training images" are the same ones for everybody,
whoever wrote the records, in whatever order and into however many files. (The records' ids would give the order of the
original archive, but prepared copies exist that number the images otherwise.)
"""

import hashlib
import io
import os
import tarfile
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adamlab.data.dataset import ArrayDataset, DataError, Split, Unavailable, data_folder
from adamlab.data.decoded import decode_once
from adamlab.data.download import fetch
from adamlab.files import one_line

SHAPE = (32, 32, 3)
SIZES = {"train": 50_000, "test": 10_000}


@dataclass(frozen=True)
class Source:
    """Where a data set comes from, and how its archive is laid out.

    Args:
      url: Of the original binary archive.
      sha256: Of that archive, as tensorflow-datasets ships it (`url_checksums/`).
      files: For each split, the files of its records, in order.
      label_files: For each label byte of a record, in order, the feature's name and the file of its classes' names.
      num_classes: Of the feature `label`.
      mean: Of each channel of the training images in [0, 1].
      std: Of each channel of the training images in [0, 1].
    """

    url: str
    sha256: str
    files: dict[str, list[str]]
    label_files: dict[str, str]
    num_classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


SOURCES = {
    "cifar10": Source(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        files={"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]},
        label_files={"label": "batches.meta.txt"},
        num_classes=10,
        # Computed over the 50,000 training images; a test computes them again.
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
    "cifar100": Source(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        files={"train": ["train.bin"], "test": ["test.bin"]},
        label_files={"coarse_label": "coarse_label_names.txt", "label": "fine_label_names.txt"},
        num_classes=100,
        # As published, e.g. in github.com/weiaicunzai/pytorch-cifar100, conf/global_settings.py.
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
    ),
}


def load(name: str, data_dir: str | Path | None = None) -> ArrayDataset:
    """Loads a whole data set, preparing it first where it is missing.

    Args:
      name: `cifar10` or `cifar100`.
      data_dir: tensorflow-datasets' folder; by default `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    Returns:
      The data set: 50,000 training and 10,000 test images of shape (32, 32, 3), in the order of their SHA-256.

    Raises:
      DataError: It is neither prepared nor can be, or what is there is damaged.
    """
    prepare(name, data_dir)
    source, builder = SOURCES[name], _builder(name, data_dir)
    folder = Path(builder.data_path)
    splits = decode_once(folder, lambda: {split: _read_split(builder, split) for split in ("train", "test")})
    return ArrayDataset(name, splits["train"], splits["test"], source.num_classes, source.mean, source.std)


def prepare(name: str, data_dir: str | Path | None = None, *, url: str | None = None) -> None:
    """Fetches a data set and writes it as array_record, unless that is done already.

    Everything happens in temporary folders that are renamed at the end: whenever this is interrupted, the next call
    starts over and no reader sees a part. Where nothing can be prepared, no folder is left behind.

    Args:
      name: `cifar10` or `cifar100`.
      data_dir: As for `load`.
      url: Where to fetch the archive instead, e.g. `file:///home/me/cifar-10-binary.tar.gz`.

    Raises:
      Unavailable: The archive cannot be fetched or is not the known one, or the folder cannot be written.
      DataError: What is there is damaged.
    """
    builder, root = _builder(name, data_dir), data_folder(data_dir)
    metadata = builder.data_path / "dataset_info.json"
    if builder.data_path.exists():
        if metadata.exists():  # asked second: another process may put the whole folder there at any time
            return
        raise DataError(f"{name} in {builder.data_path} is incomplete: delete that folder and run again")
    source = SOURCES[name]
    made = [folder for folder in (root, *root.parents) if not os.path.exists(folder)]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"incomplete.{name}.", dir=root) as scratch:
            archive = Path(scratch, Path(source.url).name)
            fetch(url or source.url, archive, source.sha256)
            builder.write(*_read_archive(archive, source), Path(scratch))
    except DataError as error:
        raise Unavailable(f"{name} is not prepared in {root}: {error}. {_advice(name)}") from error
    except (OSError, RuntimeError) as error:  # array_record's writer raises the latter, on a full disk for one
        if not metadata.exists():  # else another process was faster, and that is as good
            raise Unavailable(f"{name} could not be prepared in {root}: {one_line(error)}") from error
    finally:
        with suppress(OSError):  # something has been prepared; else a folder of a mistyped name does not stay
            for folder in made:
                folder.rmdir()


def _advice(name: str) -> str:
    return (
        f"With a network, `python -c \"import adamlab.data; adamlab.data.load('{name}')\"` prepares it; "
        "if it is prepared elsewhere, give its folder by TFDS_DATA_DIR or --data-dir"
    )


def _builder(name: str, data_dir: str | Path | None) -> Any:
    from adamlab.data import cifar_builder

    builder = {"cifar10": cifar_builder.Cifar10, "cifar100": cifar_builder.Cifar100}[name]
    try:
        return builder(data_dir=data_folder(data_dir), file_format="array_record")
    except Exception as error:  # a damaged or foreign dataset_info.json: the errors are those of several libraries
        raise DataError(
            f"{name} in {data_folder(data_dir) / name} cannot be read as array_record ({one_line(error)}): "
            "delete that folder or give another one by TFDS_DATA_DIR or --data-dir"
        ) from error


def _read_archive(path: Path, source: Source) -> tuple[dict[str, Split], dict[str, list[str]]]:
    """Parses the binary archive: the splits' arrays, and the classes' names of each label feature.

    A record is one byte per label, then 1,024 bytes each of red, green and blue, row by row
    (www.cs.toronto.edu/~kriz/cifar.html, "Binary version").
    """
    with tarfile.open(path) as archive:
        files = {Path(m.name).name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore
    names = {feature: files[file].decode().split() for feature, file in source.label_files.items()}
    splits = {}
    for split, parts in source.files.items():
        data = np.frombuffer(b"".join(files[part] for part in parts), np.uint8)
        labels, planes = np.split(data.reshape(-1, len(names) + 3072), [len(names)], axis=1)
        images = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        splits[split] = {"image": np.ascontiguousarray(images), **dict(zip(names, labels.T, strict=True))}
    return splits, names


def _read_split(builder: Any, split: str) -> Split:
    """Reads all shards of a split and puts their images in the order of their SHA-256."""
    metadata = builder.data_path / "dataset_info.json"
    try:
        paths = builder.info.splits[split].filepaths
    except Exception as error:  # what tensorflow-datasets raises depends on what is wrong
        raise _damaged(metadata, one_line(error)) from error
    images, labels, ids = [], [], set()
    for number, path in enumerate(paths):
        examples = _read_shard(builder, f"{split}[{number}shard]", path)
        ids.update(key for key, _, _ in examples)
        images += [image for _, image, _ in examples]
        labels += [label for _, _, label in examples]
        if len(ids) < len(images):  # of a file cut off at some places, array_record returns one record repeatedly
            raise _damaged(path, "records are missing")
    if len(images) != SIZES[split]:
        raise _damaged(metadata, f"{len(images):,} {split} images, expected {SIZES[split]:,}")
    order = sorted(range(len(images)), key=lambda i: (hashlib.sha256(images[i]).digest(), labels[i]))
    return {"image": np.stack([images[i] for i in order]), "label": np.array([labels[i] for i in order], np.int32)}


def _read_shard(builder: Any, shard: str, path: Path) -> list[tuple[bytes, np.ndarray, int]]:
    """Reads one file: ids, images and labels, as written."""
    import tensorflow_datasets as tfds
    from PIL.PngImagePlugin import PngImageFile
    from tensorflow_datasets.proto import tf_example_pb2

    parse = tf_example_pb2.Example.FromString  # pyright: ignore[reportAttributeAccessIssue]  (a generated class)
    examples = []
    try:
        # Decoding the records here takes half the time of tensorflow-datasets' decoder.
        records = builder.as_data_source(shard, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        for record in records.__getitems__(range(len(records))):
            feature = parse(record).features.feature
            image = np.asarray(PngImageFile(io.BytesIO(feature["image"].bytes_list.value[0])))
            label = feature["label"].int64_list.value[0]
            if image.dtype != np.uint8 or image.shape != SHAPE or not 0 <= label < SOURCES[builder.name].num_classes:
                raise ValueError(f"an image of {image.dtype} {image.shape} with label {label}")
            examples.append((feature["id"].bytes_list.value[0], image, label))
    except Exception as error:  # whatever array_record, protobuf or Pillow raise when they meet what they cannot read
        raise _damaged(path, one_line(error)) from error
    return examples


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is damaged ({reason}): delete the folder {path.parent} and run again to prepare it anew")
