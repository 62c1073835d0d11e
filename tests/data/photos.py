"""A small data set of photographs of real sizes, written by tensorflow-datasets itself."""

import io
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

NAME = "snapshots"
# Sizes and colour modes that ImageNet has, and the extremes.
KINDS = [((500, 375), "RGB"), ((375, 500), "L"), ((320, 240), "CMYK"), ((30, 20), "RGB"), ((400, 60), "RGB")]
HUGE = (3000, 2000)
CLASSES = 3


def jpeg(size: tuple[int, int], mode: str, seed: int) -> bytes:
    """An encoded image with structure on every scale: two waves and noise."""
    generator = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 9, size[0]), np.linspace(0, 9, size[1]))
    waves = [np.sin(a * x + b * y) for a, b in generator.uniform(0.2, 2, (len(mode), 2))]
    pixels = 128 + 90 * np.stack(waves, axis=-1) + generator.normal(0, 8, (size[1], size[0], len(mode)))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8).squeeze(), mode=None)
    buffer = io.BytesIO()
    (image if len(mode) != 4 else Image.frombytes("CMYK", size, image.tobytes())).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def photos(count: int, seed: int, huge: int = 0) -> dict[str, tuple[bytes, int]]:
    """Encoded images and labels by file name, of all `KINDS` in turn; the first `huge` ones are `HUGE`."""
    made = {}
    for number in range(count):
        size, mode = (HUGE, "RGB") if number < huge else KINDS[number % len(KINDS)]
        made[f"photo_{seed}_{number}.jpg"] = (jpeg(size, mode, 1000 * seed + number), number % CLASSES)
    return made


def write(folder: Path, splits: dict[str, dict[str, tuple[bytes, int]]], shards: int = 3, name: str = NAME) -> Path:
    """Writes `splits` below a tensorflow-datasets folder as array_record, into several files; returns where."""

    class Snapshots(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = folder  # tensorflow-datasets looks there for a description

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=CLASSES),
                "file_name": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(examples) for split, examples in splits.items()}

        def _generate_examples(self, examples):
            for file_name, (encoded, label) in examples.items():
                yield file_name, {"image": encoded, "label": label, "file_name": file_name}

    Snapshots.name = name
    config = tfds.download.DownloadConfig(num_shards=shards)
    builder = Snapshots(data_dir=folder, file_format="array_record")
    builder.download_and_prepare(download_dir=folder / "downloads", download_config=config)
    return builder.data_path


def damaged(folder):
    """A set whose photo number 7 is cut off and number 8 is no image at all; of its test images, number 2."""
    train, test = photos(32, seed=5), photos(5, seed=6)
    train["photo_5_7.jpg"] = (train["photo_5_7.jpg"][0][:2000], 1)
    train["photo_5_8.jpg"] = (b"not a JPEG", 2)
    test["photo_6_2.jpg"] = (test["photo_6_2.jpg"][0][:500], 2)
    write(folder, {"train": train, "test": test}, shards=2, name="damaged")
    return train, test
