"""Crop and flip against every crop that there is, made with NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from adamlab.data.augment import crop_and_flip
from adamlab.training.parallel import Devices, compile_training
from adamlab.training.step import TrainState
from tests.training import small

IMAGES = np.random.default_rng(0).integers(1, 256, (1000, 6, 5, 3), np.uint8)  # no black: padding stands out


def variants(image):
    """All 9 x 9 shifts of an image, and their mirror images, by (down, right, mirrored)."""
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    crops = {(i, j): padded[i : i + 6, j : j + 5] for i in range(9) for j in range(9)}
    return {(i, j, flip): crop[:, ::-1] if flip else crop for (i, j), crop in crops.items() for flip in (False, True)}


def found(augmented):
    """For each image, which of its variants it became; all that fit, since far shifts may leave nothing to tell."""
    return [
        [name for name, variant in variants(image).items() if np.array_equal(variant, result)]
        for image, result in zip(IMAGES, np.asarray(augmented), strict=True)
    ]


def test_every_image_becomes_one_of_its_crops_each_about_as_often():
    augmented = crop_and_flip(jax.random.key(0), jnp.asarray(IMAGES))
    assert augmented.dtype == jnp.uint8
    names = found(augmented)
    assert all(len(name) == 1 for name in names)
    rows, columns, flips = (np.bincount([int(name[0][axis]) for name in names]) for axis in range(3))
    # 1000 images in 9 equal bins: 111 +- 9.9 each, in 2: 500 +- 15.8. Five standard deviations.
    assert np.abs(rows - 1000 / 9).max() < 50
    assert np.abs(columns - 1000 / 9).max() < 50
    assert np.abs(flips - 500).max() < 79
    # Down and right are drawn apart from each other: all 81 shifts occur (each is missed with chance e^-12).
    assert len({name[0][:2] for name in names}) == 81


def test_the_key_decides_everything():
    images = jnp.asarray(IMAGES[:50])
    first, again, other = (np.asarray(jax.jit(crop_and_flip)(jax.random.key(seed), images)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_each_step_of_a_chunk_is_augmented_by_its_own_seed():
    look = compile_training(Devices(), lambda state, batch: (state, batch["image"]), crop_and_flip)
    _, images = look(TrainState({}, {}, (), {}), small.DATA, small.INDICES[:3], small.SEEDS[:3])
    for step in range(3):
        batch = jnp.asarray(small.DATA["image"][small.INDICES[step]])
        np.testing.assert_array_equal(images[step], crop_and_flip(jax.random.key(small.SEEDS[step]), batch))
