"""Handwritten digits that are always at hand: the 1,797 real images which scikit-learn has, too.

8x8 pixels and 17 grey levels, from the test set of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak,
UCI Machine Learning Repository, 1998, CC BY 4.0). They lie in this package as `digits.npz`, since importing
scikit-learn would take a second or two of every start.
"""

from pathlib import Path

import numpy as np

from adamlab.data.dataset import ArrayDataset, channel_moments

TRAIN_SIZE = 1437


def load() -> ArrayDataset:
    """Loads the digits, split in file order: the first 1,437 images for training, the last 360 for testing.

    Returns:
      The data set, images of shape (8, 8, 1) with levels 0 to 16 stretched to 0 to 255. Mean and standard deviation
      are those of its training split.

    >>> digits = load()
    >>> digits.train["image"].shape, digits.test["image"].shape
    ((1437, 8, 8, 1), (360, 8, 8, 1))
    """
    with np.load(Path(__file__).with_name("digits.npz")) as arrays:
        pixels, label = arrays["pixels"], arrays["label"].astype(np.int32)
    image = np.rint(pixels * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    train = {"image": image[:TRAIN_SIZE], "label": label[:TRAIN_SIZE]}
    test = {"image": image[TRAIN_SIZE:], "label": label[TRAIN_SIZE:]}
    return ArrayDataset("digits", train, test, 10, *channel_moments(train["image"]))
