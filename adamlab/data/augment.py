"""Augmentation on the device: a pure function of a key and a batch, so that a resumed run sees the same images."""

import jax
import jax.numpy as jnp
from jax import Array, lax

PADDING = 4


def crop_and_flip(key: Array, images: Array, places: Array | None = None, batch_size: int | None = None) -> Array:
    """Shifts each image by up to 4 pixels along each axis, black coming in, and mirrors it with probability 1/2.

    That is PyTorch's ``RandomCrop(side, padding=4)`` and ``RandomHorizontalFlip()`` before normalisation: every shift
    is equally likely, every image has its own.

    Args:
      key: A random key; it decides everything.
      images: Of any dtype, (batch, height, width, channels).
      places: Where a device has a share of a batch: the places of `images` in the batch, int32 (n,). An image is moved
        by its place, whoever has it.
      batch_size: Of that batch.

    Returns:
      Images of the same shape and dtype.

    >>> images = 1 + jnp.arange(9, dtype=jnp.uint8).reshape(1, 3, 3, 1)
    >>> crop_and_flip(jax.random.key(6), images)[0, :, :, 0].tolist()  # mirrored, a row up, a column right
    [[0, 0, 0], [0, 3, 2], [0, 6, 5]]

    Source:
      He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385, section 4.2.
    """
    shift_key, flip_key = jax.random.split(key)
    batch_size = batch_size or len(images)
    shifts = jax.random.randint(shift_key, (batch_size, 2), 0, 2 * PADDING + 1)
    flips = jax.random.bernoulli(flip_key, shape=(batch_size, 1, 1, 1))
    if places is not None:
        shifts, flips = shifts[places], flips[places]
    padded = jnp.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    crop = jax.vmap(lambda image, shift: lax.dynamic_slice(image, (*shift, 0), images.shape[1:]))
    cropped = crop(padded, shifts)
    return jnp.where(flips, cropped[:, :, ::-1], cropped)
