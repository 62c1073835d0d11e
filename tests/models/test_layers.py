"""The layers' parameters and initial values; BatchNorm against NumPy and Flax; the head."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from adamlab.models.layers import BatchNorm, Conv, Head, he_normal


def close(actual, expected, tolerance):
    """Equal to a fraction of the largest element: a sum of n products loses digits relative to the products."""
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * max(float(np.abs(e).max()), 1e-30))


def test_conv_has_the_parameters_and_results_of_flaxs():
    x = jnp.float32(np.random.default_rng(0).normal(size=(2, 8, 8, 3)))
    ours, theirs = Conv(5, 3, 2), nn.Conv(5, (3, 3), 2, ((1, 1), (1, 1)), use_bias=False)
    variables = ours.init(jax.random.key(1), x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, theirs.init(jax.random.key(1), x))
    close(ours.apply(variables, x), theirs.apply(variables, x), 1e-6)


def test_kernels_are_drawn_from_he_et_als_normal_distribution():
    kernel = np.asarray(Conv(128).init(jax.random.key(0), jnp.zeros((1, 1, 1, 64)))["params"]["kernel"])
    sigma = np.sqrt(2 / (3 * 3 * 64))
    key, shape = jax.random.key(3), (45, 7)
    expected = np.float32(np.sqrt(2 / 45)) * jax.random.normal(key, shape)
    np.testing.assert_allclose(he_normal(key, shape), expected, rtol=1e-6)  # in whatever shape they are drawn
    # n = 73,728 draws: the standard error of the deviation is sigma / sqrt(2 n) = 0.0026 sigma.
    np.testing.assert_allclose(kernel.std(), sigma, rtol=0.01)
    # 4.55 % of a normal distribution lies beyond 2 sigma, and none of one truncated there.
    np.testing.assert_allclose((np.abs(kernel) > 2 * sigma).mean(), 0.0455, rtol=0.1)


def test_head_is_drawn_as_pytorchs_linear_and_pools():
    x = jnp.float32(np.random.default_rng(0).normal(size=(3, 2, 2, 16)))
    variables = Head(1000).init(jax.random.key(1), x)
    kernel, bias = (np.asarray(variables["params"]["linear"][name]) for name in ("kernel", "bias"))
    for leaf in (
        kernel,
        bias,
    ):  # uniform in +-1 / sqrt(16): nearly reaches the bound, standard deviation bound / sqrt(3)
        assert 0.24 < np.abs(leaf).max() <= 0.25
        np.testing.assert_allclose(leaf.std(), 0.25 / np.sqrt(3), rtol=0.05)
    expected = np.asarray(x, np.float64).mean((1, 2)) @ kernel + bias[None]
    close(Head(1000).apply(variables, x), expected, 1e-6)


def norm_variables(channels, rng):
    draw = partial(rng.normal, size=channels)
    return {
        "params": {"scale": draw(), "bias": draw()},
        "batch_stats": {"mean": draw(), "var": np.square(draw()) + 0.5},
    }


def test_batch_norm_trains_as_its_docstring_says():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, variables = 3 + 2 * rng.normal(size=(4, 5, 5, 3)), norm_variables(3, rng)
        layer = BatchNorm(dtype=jnp.float64)
        y, updates = layer.apply(variables, x, True, mutable=["batch_stats"])

        mean, var, n = x.mean((0, 1, 2)), x.var((0, 1, 2)), 4 * 5 * 5
        scale, bias, old = variables["params"]["scale"], variables["params"]["bias"], variables["batch_stats"]
        wide = (None, None, None, slice(None))
        close(y, (x - mean[wide]) / np.sqrt(var + 1e-5)[wide] * scale[wide] + bias[wide], 1e-12)
        close(updates["batch_stats"]["mean"], 0.9 * old["mean"] + 0.1 * mean, 1e-12)
        close(updates["batch_stats"]["var"], 0.9 * old["var"] + 0.1 * var * n / (n - 1), 1e-12)


def test_batch_norm_of_constant_channels_is_finite():
    """Rounding takes the difference of their moments below 0, compiled."""
    constants = np.random.default_rng(0).uniform(50, 1000, 256).astype(np.float32)
    images = jnp.broadcast_to(constants, (7, 3, 3, 256))
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), images, train=False)
    out, _ = jax.jit(lambda x: norm.apply(variables, x, train=True, mutable=["batch_stats"]))(images)
    assert np.isfinite(out).all()


def test_batch_norm_evaluates_by_running_averages_and_leaves_them():
    rng = np.random.default_rng(0)
    x, variables = rng.normal(size=(4, 3)), norm_variables(3, rng)
    y, updates = BatchNorm().apply(variables, x, False, mutable=["batch_stats"])
    stats, params = variables["batch_stats"], variables["params"]
    expected = (x - stats["mean"][None]) / np.sqrt(stats["var"] + 1e-5)[None] * params["scale"][None]
    close(y, expected + params["bias"][None], 1e-6)
    close(updates["batch_stats"], stats, 1e-7)


def test_batch_norm_gradients_equal_flaxs():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, grad, variables = rng.normal(size=(4, 5, 5, 3)), rng.normal(size=(4, 5, 5, 3)), norm_variables(3, rng)

        def gradients(layer, **call):
            def loss(params, x):
                y, _ = layer.apply({**variables, "params": params}, x, **call, mutable=["batch_stats"])
                return jnp.vdot(y, grad)

            return jax.jit(jax.grad(loss, (0, 1)))(variables["params"], x)

        theirs = gradients(nn.BatchNorm(epsilon=1e-5, dtype=jnp.float64), use_running_average=False)
        close(gradients(BatchNorm(dtype=jnp.float64), train=True), theirs, 1e-12)


def test_batch_norm_over_four_devices_equals_one():
    rng = np.random.default_rng(0)
    x, variables = rng.normal(size=(8, 2, 2, 3)).astype(np.float32), norm_variables(3, rng)
    mesh = jax.make_mesh((4,), ("device",), axis_types=(jax.sharding.AxisType.Auto,))

    def sharded(x):
        return BatchNorm(axis_name="device").apply(variables, x, True, mutable=["batch_stats"])

    f = jax.shard_map(sharded, mesh=mesh, in_specs=P("device"), out_specs=(P("device"), P()))
    close(jax.jit(f)(x), BatchNorm().apply(variables, x, True, mutable=["batch_stats"]), 1e-6)


def test_batch_norm_keeps_float32_statistics_of_bfloat16():
    # 256 + {0, 1}: in bfloat16 neighbours of 256 are 2 apart, so only wider statistics can tell the mean from 256.
    x = jnp.asarray([[256.0], [256.0], [256.0], [258.0]], jnp.bfloat16)
    layer = BatchNorm(dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x, True)
    y, updates = layer.apply(variables, x, True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(jnp.float32)}
    close(updates["batch_stats"]["mean"], np.array([0.1 * 256.5]), 1e-6)


def test_initialisation_leaves_the_running_averages():
    x = 5 + jax.random.normal(jax.random.key(0), (4, 3))
    stats = BatchNorm().init(jax.random.key(1), x, True)["batch_stats"]
    np.testing.assert_array_equal(stats["mean"], np.zeros(3))
    np.testing.assert_array_equal(stats["var"], np.ones(3))
