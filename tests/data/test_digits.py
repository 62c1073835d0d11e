"""The bundled digits are scikit-learn's, in file order, with 16 levels stretched over a byte."""

import numpy as np
from sklearn.datasets import load_digits

import adamlab.data


def test_digits_are_scikit_learns():
    data = adamlab.data.load("digits")
    bunch = load_digits()
    image = np.concatenate([data.train["image"], data.test["image"]])
    label = np.concatenate([data.train["label"], data.test["label"]])

    assert (data.name, data.num_classes, data.note) == ("digits", 10, "")
    # rint(k * 255 / 16) differs from k * 255 / 16 by at most half a level of 255.
    np.testing.assert_allclose(image[..., 0] / 255, bunch["images"] / 16, atol=0.5 / 255)
    np.testing.assert_array_equal(label, bunch["target"])
    assert (image.min(), image.max(), len(np.unique(image))) == (0, 255, 17)


def test_digits_split_and_moments():
    data = adamlab.data.load("digits")
    assert data.train["image"].shape == (1437, 8, 8, 1)
    assert data.test["image"].shape == (360, 8, 8, 1)
    assert set(data.test["label"].tolist()) == set(range(10))
    scaled = data.train["image"].astype(np.float64) / 255
    np.testing.assert_allclose((data.mean[0], data.std[0]), (scaled.mean(), scaled.std()), rtol=1e-12)
