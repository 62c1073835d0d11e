"""A convolution that is fast on each backend.

A convolution is bilinear, and there are several ways to compute it. XLA's own is the right one on GPU and TPU. On CPU
it is far slower than matrix products for small maps, slower than Winograd's with many channels, and its kernel gradient
is slower by orders of magnitude inside a loop. :func:`conv2d` picks by platform and static shape; nothing outside this
file knows. Measurements: ``docs/performance.md``.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from adamlab.models import winograd
from adamlab.models.chunks import chunk_size, sum_over_chunks

_NHWC = ("NHWC", "HWIO", "NHWC")


def conv2d(x: Array, kernel: Array, stride: int = 1) -> Array:
    r"""Convolution with the padding of PyTorch's nets: ``k // 2`` zeros on every side.

    .. math:: y_{n,i,j,f} = \sum_{a,b,c} x_{n,\,si+a-p,\,sj+b-p,\,c}\; w_{a,b,c,f}, \qquad p = \lfloor k/2 \rfloor

    Flax's ``"SAME"`` pads a strided convolution on one side only, which shifts the map against PyTorch's.

    Differentiation: reverse mode, and any mode over it (``grad``, ``jvp`` of ``grad``, ``grad`` of ``grad``, so every
    Hessian-vector product). Forward mode on its own (``jvp`` or ``jacfwd`` of a forward pass) is refused by JAX,
    since the gradient is explicit.

    Args:
      x: Activations, (batch, height, width, channels).
      kernel: Weights, (k, k, channels, features), k odd, of x's dtype.
      stride: Distance between the windows, in pixels of x.

    Returns:
      The result, (batch, ceil(height / stride), ceil(width / stride), features), of x's dtype.

    Raises:
      ValueError: If the kernel is not square with an odd side.

    >>> conv2d(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0].tolist()
    [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    """
    if kernel.shape[0] != kernel.shape[1] or kernel.shape[0] % 2 == 0:
        raise ValueError(f"kernel must be square with an odd side, got {kernel.shape}")
    return _conv2d(x, kernel, stride)


# Jitted, as `_backward` is: a deep net repeats a few shapes, and traces and lowers the layers of one shape once.
@partial(jax.jit, static_argnames="stride")
def _forward(x: Array, kernel: Array, stride: int) -> Array:
    if kernel.shape[0] == 1 or _is_small(x, kernel, stride):
        on_cpu = partial(_as_products, stride=stride)
    elif _suits_winograd(x, kernel, stride):
        on_cpu = winograd.convolve
    else:
        return _native(x, kernel, stride)
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=partial(_native, stride=stride))


def _forward_and_residuals(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _forward(x, kernel, stride), (x, kernel)


@partial(jax.jit, static_argnames="stride")
def _backward(stride: int, residuals: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = residuals

    def transpose_of(formulation):
        return lambda x, kernel, grad: jax.vjp(partial(formulation, stride=stride), x, kernel)[1](grad)

    on_cpu = transpose_of(_as_products) if _is_small(x, kernel, stride) else partial(_cpu_gradients, stride=stride)
    return lax.platform_dependent(x, kernel, grad, cpu=on_cpu, default=transpose_of(_native))


_conv2d = jax.custom_vjp(_forward, nondiff_argnums=(2,))
_conv2d.defvjp(_forward_and_residuals, _backward)


def _output_side(side: int, k: int, stride: int) -> int:
    return (side + 2 * (k // 2) - k) // stride + 1


def _is_small(x: Array, kernel: Array, stride: int) -> bool:
    """Whether products for each pixel beat XLA's convolution on CPU: outputs of 2x2 or less."""
    return max(_output_side(side, kernel.shape[0], stride) for side in x.shape[1:3]) <= 2


def _suits_winograd(x: Array, kernel: Array, stride: int) -> bool:
    """Whether Winograd's beats XLA's on CPU: 3x3 kernels of stride 1 with at least 32 channels and features."""
    return kernel.shape[0] == 3 and stride == 1 and min(kernel.shape[2:]) >= 32 and not _is_small(x, kernel, stride)


def _native(x: Array, kernel: Array, stride: int) -> Array:
    """XLA's own convolution."""
    p = kernel.shape[0] // 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), ((p, p), (p, p)), dimension_numbers=_NHWC)


def _as_products(x: Array, kernel: Array, stride: int) -> Array:
    """A matrix product for each pixel of the result, of its window with the taps; for a 1x1 kernel, one for all pixels.

    Where a window hangs over the edge, the taps there are left out: on a 2x2 map each pixel meets four of a 3x3
    kernel's nine, on a 1x1 map one.
    """
    k, features = kernel.shape[0], kernel.shape[-1]
    if k == 1:
        return x[:, ::stride, ::stride] @ kernel[0, 0]
    rows, columns = (_windows(side, k, stride) for side in x.shape[1:3])
    pixels = [
        x[:, top:bottom, left:right].reshape(len(x), -1)
        @ kernel[top - row : bottom - row, left - column : right - column].reshape(-1, features)
        for row, top, bottom in rows
        for column, left, right in columns
    ]
    return jnp.stack(pixels, axis=1).reshape(len(x), len(rows), len(columns), features)


def _windows(side: int, k: int, stride: int) -> list[tuple[int, int, int]]:
    """Along one axis, for each pixel of the result: where its window starts, and its first and last + 1 in the map."""
    starts = [stride * i - k // 2 for i in range(_output_side(side, k, stride))]
    return [(start, max(start, 0), min(start + k, side)) for start in starts]


def _cpu_gradients(x: Array, kernel: Array, grad: Array, stride: int) -> tuple[Array, Array]:
    """Gradients of `_native`, none as JAX has them.

    XLA:CPU brings a convolution into the layout of its fast kernel (NHWC, HWIO) only outside loops; in the body of a
    `scan` JAX's own kernel gradient, in another layout, runs hundreds of times slower.
    """
    fast = _suits_winograd(x, kernel, stride)
    with jax.named_scope("input_gradient"):  # the names that a profile shows
        by_input = winograd.input_gradient(grad, kernel) if fast else _input_gradient(x, kernel, grad, stride)
    with jax.named_scope("kernel_gradient"):
        by_kernel = winograd.kernel_gradient(x, grad) if fast else _kernel_gradient(x, kernel, grad, stride)

    # Where x is one device's share and the kernel is not, shard_map sums the kernel's gradient over devices, but has
    # no public name for which axes those are: let the addition's own transpose do it. The sums are never computed.
    def share_axes(x: Array, kernel: Array) -> tuple[Array, Array]:
        return x + lax.stop_gradient(kernel[0, 0, 0, 0]), kernel + lax.stop_gradient(x[0, 0, 0, 0])

    return jax.vjp(share_axes, x, kernel)[1]((by_input, by_kernel.astype(kernel.dtype)))


def _input_gradient(x: Array, kernel: Array, grad: Array, stride: int) -> Array:
    """The gradient, spread by the stride, convolved with the kernel flipped in space."""
    k = kernel.shape[0]
    low = k - 1 - k // 2
    padding = [
        (low, side + k - 2 - stride * (out - 1) - low) for side, out in zip(x.shape[1:3], grad.shape[1:3], strict=True)
    ]
    if k == 1:
        spread = [(*sides, stride - 1) for sides in padding]
        return lax.pad(grad @ kernel[0, 0].T, jnp.zeros((), grad.dtype), [(0, 0, 0), *spread, (0, 0, 0)])
    flipped = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    return lax.conv_general_dilated(
        grad, flipped, (1, 1), padding, lhs_dilation=(stride, stride), dimension_numbers=_NHWC
    )


def _kernel_gradient(x: Array, kernel: Array, grad: Array, stride: int) -> Array:
    """A matrix product, of x shifted by the kernel's rows with the gradient shifted by its columns.

    So x and the gradient are copied k times each, where gathering all patches would copy x k * k times. Columns of x
    within one stride count as so many more channels. Summed in float32 or wider, over chunks of images whose copies
    are about four megabytes, so that they stay in the cache.
    """
    if kernel.shape[0] == 1:  # it meets no other pixels
        x, stride = x[:, ::stride, ::stride], 1
    k, p = kernel.shape[0], kernel.shape[0] // 2
    batch, height, width, features = grad.shape
    channels = x.shape[-1]
    shifts = -(-k // stride)
    rows, columns = stride * (height - 1) + 1, width - 1 + shifts
    dtype = jnp.promote_types(x.dtype, jnp.float32)

    def correlate(x: Array, grad: Array) -> Array:
        right = stride * columns - p - x.shape[2]  # negative where the last columns meet no window
        x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (p, p, 0), (p, right, 0), (0, 0, 0)))
        x = x.reshape(*x.shape[:2], columns, stride * channels)
        inputs = jnp.concatenate([x[:, i : i + rows : stride] for i in range(k)], axis=-1)
        pads = [((0, 0), (0, 0), (j, shifts - 1 - j), (0, 0)) for j in range(shifts)]
        grads = jnp.concatenate([jnp.pad(grad, pad) for pad in pads], axis=-1)
        inputs, grads = (array.reshape(-1, array.shape[-1]) for array in (inputs, grads))
        return jnp.matmul(inputs.T, grads, preferred_element_type=dtype)

    images = chunk_size(batch, 2**20 // (height * columns * (k * stride * channels + shifts * features)))
    products = sum_over_chunks(correlate, images, x, grad).reshape(k, stride, channels, shifts, features)
    taps = products.transpose(0, 3, 1, 2, 4).reshape(k, shifts * stride, channels, features)
    return taps[:, :k].astype(kernel.dtype)
