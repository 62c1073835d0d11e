"""Floating-point operations: those that a training step asks for, and those that the machine does in a second."""

import time
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from adamlab.models.layers import Conv


def matmul_flops(dtype: Any) -> float:
    """Floating-point operations per second of the fastest of some large square matrix products: the machine's peak.

    In JAX's default precision, which for float32 on a GPU may be TF32; of random numbers, since a GPU multiplies ones
    with less power, and faster.
    """
    side, products = (1024, 1) if jax.default_backend() == "cpu" else (8192, 10)
    x = (jax.random.normal(jax.random.key(0), (side, side)) / side**0.5).astype(dtype)
    multiply = jax.jit(lambda x: jax.lax.fori_loop(0, products, lambda _, y: x @ y, x))
    jax.block_until_ready(multiply(x))
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        jax.block_until_ready(multiply(x))
        seconds.append(time.perf_counter() - start)
    return products * 2 * side**3 / min(seconds)


def step_flops(model: nn.Module, shape: tuple[int, ...]) -> float:
    """Floating-point operations of a training step: the backward pass computes two products for each of the forward.

    `shape` is the batch's, (batch, height, width, channels). Of the plain sums of convolutions and products, without
    taps in the padding: some formulations do with fewer.
    """
    pairs = 0

    def count(call: Callable, inputs: tuple, options: dict, context: nn.module.InterceptorContext) -> Any:
        nonlocal pairs
        layer, x = context.module, inputs[0]
        if isinstance(layer, Conv):
            taps = (_taps(side, layer.kernel_size, layer.stride) for side in x.shape[1:3])
            pairs += len(x) * prod(taps) * x.shape[-1] * layer.features
        elif isinstance(layer, nn.Dense):
            pairs += x.size * layer.features
        return call(*inputs, **options)

    with nn.intercept_methods(count):
        images = jax.ShapeDtypeStruct(shape, jnp.float32)
        jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    return 3.0 * 2 * pairs


def _taps(side: int, k: int, stride: int) -> int:
    """Of all windows along a side, the taps that meet the map.

    >>> _taps(2, 3, 1), _taps(32, 1, 2)
    (4, 16)
    """
    starts = range(-(k // 2), side + k // 2 - k + 1, stride)
    return sum(min(start + k, side) - max(start, 0) for start in starts)
