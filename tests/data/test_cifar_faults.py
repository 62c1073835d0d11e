"""Whatever is wrong with the data is said in one line that names it; nothing half-made is ever taken for whole."""

import io
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

import adamlab.data
from adamlab.data import DataError, cifar, cifar_builder


def _refused(name, folder) -> str:
    with pytest.raises(DataError) as caught:
        adamlab.data.load(name, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _assert_repaired(archive, folder):
    data = adamlab.data.load(archive.name, folder)
    assert data.train["image"].shape == archive.train["image"].shape
    assert data.test["image"].shape == archive.test["image"].shape


def test_truncated_archive(archive, tmp_path):
    whole = archive.path.read_bytes()
    archive.path.write_bytes(whole[: len(whole) // 2])
    assert "sha256" in _refused(archive.name, tmp_path / "data")
    assert not (tmp_path / "data").exists()

    archive.path.write_bytes(whole)
    _assert_repaired(archive, tmp_path / "data")


def test_wrong_checksum(cifar10, tmp_path, monkeypatch):
    source = cifar.SOURCES["cifar10"]
    with monkeypatch.context() as patch:
        patch.setitem(cifar.SOURCES, "cifar10", replace(source, sha256="0" * 64))
        (tmp_path / "there").mkdir()
        message = _refused("cifar10", tmp_path / "there" / "mistyped" / "data")
    assert f"their sha256 is {source.sha256}, expected {'0' * 64}" in message
    assert list((tmp_path / "there").iterdir()) == []
    _assert_repaired(cifar10, tmp_path / "data")


def test_missing_data_says_how_to_prepare_it(cifar10, tmp_path):
    cifar10.path.unlink()
    message = _refused("cifar10", tmp_path / "data")
    for hint in (str(tmp_path / "data"), cifar10.url, "adamlab.data.load('cifar10')", "TFDS_DATA_DIR", "--data-dir"):
        assert hint in message


def _at_the_fifth_image(action):
    """Stands in for the PNG encoder, and does something when the fifth image is to be written."""
    png, count = cifar_builder._png, iter(range(1, 1000))

    def encode(image):
        if next(count) == 5:
            action()
        return png(image)

    return encode


def test_interrupted_while_writing(cifar10, tmp_path, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cifar_builder, "_png", _at_the_fifth_image(interrupt))
        with pytest.raises(KeyboardInterrupt):
            adamlab.data.load("cifar10", tmp_path / "data")
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []
    _assert_repaired(cifar10, tmp_path / "data")


def test_killed_while_writing(cifar10, tmp_path):
    program = f"""
import dataclasses, os, signal
from adamlab.data import cifar, cifar_builder
source = dataclasses.replace(cifar.SOURCES["cifar10"], url={cifar10.url!r}, sha256={cifar.SOURCES["cifar10"].sha256!r})
cifar.SOURCES["cifar10"] = source
cifar_builder._png = lambda image: os.kill(os.getpid(), signal.SIGKILL)
cifar.prepare("cifar10", {str(tmp_path / "data")!r})
"""
    run = subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": os.getcwd()}, check=False)
    assert run.returncode == -signal.SIGKILL
    (left,) = (tmp_path / "data" / "cifar10").iterdir()
    assert left.name.startswith("incomplete.")
    _assert_repaired(cifar10, tmp_path / "data")


def test_another_process_was_faster(cifar10, tmp_path, monkeypatch):
    cifar.prepare("cifar10", tmp_path / "other")
    arrives = _at_the_fifth_image(
        lambda: shutil.copytree(tmp_path / "other" / "cifar10", tmp_path / "data" / "cifar10", dirs_exist_ok=True)
    )
    monkeypatch.setattr(cifar_builder, "_png", arrives)
    _assert_repaired(cifar10, tmp_path / "data")
    assert [path.name for path in (tmp_path / "data" / "cifar10").iterdir()] == ["3.0.2"]


def test_full_disk(cifar10, tmp_path, monkeypatch):
    """array_record's message when a write fails, as seen under a limit on the size of files."""

    def fail(*_, **__):
        raise RuntimeError("write() failed: File too large;\nFailed to close chunk_writer")

    with monkeypatch.context() as patch:
        patch.setattr(cifar_builder.Cifar10, "download_and_prepare", fail)
        assert "could not be prepared" in _refused("cifar10", tmp_path / "data")
    _assert_repaired(cifar10, tmp_path / "data")


def test_folder_that_cannot_be_made(cifar10, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert str(tmp_path / "file") in _refused("cifar10", tmp_path / "file" / "data")


@pytest.fixture
def prepared(cifar10, tmp_path):
    """The folder of a CIFAR-10 that is prepared and about to be damaged."""
    cifar.prepare("cifar10", tmp_path / "data")
    return tmp_path / "data" / "cifar10" / "3.0.2"


def _flip(data):
    data[1000] ^= 1  # in the first record; every record is covered by a checksum
    return data


DAMAGES = {
    "a flipped bit": _flip,
    "cut in the middle": lambda data: data[: len(data) // 2 + 1],
    "cut at a block": lambda data: data[: 1 << 16],
    "empty": lambda data: b"",
    "not an array_record": lambda data: b"<html>" * 20_000,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("split", ["train", "test"])
def test_damaged_shard(prepared, split, damage):
    shard = prepared / f"cifar10-{split}.array_record-00000-of-00001"
    shard.write_bytes(damage(bytearray(shard.read_bytes())))
    message = _refused("cifar10", prepared.parents[1])
    assert f"{shard} is damaged" in message


def test_damage_is_repaired_as_the_message_says(cifar10, prepared):
    (prepared / "cifar10-test.array_record-00000-of-00001").unlink()
    assert f"delete the folder {prepared} and run again" in _refused("cifar10", prepared.parents[1])
    shutil.rmtree(prepared)
    _assert_repaired(cifar10, prepared.parents[1])


@pytest.mark.parametrize(
    ("size", "mode", "label", "id", "said"),
    [
        ((16, 16), "RGB", 3, 6, "(16, 16, 3) with label 3"),
        ((32, 32), "L", 3, 6, "(32, 32) with label 3"),
        ((32, 32), "RGB", 10, 6, "(32, 32, 3) with label 10"),
        ((32, 32), "RGB", -1, 6, "(32, 32, 3) with label -1"),
        ((32, 32), "RGB", 3, 0, "records are missing"),
    ],
)
def test_whole_shard_with_wrong_contents(prepared, size, mode, label, id, said):
    shard = prepared / "cifar10-test.array_record-00000-of-00001"
    writer = ArrayRecordWriter(str(shard), "group_size:1")
    for index in range(7):  # six good records and the one in question
        last = index == 6
        png = io.BytesIO()
        Image.new(mode if last else "RGB", size if last else (32, 32)).save(png, "PNG")
        example = tf_example_pb2.Example()
        feature = example.features.feature
        feature["id"].bytes_list.value.append(b"test_%05d" % (id if last else index))
        feature["image"].bytes_list.value.append(png.getvalue())
        feature["label"].int64_list.value.append(label if last else index)
        writer.write(example.SerializeToString())
    writer.close()
    message = _refused("cifar10", prepared.parents[1])
    assert f"{shard} is damaged" in message
    assert said in message


@pytest.mark.parametrize("contents", ["", '{"name": "cifar10"', "{}"])
def test_damaged_metadata(prepared, contents):
    (prepared / "dataset_info.json").write_text(contents)
    assert str(prepared.parent) in _refused("cifar10", prepared.parents[1])


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ('"test"', '"tess"', "Unknown split 'test'"),
        ("FILEFORMAT", "FILUFORMAT", "FILUFORMAT"),
        ('"20"', '"10"', "10 train images, expected 20"),  # of a shard: array_record would read only so many
    ],
)
def test_metadata_that_does_not_fit_the_files(prepared, right, wrong, said):
    info = prepared / "dataset_info.json"
    info.write_text(info.read_text().replace(right, wrong))
    message = _refused("cifar10", prepared.parents[1])
    assert f"{info} is damaged" in message
    assert said in message


def test_missing_metadata(prepared):
    (prepared / "dataset_info.json").unlink()
    assert "is incomplete: delete that folder" in _refused("cifar10", prepared.parents[1])


def test_other_file_format(prepared):
    info = prepared / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    assert "cannot be read as array_record" in _refused("cifar10", prepared.parents[1])


def test_auto_does_not_pass_over_damage(prepared):
    shard = prepared / "cifar10-train.array_record-00000-of-00001"
    shard.write_bytes(np.random.default_rng(0).bytes(100_000))
    with pytest.raises(DataError, match="is damaged"):
        adamlab.data.load("auto", prepared.parents[1])
    (prepared / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match="delete that folder or give another one"):
        adamlab.data.load("auto", prepared.parents[1])
    (prepared / "dataset_info.json").unlink()
    with pytest.raises(DataError, match="is incomplete: delete that folder"):
        adamlab.data.load("auto", prepared.parents[1])


@pytest.mark.parametrize("look", [1, 2, 3])
def test_a_set_that_another_process_finishes_meanwhile_is_taken(prepared, monkeypatch, look):
    """Its folder appears just before one of this process' looks at it. After the last of them the set is fetched."""
    kind, elsewhere = type(cifar._builder("cifar10", prepared.parents[1]).data_path), prepared.with_name("elsewhere")
    exists, looks = kind.exists, 0
    prepared.rename(elsewhere)

    def watched(path, **options):
        nonlocal looks
        looks += str(path).startswith(str(prepared))
        if looks == look and elsewhere.is_dir():
            elsewhere.rename(prepared)
        return exists(path, **options)

    monkeypatch.setattr(kind, "exists", watched)
    try:
        cifar.prepare("cifar10", prepared.parents[1], url="file:///nowhere")
        message = ""
    except DataError as error:
        message = str(error)
    assert "incomplete" not in message
    assert prepared.is_dir() or "could not fetch file:///nowhere" in message


def test_any_damage_of_a_shard_is_refused_by_name_or_changes_nothing(prepared):
    """Where nothing is said, the bytes were padding: the images and labels are what they were."""
    shard = prepared / "cifar10-train.array_record-00000-of-00001"
    whole, before = shard.read_bytes(), adamlab.data.load("cifar10", prepared.parents[1])
    random, refused = np.random.default_rng(0), 0
    for _ in range(60):
        damaged = bytearray(whole)
        for place in random.integers(len(whole), size=random.integers(1, 4)):
            damaged[place] ^= random.integers(1, 256)
        shard.write_bytes(damaged[: random.integers(len(whole)) if random.integers(3) == 0 else None])
        try:
            data = adamlab.data.load("cifar10", prepared.parents[1])
        except DataError as error:
            refused += f"{shard} is damaged" in str(error)
        else:
            np.testing.assert_array_equal(data.train["image"], before.train["image"])
            np.testing.assert_array_equal(data.train["label"], before.train["label"])
    assert refused > 20
