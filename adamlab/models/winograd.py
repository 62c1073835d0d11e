r"""Winograd's convolutions of 3x3 kernels: F(2x2, 3x3), and for the kernel's gradient F(4x4, 3x3).

.. math:: Y = A^\top \big[\, (G\, g\, G^\top) \odot (B^\top d\, B) \,\big] A

gives m x m outputs ``Y`` of the 3x3 kernel ``g`` from a tile ``d`` of the input, m + 2 pixels on each side; tiles
overlap by two. That is 16 products for four outputs where the plain sum takes 36, and 36 for 16 where it takes 144.
With channels, each product is a matrix product over all tiles. Maps are filled up with zeros to whole tiles. The
transformed tiles of a whole batch would not fit into the cache, so a batch is taken in chunks.

Results and inputs' gradients take F(2x2, 3x3): with 32 and 64 channels, putting 16 outputs together costs more than the
fewer products save. A kernel's gradient is put together once for a whole batch.

In float32 the results differ from the plain sum's by about 1e-6 of the largest, the kernel's gradient by 3e-6. Narrower
types are computed in float32.

Source: Lavin and Gray, 2016, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308, section 4.1.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from adamlab.models.chunks import chunk_size, in_chunks, sum_over_chunks

Grid = list[list[Array]]


class _Tiling(NamedTuple):
    """F(m x m, 3x3): the matrices B^T, G and A^T."""

    input: np.ndarray  # (m + 2, m + 2)
    kernel: np.ndarray  # (m + 2, 3)
    output: np.ndarray  # (m, m + 2)

    @property
    def side(self) -> int:
        """m, the pixels of a tile's output on each side, which are also those from tile to tile."""
        return len(self.output)


def _tiling(*points: float) -> _Tiling:
    """Toom and Cook's: polynomials are multiplied by their values at these points and their leading coefficients.

    The points' powers and products must be exact in float64, or the zeros of B^T are not zeros.
    """
    p = np.array(points)
    n = len(p)
    others = [np.delete(p, i) for i in range(n)]
    scales = np.array([np.prod(p[i] - others[i]) for i in range(n)])
    leading = np.eye(n + 1)[-1:]
    return _Tiling(
        input=np.array([*([*np.poly(rest)[::-1], 0] for rest in others), np.poly(p)[::-1]]),
        kernel=np.concatenate([np.vander(p, 3, increasing=True) / scales[:, None], leading[:, -3:]]),
        output=np.concatenate([np.vander(p, n - 1, increasing=True), leading[:, 1 - n :]]).T,
    )


_F2 = _tiling(0, 1, -1)
# With Lavin and Gray's points, 1 and 2, the errors would be about four times as large.
_F4 = _tiling(0, 5 / 8, -5 / 8, 3 / 2, -3 / 2)


def convolve(x: Array, kernel: Array) -> Array:
    """The convolution of stride 1 with one zero on every side.

    Args:
      x: Activations, (batch, height, width, channels).
      kernel: Weights, (3, 3, channels, features).

    Returns:
      (batch, height, width, features), of x's dtype.

    >>> convolve(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0].tolist()
    [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    """
    return _convolve(x, _transform(_F2.kernel, _taps(kernel)))


def input_gradient(grad: Array, kernel: Array) -> Array:
    """The gradient of `convolve` by x: the convolution with the kernel flipped, channels and features swapped.

    Args:
      grad: The gradient by the result, (batch, height, width, features).
      kernel: Weights, (3, 3, channels, features).

    Returns:
      (batch, height, width, channels), of grad's dtype.

    >>> input_gradient(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0].tolist()
    [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    """
    # Channels and features are swapped last: swapped before, they would be gathered number by number.
    grid = _transform(_F2.kernel, [row[::-1] for row in _taps(kernel)[::-1]])
    return _convolve(grad, [[g.T for g in row] for row in grid])


def kernel_gradient(x: Array, grad: Array) -> Array:
    r"""The gradient of `convolve` by its kernel.

    .. math:: \mathrm{d}g = G^\top \Big[ \sum (B^\top d\, B) \odot (A\, \mathrm{d}Y A^\top) \Big] G

    Args:
      x: Activations, (batch, height, width, channels).
      grad: The gradient by the result, (batch, height, width, features).

    Returns:
      (3, 3, channels, features), of x's dtype or float32 if that is wider.

    >>> kernel_gradient(jnp.ones((1, 3, 3, 1)), jnp.ones((1, 3, 3, 1)))[:, :, 0, 0].round(5).tolist()
    [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    """

    def products(x: Array, grad: Array) -> list[Array]:
        inputs = _input_grid(x, _F4)
        outputs = _transform_tiles(_F4.output.T, _filled(grad, _F4), _F4)
        # A batched product for each row of the grid runs and compiles faster than 36 products, and than one of all 36.
        return [jnp.einsum("ktc,ktf->kcf", *map(_stacked_rows, rows)) for rows in zip(inputs, outputs, strict=True)]

    images = chunk_size(len(x), _images_in_cache(x, grad.shape[-1], _F4))
    sums = sum_over_chunks(products, images, x, grad)
    return jnp.stack([jnp.stack(row) for row in _transform(_F4.kernel.T, [list(row) for row in sums])])


def _convolve(x: Array, kernel_grid: Grid) -> Array:
    batch, height, width, _ = x.shape
    features = kernel_grid[0][0].shape[-1]

    def block(x: Array) -> Array:
        tiles = _input_grid(x, _F2)
        products = [
            [(_rows(d) @ g).reshape(*d.shape[:-1], features) for d, g in zip(*rows, strict=True)]
            for rows in zip(tiles, kernel_grid, strict=True)
        ]
        outputs = _transform(_F2.output, products)
        y = jnp.stack([jnp.stack(row, axis=3) for row in outputs], axis=2)  # (images, tiles, 2, tiles, 2, features)
        return y.reshape(len(x), 2 * y.shape[1], -1, features)[:, :height, :width].astype(x.dtype)

    images = chunk_size(batch, _images_in_cache(x, features, _F2))
    return lax.map(block, in_chunks(x, images)).reshape(-1, height, width, features)[:batch]


def _taps(kernel: Array) -> Grid:
    return [[_widened(kernel[i, j]) for j in range(3)] for i in range(3)]


def _input_grid(x: Array, tiling: _Tiling) -> Grid:
    """B^T d B of every tile: arrays of (batch, tiles down, tiles across, channels)."""
    padded = jnp.pad(_filled(x, tiling), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return _transform_tiles(tiling.input, padded, tiling)


def _transform(matrix: np.ndarray, grid: Grid) -> Grid:
    """M X M^T of a grid X of arrays."""
    columns = [_sums(matrix, column) for column in zip(*grid, strict=True)]
    return [_sums(matrix, row) for row in zip(*columns, strict=True)]


def _transform_tiles(matrix: np.ndarray, x: Array, tiling: _Tiling) -> Grid:
    """M X M^T of each tile X of a map; tiles begin every `side` pixels and are as long as M's rows."""

    def along(axis: int, x: Array) -> list[Array]:
        reach, step = matrix.shape[1], tiling.side
        beyond = x.shape[axis] - reach
        return _sums(matrix, [lax.slice_in_dim(x, i, i + beyond + 1, step, axis) for i in range(reach)])

    return [along(2, rows) for rows in along(1, x)]


def _sums(matrix: np.ndarray, arrays: Sequence[Array]) -> list[Array]:
    """The matrix times a vector of arrays, written out: most of its numbers are 0, and many 1 or -1."""
    return [
        reduce(add, [_times(factor, array) for factor, array in zip(row, arrays, strict=True) if factor])
        for row in matrix.tolist()
    ]


def _times(factor: float, array: Array) -> Array:
    return array if factor == 1 else -array if factor == -1 else factor * array


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _stacked_rows(arrays: Sequence[Array]) -> Array:
    return jnp.stack([_rows(array) for array in arrays])


def _filled(x: Array, tiling: _Tiling) -> Array:
    """Filled up with zeros to whole tiles, in float32 or wider."""
    down, across = (-side % tiling.side for side in x.shape[1:3])
    return jnp.pad(_widened(x), ((0, 0), (0, down), (0, across), (0, 0)))


def _widened(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _images_in_cache(x: Array, features: int, tiling: _Tiling) -> int:
    """Images whose transformed tiles are about eight megabytes."""
    _, height, width, channels = x.shape
    image = (tiling.side + 2) ** 2 * height * width * max(channels, features) // tiling.side**2
    return 2**21 // image
