"""Max pooling against XLA's own: values, gradients, equal values, NaN, and what is compiled where."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamlab.models.pooling import max_pool
from tests.models.test_convolution import operations

# (window, stride, height, width): VGG's, ResNet's, and maps that windows do not fill.
CASES = [(2, 2, 4, 6), (3, 2, 6, 8), (3, 2, 7, 5), (2, 2, 5, 7), (3, 3, 9, 8), (2, 1, 4, 4)]


def reference(x, window, stride):
    p = (window - 1) // 2
    return nn.max_pool(x, (window, window), (stride, stride), ((p, p), (p, p)))


def value_and_gradient(pool, x, window, stride):
    y, pull = jax.vjp(lambda x: pool(x, window, stride), x)
    return y, pull(jnp.cos(jnp.arange(y.size, dtype=x.dtype)).reshape(y.shape))[0]


def activations(height, width, equals):
    """As ReLU leaves them, with zeros; or a few values alone, so that most windows have several largest ones."""
    x = np.random.default_rng(0).normal(size=(3, height, width, 5)).astype(np.float32)
    return np.round(x) if equals else np.maximum(x, 0)


@pytest.mark.parametrize("equals", [False, True])
@pytest.mark.parametrize(("window", "stride", "height", "width"), CASES)
def test_value_and_gradient_are_those_of_the_native_pooling(window, stride, height, width, equals):
    x = activations(height, width, equals)
    ours, native = (
        jax.jit(partial(value_and_gradient, f, window=window, stride=stride))(x) for f in (max_pool, reference)
    )
    np.testing.assert_array_equal(ours[0], native[0])
    np.testing.assert_allclose(ours[1], native[1], rtol=0, atol=1e-6)  # a pixel of several windows gets a sum


@pytest.mark.parametrize("place", range(4))
def test_nan_in_a_window_is_its_largest(place):
    x = np.arange(4, dtype=np.float32)
    x[place] = np.nan
    y, gradient = value_and_gradient(max_pool, jnp.asarray(x.reshape(1, 2, 2, 1)), 2, 2)
    assert np.isnan(y).all()
    assert np.flatnonzero(gradient) == [place]


def lowered(pool, platform, window, stride):
    f = jax.jit(partial(value_and_gradient, pool, window=window, stride=stride))
    return f.trace(np.zeros((2, 8, 8, 3), np.float32)).lower(lowering_platforms=(platform,)).as_text()


def test_xla_pools_on_accelerators_but_scatters_no_gradient_of_windows_that_do_not_overlap():
    for platform in ("cuda", "rocm", "tpu"):
        actual, native = (lowered(f, platform, 3, 2) for f in (max_pool, reference))
        assert operations(actual) == operations(native)
        assert actual.count("stablehlo.select_and_scatter") == 1
        text = lowered(max_pool, platform, 2, 2)
        assert text.count("stablehlo.reduce_window") == 1
        assert "scatter" not in text


@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2)])
def test_xla_never_pools_on_a_cpu(window, stride):
    text = lowered(max_pool, "cpu", window, stride)
    assert "reduce_window" not in text
    assert "select_and_scatter" not in text


@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2)])
def test_hessian_vector_products_vmap_and_bfloat16(window, stride):
    x = activations(6, 6, equals=False)

    def curvature(pool, x):
        gradient = jax.grad(lambda x: jnp.sum(jnp.tanh(pool(x, window, stride)) ** 2))
        return jax.jvp(gradient, (x,), (jnp.ones_like(x),))[1]

    np.testing.assert_allclose(curvature(max_pool, x), curvature(reference, x), rtol=0, atol=1e-5)
    stacked = np.stack([x, -x])
    together = jax.vmap(lambda x: value_and_gradient(max_pool, x, window, stride)[1])(stacked)
    for mine, one in zip(together, stacked, strict=True):
        np.testing.assert_allclose(mine, value_and_gradient(reference, one, window, stride)[1], rtol=0, atol=1e-6)
    half = jnp.asarray(x, jnp.bfloat16)
    np.testing.assert_array_equal(max_pool(half, window, stride), reference(half, window, stride))


def test_a_window_larger_than_the_map_is_refused():
    assert max_pool(jnp.ones((1, 1, 1, 3)), 3, 2).shape == (1, 1, 1, 3)  # padded by one pixel
    with pytest.raises(ValueError, match=r"window must be at most 1 on a map of shape \(1, 2\), got 2"):
        max_pool(jnp.ones((1, 1, 2, 3)), 2, 2)
