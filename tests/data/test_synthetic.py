"""Synthetic images have the shape asked for, never change, and can be learned."""

import numpy as np
import pytest

import adamlab.data
from adamlab.data import synthetic


def test_default_has_cifars_shapes():
    data = adamlab.data.load("synthetic")
    assert data.train["image"].shape == (10_000, 32, 32, 3)
    assert data.test["image"].shape == (2_000, 32, 32, 3)
    assert (data.name, data.num_classes, data.note) == ("synthetic", 10, "")


def test_any_shape():
    data = synthetic.load(train_size=9, test_size=5, height=7, width=6, channels=2, num_classes=4)
    assert data.train["image"].shape == (9, 7, 6, 2)
    assert data.test["label"].tolist() == [0, 1, 2, 3, 0]
    assert len(data.mean) == len(data.std) == 2


def test_same_images_every_time_and_a_larger_set_begins_with_them():
    small, large = synthetic.load(train_size=50, test_size=20), synthetic.load(train_size=70, test_size=30)
    for split in ("train", "test"):
        n = len(getattr(small, split)["label"])
        np.testing.assert_array_equal(getattr(large, split)["image"][:n], getattr(small, split)["image"])
        np.testing.assert_array_equal(getattr(large, split)["label"][:n], getattr(small, split)["label"])
    assert not np.array_equal(large.train["image"][:20], small.test["image"])


def test_moments_are_those_of_two_uniform_sums():
    # A pixel is the sum of two uniform integers in 0..127: mean 127 / 255, variance 2 (128^2 - 1) / 12 / 255^2. The
    # patterns are 10 * 32 * 32 draws per channel, so their mean is off by 37 / 101 levels, one sigma; allow five.
    data = synthetic.load(train_size=500, test_size=1)
    np.testing.assert_allclose(data.mean, 127 / 255, atol=5 * 37 / 101 / 255)
    np.testing.assert_allclose(data.std, np.sqrt(2 * (128**2 - 1) / 12) / 255, rtol=0.03)


def test_nearest_class_mean_of_the_training_set_classifies_the_test_set():
    data = synthetic.load(train_size=200, test_size=100, height=8, width=8, channels=1)
    image, label = data.train["image"].astype(float), data.train["label"]
    means = np.stack([image[label == k].mean(0) for k in range(10)])
    distance = ((data.test["image"][:, None] - means[None]) ** 2).sum((2, 3, 4))
    assert (distance.argmin(1) == data.test["label"]).mean() > 0.95


@pytest.mark.parametrize("name", ["train_size", "test_size", "height", "width", "channels", "num_classes"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        synthetic.load(**{name: 0})
