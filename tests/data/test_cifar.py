"""CIFAR is prepared and read as tensorflow-datasets has it, without TensorFlow, in an order that is everybody's."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

import adamlab.data
from adamlab.data import cifar
from adamlab.data.dataset import DataError, channel_moments
from tests.data.archives import write_archive


def _by_content(image, label):
    """Images and labels in the order of the images' SHA-256, by a route of our own."""
    order = np.argsort([hashlib.sha256(x.tobytes()).hexdigest() for x in image])
    return image[order], label[order]


def test_every_pixel_and_label_of_the_archive_arrives(archive, tmp_path):
    data = adamlab.data.load(archive.name, tmp_path / "data")

    for got, given in ((data.train, archive.train), (data.test, archive.test)):
        image, label = _by_content(given["image"], given["label"])
        assert got["image"].dtype == np.uint8
        assert got["label"].dtype == np.int32
        np.testing.assert_array_equal(got["image"], image)
        np.testing.assert_array_equal(got["label"], label)
    assert (data.name, data.note) == (archive.name, "")
    assert data.num_classes == len(archive.label_names["label"])


def test_what_is_prepared_is_what_tensorflow_datasets_prepares(archive, tmp_path):
    cifar.prepare(archive.name, tmp_path / "data")

    builder = tfds.builder(archive.name, data_dir=tmp_path / "data", file_format="array_record")
    source = builder.as_data_source(decoders={"image": tfds.decode.SkipDecoding()})
    for split, given in (("train", archive.train), ("test", archive.test)):
        assert len(source[split]) == len(given["image"])
        for example in source[split]:
            prefix, index = example["id"].decode().split("_")
            assert prefix == split
            assert all(example[feature] == given[feature][int(index)] for feature in archive.label_names)
    for feature, names in archive.label_names.items():
        assert builder.info.features[feature].names == names
    files = {path.name for path in builder.data_path.iterdir()}
    assert files == {
        "dataset_info.json",
        "features.json",
        *(f"{feature}.labels.txt" for feature in archive.label_names),
        *(f"{archive.name}-{split}.array_record-00000-of-00001" for split in ("train", "test")),
    }
    assert [path.name for path in (tmp_path / "data").iterdir()] == [archive.name]


def test_pixels_survive_tensorflow_datasets_own_decoder(cifar10, tmp_path, caplog):
    cifar.prepare("cifar10", tmp_path / "data")

    builder = tfds.builder("cifar10", data_dir=tmp_path / "data", file_format="array_record")
    for example in builder.as_data_source("train"):
        index = int(example["id"].decode().removeprefix("train_"))
        np.testing.assert_array_equal(example["image"], cifar10.train["image"][index])


def test_order_does_not_depend_on_who_wrote_the_records(tmp_path, serve):
    """Nor does that of images which are the same and have several labels."""
    first = serve(write_archive(tmp_path, "cifar10", alike=5))
    loaded = adamlab.data.load("cifar10", tmp_path / "first")

    # The same images under other ids, hence in another order on disk, and in three files.
    from adamlab.data.cifar_builder import Cifar10

    shuffled = np.random.default_rng(1).permutation(len(first.train["image"]))
    splits = {"train": {key: value[shuffled] for key, value in first.train.items()}, "test": first.test}
    other = Cifar10(data_dir=tmp_path / "other", file_format="array_record")
    other.splits, other.label_names, other.console = splits, first.label_names, None
    other.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=3))

    again = adamlab.data.load("cifar10", tmp_path / "other")
    assert len(list(other.data_path.glob("*-train*"))) == 3
    np.testing.assert_array_equal(again.train["image"], loaded.train["image"])
    np.testing.assert_array_equal(again.train["label"], loaded.train["label"])


def test_data_dir_defaults_to_the_environment(cifar10, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "environment"))
    adamlab.data.load("cifar10")
    assert (tmp_path / "environment" / "cifar10" / "3.0.2").is_dir()

    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    adamlab.data.load("cifar10")
    assert (tmp_path / "home" / "tensorflow_datasets" / "cifar10" / "3.0.2").is_dir()
    with pytest.raises(DataError, match="no home folder for ~nobody-of-that-name/data"):
        adamlab.data.load("cifar10", "~nobody-of-that-name/data")


def test_archive_can_be_given(tmp_path, serve):
    archive = serve(write_archive(tmp_path, "cifar10"), url="file:///nowhere.tar.gz")
    cifar.prepare("cifar10", tmp_path / "data", url=archive.url)
    assert len(adamlab.data.load("cifar10", tmp_path / "data").test["label"]) == len(archive.test["label"])


def test_sources_are_those_of_tensorflow_datasets():
    builders = {"cifar10": tfds.image_classification.Cifar10, "cifar100": tfds.image_classification.Cifar100}
    for name, builder in builders.items():
        source = cifar.SOURCES[name]
        assert {url: info.checksum for url, info in builder.url_infos.items()} == {source.url: source.sha256}


def test_tensorflow_is_not_imported_even_where_it_is_installed(tmp_path):
    """Prepares and loads in a process where importing TensorFlow would be an error."""
    archive = write_archive(tmp_path, "cifar10")
    digest = hashlib.sha256(archive.path.read_bytes()).hexdigest()
    (tmp_path / "site" / "tensorflow").mkdir(parents=True)
    (tmp_path / "site" / "tensorflow" / "__init__.py").write_text("raise SystemExit('TensorFlow was imported')")
    program = f"""
import sys, dataclasses, adamlab.data
heavy = {{"tensorflow_datasets", "sklearn", "rich", "PIL"}} & set(sys.modules)
assert not heavy, heavy
sources = adamlab.data.cifar.SOURCES
adamlab.data.cifar.SIZES = {{"train": 20, "test": 7}}
sources["cifar10"] = dataclasses.replace(sources["cifar10"], url={archive.url!r}, sha256={digest!r})
print(len(adamlab.data.load("cifar10", {str(tmp_path / "data")!r}).train["label"]))
assert "tensorflow" not in sys.modules
"""
    path = os.pathsep.join([str(tmp_path / "site"), os.getcwd()])
    run = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    # Nothing of tensorflow-datasets' chatter either: the number on stdout, our progress bars on stderr.
    assert (run.returncode, run.stdout) == (0, "20\n"), run.stderr
    assert [line.split("  ")[0].split(" ━")[0] for line in run.stderr.splitlines()] == [
        f"fetching {archive.path.name}",
        "writing train images",
        "writing test images",
    ]


def test_real_cifar10(real_data_dir):
    data = adamlab.data.load("cifar10", real_data_dir)

    # Krizhevsky (2009): 6,000 images of each class, 1,000 of them in the test set.
    np.testing.assert_array_equal(np.bincount(data.train["label"]), np.full(10, 5000))
    np.testing.assert_array_equal(np.bincount(data.test["label"]), np.full(10, 1000))
    mean, std = channel_moments(data.train["image"])
    assert (data.mean, data.std) == (pytest.approx(mean, abs=5e-5), pytest.approx(std, abs=6e-5))
    # The first images are a fair sample: of 5,000 images about 500 +- sqrt(5000 * .1 * .9) = 21 of each class.
    assert np.abs(np.bincount(data.train["label"][:5000]) - 500).max() < 5 * 21
