"""Each formulation of the convolution against XLA's own."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from adamlab.models.convolution import conv2d
from tests.models.test_layers import close


def reference(x, kernel, stride):
    """XLA's convolution, differentiated by JAX."""
    p = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(p, p)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


# (k, stride, height, width, channels, features, batch): every branch of the rule for CPU.
CASES = {
    "1x1 kernel": (1, 1, 4, 4, 3, 5, 2),
    "1x1 kernel, stride 2": (1, 2, 6, 6, 3, 5, 2),
    "1x1 kernel, stride 2, odd map": (1, 2, 5, 5, 3, 5, 2),
    "1x1 map": (3, 1, 1, 1, 3, 5, 2),
    "2x2 map to 1x1": (3, 2, 2, 2, 3, 5, 2),
    "2x2 map to 1x1, 7x7 kernel": (7, 2, 2, 2, 3, 5, 2),
    "2x2 map": (3, 1, 2, 2, 3, 5, 2),
    "4x4 map to 2x2": (3, 2, 4, 4, 3, 5, 2),
    "3x3 map to 2x2": (3, 2, 3, 3, 3, 5, 2),
    "4x4 map to 2x2, 7x7 kernel": (7, 2, 4, 4, 3, 5, 2),
    "4x2 map to 2x1": (3, 2, 4, 2, 3, 5, 2),
    "native": (3, 1, 5, 5, 3, 4, 2),
    "native, not square": (3, 2, 7, 4, 3, 4, 2),
    "native, stride 2": (3, 2, 6, 6, 3, 4, 2),
    "native, stride 2, odd map": (3, 2, 7, 7, 3, 4, 2),
    "native, 7x7 kernel": (7, 2, 9, 9, 3, 4, 2),
    "Winograd": (3, 1, 6, 6, 32, 32, 2),
    "Winograd, odd and not square": (3, 1, 5, 3, 32, 48, 2),
    "Winograd, whole tiles": (3, 1, 8, 8, 32, 32, 2),
    # 2**21 / (4 * 16 * 16 * 64) = 32 images a chunk at most, and 2**21 / (36 / 16 * 16 * 16 * 64) = 56 for the kernel's
    # gradient: 58 make chunks of 29, and 61 of 31, one of them zeros.
    "Winograd, in chunks": (3, 1, 16, 16, 64, 32, 58),
    "Winograd, in uneven chunks": (3, 1, 16, 16, 32, 64, 61),
    # 2**20 / (16 * 18 * 3 * 66) = 18 images a chunk at most: 34 make chunks of 17.
    "native, in chunks": (3, 1, 16, 16, 64, 2, 34),
    # 2**20 / (16 * 17 * (6 * 64 + 2 * 2)) = 9 images a chunk at most: 11 make chunks of 6, one of them zeros.
    "native, in chunks, stride 2": (3, 2, 31, 31, 64, 2, 11),
    "native, in chunks, stride 3": (5, 3, 32, 30, 64, 2, 21),
}


def arrays(case, dtype=np.float64):
    k, stride, height, width, channels, features, batch = CASES[case]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, height, width, channels)).astype(dtype)
    kernel = rng.normal(size=(k, k, channels, features)).astype(dtype)
    grad = rng.normal(size=jax.eval_shape(lambda x, w: reference(x, w, stride), x, kernel).shape).astype(dtype)
    return x, kernel, grad, stride


def value_and_gradients(conv, x, kernel, grad, stride):
    y, pull = jax.vjp(lambda x, kernel: conv(x, kernel, stride), x, kernel)
    return y, *pull(grad)


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients_equal_the_native_convolutions(case):
    with jax.enable_x64(True):
        *args, stride = arrays(case)
        expected = jax.jit(partial(value_and_gradients, reference, stride=stride))(*args)
        ours = jax.jit(partial(value_and_gradients, conv2d, stride=stride))
        for dtype, tolerance in [(np.float64, 1e-12), (np.float32, 1e-5)]:
            actual = ours(*(a.astype(dtype) for a in args))
            assert all(a.dtype == dtype for a in actual)
            close(actual, expected, tolerance)


def lowered(conv, case, platform):
    x, kernel, grad, stride = arrays(case, np.float32)
    f = jax.jit(partial(value_and_gradients, conv, stride=stride))
    return f.trace(x, kernel, grad).lower(lowering_platforms=(platform,)).as_text()


def operations(text):
    """The array operations of a lowered program, without the names of values and the (resolved) platform switch."""
    lines = re.findall(r"= (stablehlo\.(?!case|return|constant).*)", text)
    return sorted(re.sub(r"%\w+", "%", line) for line in lines)


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
@pytest.mark.parametrize("case", ["1x1 kernel, stride 2", "1x1 map", "4x4 map to 2x2", "Winograd", "native, in chunks"])
def test_on_accelerators_it_is_exactly_the_native_convolution(case, platform):
    actual, native = lowered(conv2d, case, platform), lowered(reference, case, platform)
    assert operations(actual) == operations(native)
    assert actual.count("stablehlo.convolution") == 3  # forward, input gradient, kernel gradient


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("native")])
def test_on_cpu_every_convolution_has_the_layout_that_is_fast_in_loops(case):
    layouts = re.findall(r"dim_numbers = (\S+ ?.*?), window", lowered(conv2d, case, "cpu"))
    assert layouts
    assert set(layouts) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}
    # JAX's own kernel gradient is not in it, or this test would show nothing.
    assert "[f, 0, 1, b]x[i, 0, 1, o]" in lowered(reference, case, "cpu")


@pytest.mark.parametrize("case", ["1x1 kernel, stride 2", "1x1 map", "4x4 map to 2x2", "Winograd"])
def test_on_cpu_small_maps_and_winograd_have_no_convolution_at_all(case):
    assert "stablehlo.convolution" not in lowered(conv2d, case, "cpu")


@pytest.mark.parametrize("case", ["4x4 map to 2x2", "Winograd", "native, stride 2"])
def test_gradient_inside_a_scan(case):
    with jax.enable_x64(True):
        x, kernel, grad, stride = arrays(case)

        def descend(conv, kernel, _):
            gradient = jax.grad(lambda kernel: jnp.vdot(conv(x, kernel, stride), grad))(kernel)
            return kernel - 0.1 * gradient, None

        actual = jax.jit(lambda w: lax.scan(partial(descend, conv2d), w, length=3)[0])(kernel)
        # The loss is linear in the kernel, so three steps of the same gradient.
        _, _, gradient = value_and_gradients(reference, x, kernel, grad, stride)
        close(actual, kernel - 0.3 * gradient, 1e-12)


@pytest.mark.parametrize("in_axes", [(0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize("case", ["2x2 map to 1x1", "Winograd", "native, stride 2"])
def test_vmap_equals_a_loop(case, in_axes):
    with jax.enable_x64(True):
        x, kernel, grad, stride = arrays(case)
        scales = np.array([1.0, -2.0, 0.5])[:, None, None, None, None]
        args = [scales * a if axis == 0 else a for a, axis in zip((x, kernel), in_axes, strict=True)]
        f = partial(value_and_gradients, conv2d, stride=stride)
        actual = jax.jit(jax.vmap(f, (*in_axes, None)))(*args, grad)
        one_by_one = []
        for i in range(3):
            x, kernel = (a[i] if axis == 0 else a for a, axis in zip(args, in_axes, strict=True))
            one_by_one.append(value_and_gradients(reference, x, kernel, grad, stride))
        close(actual, jax.tree.map(lambda *leaves: np.stack(leaves), *one_by_one), 1e-12)


@pytest.mark.parametrize("case", ["2x2 map", "Winograd", "native, stride 2"])
def test_hessian_vector_products_forward_and_reverse_over_reverse(case):
    with jax.enable_x64(True):
        x, kernel, _, stride = arrays(case)
        rng = np.random.default_rng(1)
        at, v = (x, kernel), (rng.normal(size=x.shape), rng.normal(size=kernel.shape))

        def loss(conv, at):
            return jnp.sum(jnp.tanh(conv(*at, stride)))

        gradient = jax.grad(partial(loss, conv2d))
        expected = jax.jit(lambda at: jax.jvp(jax.grad(partial(loss, reference)), (at,), (v,))[1])(at)
        close(jax.jit(lambda at: jax.jvp(gradient, (at,), (v,))[1])(at), expected, 1e-12)
        close(jax.jit(jax.grad(lambda at: sum(map(jnp.vdot, gradient(at), v))))(at), expected, 1e-12)


@pytest.mark.parametrize("shape", [(2, 2, 1, 1), (3, 1, 1, 1)])
def test_kernels_without_a_centre_are_refused(shape):
    with pytest.raises(ValueError, match=r"must be square with an odd side, got \("):
        conv2d(jnp.ones((1, 4, 4, 1)), jnp.ones(shape))


def test_forward_mode_alone_is_refused_as_the_docstring_says():
    x, kernel, _, stride = arrays("native", np.float32)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda w: conv2d(x, w, stride), (kernel,), (kernel,))


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("case", ["2x2 map", "Winograd", "native, stride 2"])
def test_shard_map_over_the_batch(case, check_vma):
    with jax.enable_x64(True):
        x, kernel, grad, stride = arrays(case)  # batch 2
        mesh = jax.make_mesh((2,), ("device",), axis_types=(jax.sharding.AxisType.Auto,))

        def gradient(x, kernel, grad):
            out = jax.grad(lambda w: jnp.vdot(conv2d(x, w, stride), grad))(kernel)
            return out if check_vma else lax.psum(out, "device")  # check_vma sums by itself

        specs = (P("device"), P(), P("device"))
        sharded = jax.shard_map(gradient, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=check_vma)
        close(jax.jit(sharded)(x, kernel, grad), value_and_gradients(reference, x, kernel, grad, stride)[2], 1e-12)


@pytest.mark.parametrize("case", ["2x2 map", "Winograd", "native, in chunks"])
def test_bfloat16_agrees_to_its_precision(case):
    x, kernel, grad, stride = arrays(case, np.float32)
    half = [jnp.asarray(a, jnp.bfloat16) for a in (x, kernel, grad)]
    actual = jax.jit(partial(value_and_gradients, conv2d, stride=stride))(*half)
    assert all(a.dtype == jnp.bfloat16 for a in actual)
    expected = value_and_gradients(reference, *(a.astype(jnp.float32) for a in half), stride)
    close([a.astype(jnp.float32) for a in actual], expected, 2**-7)


@pytest.mark.parametrize("case", ["Winograd, in chunks", "native, in chunks"])
def test_kernel_gradients_of_bfloat16_are_summed_in_float32(case):
    """Over many chunks sums in bfloat16 would lose what a test of a few does not see."""
    x, kernel, grad, stride = arrays(case, np.float32)
    half = [jnp.asarray(a, jnp.bfloat16) for a in (x, kernel, grad)]
    pull = jax.jit(lambda x, kernel, grad: jax.vjp(partial(conv2d, x, stride=stride), kernel)[1](grad))
    program = pull.lower(*half).as_text()
    products = re.findall(r"stablehlo\.dot_general.*-> tensor<[\dx]*x(\w+)>", program)
    assert products
    assert set(products) == {"f32"}
