"""`load` knows the data sets by name, says what it fell back to, and checks whatever it returns."""

from dataclasses import replace

import numpy as np
import pytest

import adamlab.data
from adamlab.data import ArrayDataset, DataError, cifar
from adamlab.data.dataset import channel_moments


def test_unknown_name(tmp_path):
    with pytest.raises(
        DataError, match=f"cifar01 is not prepared in {tmp_path}. auto, cifar10, .* need no preparation"
    ):
        adamlab.data.load("cifar01", tmp_path)


def test_auto_takes_cifar10_where_it_can_be_had(cifar10, tmp_path):
    data = adamlab.data.load("auto", tmp_path / "data")
    assert (data.name, data.note) == ("cifar10", "")
    assert len(data.train["label"]) == len(cifar10.train["label"])


def test_auto_falls_back_to_digits_and_says_so(tmp_path, monkeypatch):
    unreachable = replace(cifar.SOURCES["cifar10"], url="http://127.0.0.1:9/cifar.tar.gz")
    monkeypatch.setitem(cifar.SOURCES, "cifar10", unreachable)
    data = adamlab.data.load("auto", tmp_path / "data")
    assert data.name == "digits"
    for hint in ("digits, NOT CIFAR-10", "http://127.0.0.1:9/cifar.tar.gz", "TFDS_DATA_DIR", "--data-dir"):
        assert hint in data.note
    assert "\n" not in data.note


def _dataset(image=None, label=None, **others):
    image = np.zeros((6, 4, 4, 3), np.uint8) if image is None else image
    label = np.array([0, 1, 2, 0, 1, 2], np.int32) if label is None else label
    good = {"image": np.zeros((2, 4, 4, 3), np.uint8), "label": np.array([0, 2], np.int32)}
    settings = {"num_classes": 3, "mean": (0.5,) * 3, "std": (0.2,) * 3} | others
    return ArrayDataset("made up", good, {"image": image, "label": label}, **settings)


def test_dataset_is_frozen():
    with pytest.raises(AttributeError):
        _dataset().name = "other"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"image": np.zeros((6, 4, 4, 3), np.float32)}, "images are float32"),
        ({"image": np.zeros((6, 4, 5, 3), np.uint8)}, r"expected uint8 of \(4, 4, 3\)"),
        ({"image": np.zeros((5, 4, 4, 3), np.uint8)}, r"labels are int32 \(6,\), expected int32 \(5,\)"),
        ({"label": np.zeros(6, np.int64)}, "labels are int64"),
        ({"label": np.array([0, 1, 2, 3, 0, 0], np.int32)}, "labels run from 0 to 3, expected 0 to 2"),
        ({"label": np.array([0, 1, 2, -1, 0, 0], np.int32)}, "labels run from -1 to 2"),
        ({"image": np.zeros((0, 4, 4, 3), np.uint8), "label": np.zeros(0, np.int32)}, "holds no images"),
        ({"mean": (0.5,)}, "1 channel means"),
    ],
)
def test_dataset_refuses_what_it_is_not(bad, said):
    with pytest.raises(DataError, match=said):
        _dataset(**bad)


def test_contents_tell_data_sets_of_one_name_apart():
    images, labels = np.zeros((6, 4, 4, 3), np.uint8), np.array([0, 1, 2, 0, 1, 2], np.int32)
    good = _dataset().train
    others = [
        _dataset(),
        _dataset(image=images + np.uint8(1)),
        _dataset(label=labels[::-1].copy()),
        _dataset(image=images[:5], label=labels[:5]),
        _dataset(num_classes=4),
        replace(_dataset(), train=good | {"label": np.array([0, 1], np.int32)}),
        replace(_dataset(), train=good | {"image": good["image"] + np.uint8(1)}),
    ]
    assert len({dataset.contents for dataset in others}) == len(others)
    assert _dataset().contents == _dataset(image=images, label=labels).contents
    assert _dataset().contents.startswith("2 and 6 images of 3 classes, checksum ")


def test_channel_moments_are_those_of_numpy():
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 6, 3)).astype(np.uint8)
    mean, std = channel_moments(images)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std((0, 1, 2)), rtol=1e-12)
