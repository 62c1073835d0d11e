"""What images cost the host and the device, beside torch.utils.data where PyTorch is installed.

  python -m benchmarks.data                              # 500 x 375 JPEGs, about what ImageNet's are
  python -m benchmarks.data --workers=8 --images=4096 --peer=torch --output=data.json

Photographs: images/s of decoding, a random crop to 224 x 224 and mirroring. `adamlab` is what a run reads, through
Grain; `torch` a DataLoader over the same records, with plain Pillow code and its own collation; `alone` is ours in this
process, one image after the other. Both have `--workers` processes, which is what "per core" divides by; their start is
not counted. They take turns, and each begins its turn with images that do not count, until nothing is left of what was
made before. CIFAR: what a batch of 256 costs the device, gathered by its indices, and cropped and mirrored as well.
"""

import io
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import lax
from PIL import Image

from adamlab.command import Parser
from adamlab.data import load, synthetic
from adamlab.data.augment import crop_and_flip
from adamlab.data.pixels import random_box
from adamlab.data.plan import Plan
from adamlab.data.stream import PIECE, Source, read
from adamlab.protocol import Protocol
from benchmarks.timing import at_least, interleave, new_file, require_torch, summary, write
from tests.data import photos

SIZE, SHAPE = 224, (500, 375)
CIFAR_BATCH, CIFAR_STEPS = 256, 20


class TorchImages:
    """A map-style data set as a user of PyTorch writes it: Pillow, one image at a time."""

    def __init__(self, paths: list[str], sizes: list[int]) -> None:
        self.parts = [f"{path}[0:{size}]" for path, size in zip(paths, sizes, strict=True)]
        self.size, self.records = sum(sizes), None

    def __len__(self) -> int:
        return 10**7

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import torch
        from array_record.python.array_record_data_source import ArrayRecordDataSource
        from tensorflow_datasets.proto import tf_example_pb2

        self.records = self.records or ArrayRecordDataSource(self.parts)
        features = tf_example_pb2.Example.FromString(self.records[index % self.size]).features.feature
        image = Image.open(io.BytesIO(features["image"].bytes_list.value[0])).convert("RGB")
        generator = np.random.default_rng(index)
        left, top, width, height = random_box(*image.size, generator)
        image = image.crop((left, top, left + width, top + height)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        if generator.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(image)), features["label"].int64_list.value[0]


def write_photographs(folder: Path, count: int) -> None:
    """A set of JPEGs of one size, in 16 kinds: what is in them does not matter here, and encoding them takes time."""
    encoded = [photos.jpeg(SHAPE, "RGB", seed) for seed in range(16)]
    examples = {f"{number}.jpg": (encoded[number % len(encoded)], 0) for number in range(count)}
    photos.write(folder, {"train": examples, "test": dict([next(iter(examples.items()))])}, shards=1)


def programs(folder: Path, workers: int, peer: str | None) -> dict[str, Iterator[Any]]:
    """For each program its endless batches of `PIECE` images."""
    dataset: Any = load(photos.NAME, folder, workers=workers)
    batches = dataset.train_size // PIECE * PIECE
    protocol = Protocol("photographs", batches, test_images=1, batch_size=PIECE, augment=True, image_size=SIZE)
    source = Source(Plan(dataset, protocol, seed=0, pieces=1, test_batch=1), epochs=10**5)
    found = {"adamlab": (piece for piece in read(source) if len(piece["image"]) == PIECE)}
    if peer == "torch":
        from torch.utils.data import DataLoader

        images: Any = TorchImages(dataset.train.paths, dataset.train.sizes)
        found["torch"] = iter(DataLoader(images, PIECE, num_workers=workers, multiprocessing_context="spawn"))
    # Of an epoch's pieces the last one is the image to evaluate.
    per_epoch = batches // PIECE
    found["alone"] = (source[index] for index in range(10**9) if index % (per_epoch + 1) < per_epoch)
    return found


def take(batches: Iterator[Any], count: int) -> float:
    """Seconds for so many batches."""
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return time.perf_counter() - start


def compare_photographs(folder: Path, images: int, turns: int, workers: int, peer: str | None) -> dict[str, Any]:
    """Images/s of each program and of each core, turn by turn."""
    write_photographs(folder, images)
    found, count = programs(folder, workers, peer), math.ceil(images / PIECE)
    times: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(turns + 1):
        for name, batches in found.items():
            take(batches, 1 if name == "alone" else 12 * workers + 1)  # a worker has at most 6 ready
            seconds = take(batches, count)
            if turn:
                times[name].append(seconds)
    rows: dict[str, Any] = summary({name: np.array(seconds) for name, seconds in times.items()}, "adamlab")
    for name, row in rows.items():
        row["images_per_second"] = round(1e3 * count * PIECE / row["ms"], 1)
        row["per_core"] = round(row["images_per_second"] / (1 if name == "alone" else workers), 1)
    return rows


def compare_cifar(turns: int) -> dict[str, Any]:
    """What batches of CIFAR's size cost the device: gathered, and cropped and mirrored."""
    data = jax.device_put(synthetic.load(train_size=10_000, test_size=1).train["image"])
    order = np.random.default_rng(0).integers(0, len(data), (CIFAR_STEPS, CIFAR_BATCH)).astype(np.int32)
    seeds = np.arange(CIFAR_STEPS, dtype=np.uint32)

    def make(augment: Callable) -> Callable[[], Any]:
        def step(total: Any, inputs: tuple[Any, Any]) -> tuple[Any, None]:
            images = augment(jax.random.key(inputs[1]), data[inputs[0]])
            return total + images.astype(np.float32).mean(), None  # so that the images are made

        program = jax.jit(lambda order, seeds: lax.scan(step, np.float32(0), (order, seeds))[0])
        return lambda: program(order, seeds)

    times = interleave({"gather": make(lambda key, images: images), "crop and flip": make(crop_and_flip)}, turns)
    rows: dict[str, Any] = summary(times, "gather")
    for row in rows.values():
        row["images_per_second"] = round(1e3 * CIFAR_STEPS * CIFAR_BATCH / row["ms"], 1)
    return rows


def main() -> None:
    """Compares both kinds of images and prints a row per program."""
    parser = Parser("benchmarks.data", __doc__)
    parser.add_argument(
        "--images", type=at_least(PIECE), default=1024, help="photographs per turn (default: %(default)s)"
    )
    parser.add_argument("--workers", type=at_least(1), default=1, help="processes that decode (default: %(default)s)")
    parser.add_argument("--turns", type=at_least(1), default=5, help="turns of each program (default: %(default)s)")
    parser.add_argument("--peer", choices=("torch",), help="also time this one")
    parser.add_argument("--output", type=new_file, help="also write the figures to this JSON file")
    options = parser.parse_args()
    if options.peer == "torch":
        require_torch(parser)
    with tempfile.TemporaryDirectory() as folder:
        photographs = compare_photographs(Path(folder), options.images, options.turns, options.workers, options.peer)
    results = {"photographs": photographs, "cifar": compare_cifar(options.turns)}
    for kind, rows in results.items():
        print(f"{kind:15}{'images/s':>12}{'per core':>12}{'ms':>12}{'quartiles':>24}{'ratio':>9}")
        for name, row in rows.items():
            quartiles = f"{row['low']:.1f} - {row['high']:.1f}"
            core = row.get("per_core", "")
            print(
                f"{name:15}{row['images_per_second']:12.1f}{core:>12}{row['ms']:12.1f}{quartiles:>24}{row['ratio']:9.2f}"
            )
    write(options.output, {"workers": options.workers, "images": options.images} | results)


if __name__ == "__main__":
    main()
