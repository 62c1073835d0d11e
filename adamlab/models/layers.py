"""The layers of every net: a convolution, PyTorch's BatchNorm, and the linear head."""

from functools import partial
from math import prod, sqrt

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array, lax
from jax.typing import DTypeLike

from adamlab.models.convolution import conv2d


def he_normal(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Kernel drawn from a normal distribution of variance 2 / fan_in.

    He et al. 2015, "Delving Deep into Rectifiers" (arXiv 1502.01852), equation 10. The numbers are those of
    ``jax.random.normal(key, shape)``; drawn as a vector they compile several times faster on CPU, where drawing them
    takes most of a net's first start.
    """
    return sqrt(2 / prod(shape[:-1])) * jax.random.normal(key, (prod(shape),), dtype).reshape(shape)


class Conv(nn.Module):
    """A square convolution without bias, padded as PyTorch's nets: :func:`conv2d` with a Flax parameter ``kernel``.

    The kernel starts as :func:`he_normal`.

    Args:
      features: Channels of the result.
      kernel_size: Side of the kernel, odd.
      stride: Distance between the windows.
      dtype: Dtype of the computation and the result; the parameter is float32.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map (batch, height, width, channels) to (batch, ceil(height / stride), ..., features)."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", he_normal, shape, jnp.float32)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        return conv2d(x, kernel, self.stride)


class BatchNorm(nn.Module):
    r"""PyTorch's batch normalisation over all axes but the last (Ioffe and Szegedy 2015, arXiv 1502.03167).

    .. math:: y = a x + b, \qquad a = \gamma / \sqrt{v + 10^{-5}}, \qquad b = \beta - m a

    Training takes m and the biased variance v of the batch, and moves the running averages a tenth of the way to m
    and, as PyTorch does and Flax does not, to the *unbiased* variance, n / (n - 1) times v. Evaluation takes the
    running averages. The folded form reads x once, and so do the moments: the mean of x^2 less m^2 keeps no digit of a
    v below about 1e-7 m^2, as in Flax. Statistics are kept in float32 or wider. The scale starts at 1, the bias at 0,
    as in PyTorch.

    Args:
      axis_name: Mapped axis over whose devices the batch statistics are averaged; None: each device on its own.
      dtype: Dtype of the result; parameters and running averages are float32.
    """

    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Normalise (..., channels); with ``train``, by the batch, updating the collection ``batch_stats``."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)

        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if train and not self.is_initializing():
            mean, var, unbiased = _moments(x, self.axis_name)
            running_mean.value = 0.9 * running_mean.value + 0.1 * mean
            running_var.value = 0.9 * running_var.value + 0.1 * unbiased
        else:
            mean, var = running_mean.value, running_var.value
        return _scale_and_shift(x, scale, bias, mean, var).astype(self.dtype)


# Both jitted, as conv2d's two passes are: a deep net traces them once for each shape, not for each layer.
@partial(jax.jit, static_argnames="axis_name")
def _moments(x: Array, axis_name: str | None) -> tuple[Array, Array, Array]:
    """Mean, biased and unbiased variance per channel."""
    axes = tuple(range(x.ndim - 1))
    moments = jnp.stack([x.mean(axes), jnp.square(x).mean(axes)])
    n = x.size // x.shape[-1]
    if axis_name is not None:
        moments, n = lax.pmean(moments, axis_name), n * lax.axis_size(axis_name)
    mean, square = moments
    var = jnp.maximum(square - jnp.square(mean), 0.0)  # rounding may take the difference below 0
    return mean, var, var * (n / max(n - 1, 1))


@jax.jit
def _scale_and_shift(x: Array, scale: Array, bias: Array, mean: Array, var: Array) -> Array:
    a = scale * lax.rsqrt(var + 1e-5)
    b = bias - mean * a
    spread = (1,) * (x.ndim - 1) + (-1,)
    return x * a.reshape(spread) + b.reshape(spread)


class ConvNorm(nn.Module):
    """A convolution and the BatchNorm after it; arguments as theirs."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Map (batch, height, width, channels) to (batch, ceil(height / stride), ..., features)."""
        x = Conv(self.features, self.kernel_size, self.stride, self.dtype, name="conv")(x)
        return BatchNorm(self.axis_name, self.dtype, name="norm")(x, train)


class Head(nn.Module):
    """Global average pool and one linear layer, in float32 or wider.

    Weights and biases are uniform in +-1 / sqrt(channels), the default of PyTorch's ``nn.Linear``.
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map (batch, height, width, channels) to logits (batch, num_classes)."""
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean((1, 2))
        bound = 1 / sqrt(x.shape[-1])

        def init(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
            return jax.random.uniform(key, (prod(shape),), dtype, -bound, bound).reshape(shape)  # as in he_normal

        return nn.Dense(self.num_classes, dtype=x.dtype, kernel_init=init, bias_init=init, name="linear")(x)
