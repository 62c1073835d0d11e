"""A batch in chunks of images, so that what is computed of each stays in the cache."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

Sums = TypeVar("Sums")


def chunk_size(batch: int, limit: int) -> int:
    """Images of a chunk, at most `limit`: so many that chunks come out even, if a number above half the limit does.

    >>> chunk_size(100, 32), chunk_size(97, 32), chunk_size(10, 32)
    (25, 25, 10)
    """
    limit = max(1, min(batch, limit))
    whole = next((size for size in range(limit, limit // 2, -1) if batch % size == 0), None)
    return whole or -(-batch // -(-batch // limit))


def in_chunks(array: Array, images: int) -> Array:
    """(batch, ...) as (chunks, images, ...), the last chunk filled up with zeros."""
    # Else XLA computes what the array comes from twice where it is wanted whole, too: once more in this shape.
    array = lax.optimization_barrier(array)
    missing = -len(array) % images
    array = jnp.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1)) if missing else array
    return array.reshape(-1, images, *array.shape[1:])


def sum_over_chunks(terms: Callable[[Array, Array], Sums], images: int, x: Array, grad: Array) -> Sums:
    """The sum of ``terms(x, grad)`` over chunks of so many images."""
    chunks = in_chunks(x, images), in_chunks(grad, images)
    shapes = jax.eval_shape(terms, *(array[0] for array in chunks))
    # Zeros made from the gradient: under shard_map they differ from device to device, as the sums do.
    zeros = jax.tree.map(lambda term: lax.full_like(grad, 0, term.dtype, term.shape), shapes)
    return lax.scan(lambda total, pair: (jax.tree.map(jnp.add, total, terms(*pair)), None), zeros, chunks)[0]
