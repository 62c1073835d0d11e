r"""Winograd's convolution F(2x2, 3x3): 16 products where the plain sum takes 36.

.. math:: Y = A^\top \big[\, (G\, g\, G^\top) \odot (B^\top d\, B) \,\big] A

gives 2x2 outputs ``Y`` of the 3x3 kernel ``g`` from a 4x4 tile ``d`` of the input; neighbouring tiles overlap by two.
With channels, each of the 16 products is a matrix product over all tiles. Odd maps are filled up with zeros. The
transformed tiles of a whole batch would not fit into the cache, so a batch is taken in chunks.

In float32 the results differ from the plain sum's by about 1e-6 of the largest. Narrower types are computed in float32.

Source: Lavin and Gray, 2016, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308, section 4.1.
"""

from collections.abc import Callable, Iterable, Sequence

import jax.numpy as jnp
from jax import Array, lax

from adamlab.models.chunks import chunk_size, in_chunks, sum_over_chunks

Grid = list[list[Array]]


def convolve(x: Array, kernel: Array) -> Array:
    """The convolution of stride 1 with one zero on every side.

    Args:
        x: activations, (batch, height, width, channels).
        kernel: weights, (3, 3, channels, features).

    Returns:
        (batch, height, width, features), of x's dtype.

    >>> convolve(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0].tolist()
    [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    """
    return _convolve(x, _kernel_grid(kernel))


def input_gradient(grad: Array, kernel: Array) -> Array:
    """The gradient of `convolve` by x: the convolution with the kernel flipped, channels and features swapped.

    Args:
        grad: the gradient by the result, (batch, height, width, features).
        kernel: weights, (3, 3, channels, features).

    Returns:
        (batch, height, width, channels), of grad's dtype.

    >>> input_gradient(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0].tolist()
    [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    """
    # A flipped kernel's transform is the kernel's in another order. Swapped before it, not after it, channels and
    # features would be gathered number by number.
    grid, order = _kernel_grid(kernel), (3, 1, 2, 0)
    return _convolve(grad, [[grid[i][j].T for j in order] for i in order])


def kernel_gradient(x: Array, grad: Array) -> Array:
    r"""The gradient of `convolve` by its kernel.

    .. math:: \mathrm{d}g = G^\top \Big[ \sum (B^\top d\, B) \odot (A\, \mathrm{d}Y A^\top) \Big] G

    Args:
        x: activations, (batch, height, width, channels).
        grad: the gradient by the result, (batch, height, width, features).

    Returns:
        (3, 3, channels, features), of x's dtype or float32 if that is wider.

    >>> kernel_gradient(jnp.ones((1, 3, 3, 1)), jnp.ones((1, 3, 3, 1)))[:, :, 0, 0].tolist()
    [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    """

    def products(x: Array, grad: Array) -> Grid:
        outputs = _map_grid(_output_transposed, _even(_widened(grad)))
        return _pairwise(lambda d, y: _rows(d).T @ _rows(y), _input_grid(x), outputs)

    images = chunk_size(len(x), _images_in_cache(x, grad.shape[-1]))
    sums = sum_over_chunks(products, images, x, grad)
    return jnp.stack([jnp.stack(row) for row in _contract(_kernel_transposed, sums)])


def _convolve(x: Array, kernel_grid: Grid) -> Array:
    batch, height, width, _ = x.shape
    features = kernel_grid[0][0].shape[-1]

    def block(x: Array) -> Array:
        products = _pairwise(lambda d, g: (_rows(d) @ g).reshape(*d.shape[:-1], features), _input_grid(x), kernel_grid)
        outputs = _contract(_output, products)
        y = jnp.stack([jnp.stack(row, axis=3) for row in outputs], axis=2)  # (images, tiles, 2, tiles, 2, features)
        return y.reshape(len(x), 2 * y.shape[1], -1, features)[:, :height, :width].astype(x.dtype)

    images = chunk_size(batch, _images_in_cache(x, features))
    return lax.map(block, in_chunks(x, images)).reshape(-1, height, width, features)[:batch]


def _input_grid(x: Array) -> Grid:
    """B^T d B of every tile: 4x4 arrays of (batch, tiles down, tiles across, channels)."""
    return _map_grid(_input, jnp.pad(_even(_widened(x)), ((0, 0), (1, 1), (1, 1), (0, 0))))


def _kernel_grid(kernel: Array) -> Grid:
    """G g G^T: 4x4 arrays of (channels, features)."""
    return [_kernel(row) for row in _kernel(_widened(kernel))]


# B^T, G, G^T, A^T and A, each along one axis, written out as sums.


def _input(x: Array, axis: int) -> list[Array]:
    tiles = x.shape[axis] // 2 - 1
    a, b, c, d = (_every_other(x, start, tiles, axis) for start in range(4))
    return [a - c, b + c, c - b, b - d]


def _kernel(taps: Iterable[Array]) -> list[Array]:
    a, b, c = taps
    return [a, (a + b + c) / 2, (a - b + c) / 2, c]


def _kernel_transposed(p: Sequence[Array]) -> list[Array]:
    return [p[0] + (p[1] + p[2]) / 2, (p[1] - p[2]) / 2, (p[1] + p[2]) / 2 + p[3]]


def _output(m: Sequence[Array]) -> list[Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _output_transposed(grad: Array, axis: int) -> list[Array]:
    a, b = (_every_other(grad, start, grad.shape[axis] // 2, axis) for start in range(2))
    return [a, a + b, a - b, -b]


def _every_other(x: Array, start: int, count: int, axis: int) -> Array:
    return lax.slice_in_dim(x, start, start + 2 * count - 1, 2, axis)


def _map_grid(transform: Callable[[Array, int], list[Array]], x: Array) -> Grid:
    """A transform of a map's tiles, down and across."""
    return [transform(rows, 2) for rows in transform(x, 1)]


def _contract(transform: Callable[[Sequence[Array]], list[Array]], grid: Grid) -> Grid:
    """A transform of a grid's arrays, down and across."""
    columns = [transform(column) for column in zip(*grid, strict=True)]
    return [transform(row) for row in zip(*columns, strict=True)]


def _pairwise(product: Callable[[Array, Array], Array], a: Grid, b: Grid) -> Grid:
    return [[product(*pair) for pair in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _even(x: Array) -> Array:
    """Filled up with zeros to even sides."""
    return jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))


def _widened(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _images_in_cache(x: Array, features: int) -> int:
    """Images whose transformed tiles, four numbers for each of a map, are about eight megabytes."""
    _, height, width, channels = x.shape
    return 2**21 // (4 * height * width * max(channels, features))
