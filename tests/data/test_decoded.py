"""CIFAR is decoded once; what is kept is never another data set's, an older one's or a damaged one."""

import os
import shutil

import numpy as np
import pytest

import adamlab.data
from adamlab.data import DataError, cifar
from adamlab.data.decoded import decode_once
from adamlab.training.parallel import keep_compilations
from tests.data.archives import write_archive


@pytest.fixture
def decoded(monkeypatch):
    """The splits that are decoded, as they are."""
    splits, read = [], cifar._read_split
    monkeypatch.setattr(cifar, "_read_split", lambda builder, split: splits.append(split) or read(builder, split))
    return splits


def _assert_same(ours, theirs):
    for split in ("train", "test"):
        for feature in ("image", "label"):
            a, b = getattr(ours, split)[feature], getattr(theirs, split)[feature]
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def _kept(cache):
    (path,) = (cache / "adamlab" / "decoded").iterdir()
    return path


def test_the_second_load_decodes_nothing_and_is_the_first(archive, tmp_path, decoded):
    first = adamlab.data.load(archive.name, tmp_path / "data")
    second = adamlab.data.load(archive.name, tmp_path / "data")
    assert decoded == ["train", "test"]
    _assert_same(second, first)
    assert second.train["image"].flags.writeable == first.train["image"].flags.writeable


def test_a_folder_of_other_files_is_decoded_anew(tmp_path, serve, decoded, cache):
    """Another set in its place, and one with its files touched; only the newest copy is kept."""
    serve(write_archive(tmp_path, "cifar10"))
    before = adamlab.data.load("cifar10", tmp_path / "data")
    shutil.rmtree(tmp_path / "data")
    other = serve(write_archive(tmp_path, "cifar10", seed=1))
    after = adamlab.data.load("cifar10", tmp_path / "data")
    assert {image.tobytes() for image in after.train["image"]} == {image.tobytes() for image in other.train["image"]}
    assert not np.array_equal(after.train["image"], before.train["image"])
    os.utime(next((tmp_path / "data").rglob("*array_record*")), ns=(1, 1))
    _assert_same(adamlab.data.load("cifar10", tmp_path / "data"), after)
    assert decoded == 3 * ["train", "test"]
    _kept(cache)


def test_folders_have_copies_of_their_own(cifar10, tmp_path, decoded, cache):
    for folder in ("one", "two", "one", "two"):
        adamlab.data.load("cifar10", tmp_path / folder)
    assert decoded == 2 * ["train", "test"]
    assert len(list((cache / "adamlab" / "decoded").iterdir())) == 2


@pytest.mark.parametrize("damage", ["a bit", "cut off", "empty", "something else"])
def test_a_damaged_copy_is_replaced(damage, cifar10, tmp_path, decoded, cache):
    first = adamlab.data.load("cifar10", tmp_path / "data")
    whole = _kept(cache).read_bytes()
    place = whole.index(first.train["image"].tobytes()) + 1000
    changed = {
        "a bit": whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
        "cut off": whole[: len(whole) // 2],
        "empty": b"",
        "something else": b"not an archive of arrays",
    }
    _kept(cache).write_bytes(changed[damage])
    _assert_same(adamlab.data.load("cifar10", tmp_path / "data"), first)
    assert decoded == 2 * ["train", "test"]
    assert _kept(cache).read_bytes() == whole


def test_no_bit_of_a_copy_can_be_changed_for_another_set(cifar10, tmp_path, cache):
    """The archive's headers and directory, which have no checksum, as well as the arrays."""
    first = adamlab.data.load("cifar10", tmp_path / "data")
    splits = {"train": first.train, "test": first.test}
    [folder] = {path.parent for path in (tmp_path / "data").rglob("*array_record*")}
    whole = _kept(cache).read_bytes()
    assert decode_once(folder, dict) != {}  # from that copy
    places = np.random.default_rng(0).integers(8 * len(whole), size=60).tolist()
    directory = range(8 * whole.index(b"PK\x01\x02"), 8 * len(whole), 7)
    for place in (*places, *directory):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        _kept(cache).write_bytes(changed)
        found = decode_once(folder, lambda: splits)
        assert found.keys() == splits.keys()
        for split, arrays in splits.items():
            for feature, array in arrays.items():
                np.testing.assert_array_equal(found[split][feature], array)
        _kept(cache).write_bytes(whole)


def test_a_user_without_a_home_decodes_at_every_start(cifar10, tmp_path, decoded, monkeypatch):
    def homeless(cls):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", classmethod(homeless))
    first = adamlab.data.load("cifar10", tmp_path / "data")
    _assert_same(adamlab.data.load("cifar10", tmp_path / "data"), first)
    assert decoded == 2 * ["train", "test"]
    keep_compilations()  # which keeps none


def test_damaged_data_is_refused_though_there_is_a_copy(cifar10, tmp_path):
    adamlab.data.load("cifar10", tmp_path / "data")
    shard = next((tmp_path / "data").rglob("*train.array_record*"))
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(DataError, match="is damaged"):
        adamlab.data.load("cifar10", tmp_path / "data")


def test_where_nothing_can_be_kept_all_is_decoded(cifar10, tmp_path, decoded, cache):
    (cache / "adamlab").write_text("in the way")
    first = adamlab.data.load("cifar10", tmp_path / "data")
    _assert_same(adamlab.data.load("cifar10", tmp_path / "data"), first)
    assert decoded == 2 * ["train", "test"]
