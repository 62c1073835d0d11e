"""Small archives in CIFAR's original format."""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass
class Archive:
    """A CIFAR archive of random images, and what is in it."""

    name: str
    path: Path
    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    label_names: dict[str, list[str]]

    @property
    def url(self) -> str:
        return self.path.as_uri()


def write_archive(folder: Path, name: str, seed: int = 0, size: tuple[int, int] = (20, 7), alike: int = 0) -> Archive:
    """Writes an archive as www.cs.toronto.edu/~kriz/cifar.html describes the binary version, byte by byte.

    The first `alike` images of a split are one image, which has the labels 0, 1, 2, ...
    """
    rng = np.random.default_rng(seed)
    classes = {"cifar10": {"label": 10}, "cifar100": {"coarse_label": 20, "label": 100}}[name]
    names = {feature: [f"{feature}_{i}" for i in range(n)] for feature, n in classes.items()}
    splits, records = [], []
    for n in size:
        labels = {feature: rng.integers(0, k, n).astype(np.uint8) for feature, k in classes.items()}
        image = rng.integers(0, 256, (n, 32, 32, 3)).astype(np.uint8)
        image[:alike] = image[0]
        for label in labels.values():
            label[:alike] = range(alike)
        splits.append({"image": image, **labels})
        lines = []
        for i in range(n):
            red, green, blue = (image[i, :, :, channel].tobytes() for channel in range(3))
            lines.append(bytes(int(label[i]) for label in labels.values()) + red + green + blue)
        records.append(lines)
    train, test = records
    if name == "cifar10":
        files = {
            f"data_batch_{i + 1}.bin": train[i * n // 5 : (i + 1) * n // 5] for n in [len(train)] for i in range(5)
        }
        files |= {"test_batch.bin": test, "batches.meta.txt": _lines(names["label"])}
    else:
        files = {"train.bin": train, "test.bin": test}
        files |= {
            "coarse_label_names.txt": _lines(names["coarse_label"]),
            "fine_label_names.txt": _lines(names["label"]),
        }
    path = folder / f"{name}-{seed}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file, parts in files.items():
            entry = tarfile.TarInfo(f"cifar-binary/{file}")
            entry.size = len(b"".join(parts))
            archive.addfile(entry, io.BytesIO(b"".join(parts)))
    return Archive(name, path, *splits, names)


def _lines(names: list[str]) -> list[bytes]:
    return [f"{name}\n".encode() for name in names] + [b"\n"]
