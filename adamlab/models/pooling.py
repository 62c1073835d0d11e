"""Max pooling that is fast on each backend.

XLA on CPU computes the gradient of its own pooling one window after the other, and on a GPU as a scatter.
:func:`max_pool` has the same values and gradients in a form that XLA vectorises: on CPU, and everywhere the gradient of
2x2 windows side by side. The rest is XLA's own on GPU and TPU. Measurements: ``docs/performance.md``.
"""

from functools import partial, reduce

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax


def max_pool(x: Array, window: int, stride: int) -> Array:
    r"""The largest value of each square window, padded as PyTorch's nets: ``(window - 1) // 2`` on every side.

    .. math:: y_{n,i,j,c} = \max_{0 \le a, b < k} x_{n,\,si+a-p,\,sj+b-p,\,c}, \qquad p = \lfloor (k - 1) / 2 \rfloor

    The gradient goes to the first of equal values, row by row, as XLA's and PyTorch's does. Padding is never the
    largest. Differentiation: reverse mode, and any mode over it, as for :func:`adamlab.models.convolution.conv2d`.

    Args:
      x: Activations, (batch, height, width, channels).
      window: Side k of the windows, in pixels of x.
      stride: Distance s between them.

    Returns:
      The maxima, (batch, (height + 2p - k) // s + 1, (width + 2p - k) // s + 1, channels), of x's dtype.

    Raises:
      ValueError: A window is larger than the padded map.

    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2, 2)[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    largest = min(x.shape[1:3]) + 2 * ((window - 1) // 2)
    if window > largest:
        raise ValueError(f"window must be at most {largest} on a map of shape {x.shape[1:3]}, got {window}")
    return _max_pool(x, window, stride)


def _forward(x: Array, window: int, stride: int) -> Array:
    options = {"window": window, "stride": stride}
    return lax.platform_dependent(x, cpu=partial(_by_taps, **options), default=partial(_native, **options))


def _forward_and_residuals(x: Array, window: int, stride: int) -> tuple[Array, Array]:
    return _forward(x, window, stride), x


def _backward(window: int, stride: int, x: Array, grad: Array) -> tuple[Array]:
    def transpose_of(formulation):
        return lambda x, grad: jax.vjp(partial(formulation, window=window, stride=stride), x)[1](grad)[0]

    if window == stride == 2:
        return (_gradient_of_pairs(x, grad),)
    return (lax.platform_dependent(x, grad, cpu=transpose_of(_by_taps), default=transpose_of(_native)),)


_max_pool = jax.custom_vjp(_forward, nondiff_argnums=(1, 2))
_max_pool.defvjp(_forward_and_residuals, _backward)


def _native(x: Array, window: int, stride: int) -> Array:
    """XLA's own pooling."""
    p = (window - 1) // 2
    return nn.max_pool(x, (window, window), (stride, stride), ((p, p), (p, p)))  # pyright: ignore[reportArgumentType]


def _by_taps(x: Array, window: int, stride: int) -> Array:
    """The largest of k * k strided maps."""
    p = (window - 1) // 2
    x = jnp.pad(x, ((0, 0), (p, p), (p, p), (0, 0)), constant_values=-jnp.inf) if p else x
    rows, columns = (stride * ((side - window) // stride) + 1 for side in x.shape[1:3])
    taps = [x[:, a : a + rows : stride, b : b + columns : stride] for a in range(window) for b in range(window)]
    return reduce(lambda a, b: jnp.where(_is_larger(b, a), b, a), taps)


def _is_larger(b: Array, a: Array) -> Array:
    """Whether b takes a's place: not if they are equal, but NaN does; ``jnp.maximum`` halves the gradient of equals."""
    return (b > a) | jnp.isnan(b)


def _gradient_of_pairs(x: Array, grad: Array) -> Array:
    """The gradient for 2x2 windows side by side: each pixel asks whether it was its window's first largest."""
    rows, columns = grad.shape[1:3]
    whole = x[:, : 2 * rows, : 2 * columns]
    tiles = whole.reshape(len(x), rows, 2, columns, 2, -1)
    largest, number = tiles[:, :, 0, :, 0], jnp.zeros(grad.shape, jnp.int32)
    for tap in (1, 2, 3):
        pixel = tiles[:, :, tap // 2, :, tap % 2]
        larger = _is_larger(pixel, largest)
        largest, number = jnp.where(larger, pixel, largest), jnp.where(larger, tap, number)

    def spread(values: Array) -> Array:
        return values[:, :, None, :, None]

    here = spread(number) == jnp.arange(4).reshape(1, 1, 2, 1, 2, 1)
    gradient = jnp.where(here, spread(grad), 0).reshape(whole.shape)
    return jnp.pad(gradient, [(0, a - b) for a, b in zip(x.shape, whole.shape, strict=True)])
