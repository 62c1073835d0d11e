"""Masks, norms and the geometry of spheres, against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adamlab.optim.lawn import lawn
from adamlab.optim.leaves import kernel_mask
from adamlab.optim.sphere import inner_product, layer_norms, measure, project, retract, zero_radii
from tests.optim import toy


@pytest.fixture
def rng():
    """The same numbers for each test, whatever ran before it."""
    return np.random.default_rng(0)


def spheres(w, radius=None, unit_axis=None):
    """The spheres of one leaf, held at its norm or at a given radius."""
    result = measure({"w": w}, zero_radii({"w": w}, None, unit_axis), 0, 0, None, unit_axis)
    return result if radius is None else result._replace(radius={"w": jnp.float32(radius)})


def test_kernel_mask_marks_what_is_of_rank_2_and_neither_bias_nor_scale():
    params = {"kernel": jnp.ones((2, 2)), "scale": jnp.ones((2, 2)), "bias": jnp.ones((2, 2)), "gain": jnp.ones(())}
    assert kernel_mask(params) == {"kernel": True, "scale": False, "bias": False, "gain": False}
    # It is the leaf's own name that counts.
    assert kernel_mask({"scale": {"kernel": jnp.ones((2, 2))}}) == {"scale": {"kernel": True}}


def test_indices_are_no_kernels():
    """A table of integers has a gradient of JAX's empty type, float0, which has no inner product with anything."""
    params = {"kernel": jnp.array([[3.0, 4.0]]), "table": jnp.arange(4).reshape(2, 2)}
    assert kernel_mask(params) == {"kernel": True, "table": False}
    inner = optax.partition(
        {"train": optax.sgd(0.1), "keep": optax.set_to_zero()}, {"kernel": "train", "table": "keep"}
    )
    optimizer = lawn(inner, free_steps=0)
    grads = jax.grad(lambda p: jnp.sum(jnp.sin(p["kernel"])), allow_int=True)(params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(jnp.linalg.norm(params["kernel"] + updates["kernel"]), 5.0, rtol=1e-6)


def test_norms_of_python_numbers():
    assert layer_norms({"a": -3.0}) == {"a": 3.0}


def test_layer_norms_are_exact_and_named_by_path(rng):
    # 2.4 million weights, as in ResNet-34's largest kernels: a running float32 sum would be off by 1e-3.
    params = {
        "block": [{"kernel": jnp.asarray(rng.normal(size=(3, 3, 512, 512)), jnp.float32)}],
        "scale": jnp.float32(-2.0),
    }
    norms = layer_norms(params)
    assert set(norms) == {"block/0/kernel", "scale"}
    assert norms["scale"] == 2.0
    np.testing.assert_allclose(norms["block/0/kernel"], toy.norm64(params["block"][0]["kernel"]), rtol=1e-6)


def test_norms_of_bfloat16_leaves_are_float32():
    # 0.1 is 205 * 2^-11 in bfloat16, exactly; so the norm of 10,000 of them is 100 times that.
    norm = layer_norms({"w": jnp.full((100, 100), 0.1, jnp.bfloat16)})["w"]
    assert norm.dtype == jnp.float32
    np.testing.assert_allclose(norm, 100 * 205 / 2**11, rtol=1e-6)


@pytest.mark.parametrize(("unit_axis", "axes"), [(None, (0, 1, 2)), (-1, (0, 1)), (0, (1, 2)), (1, (0, 2))])
def test_inner_products(rng, unit_axis, axes):
    x, y = rng.normal(size=(2, 3, 4, 5))
    expected = np.sum(x * y, axis=axes, keepdims=unit_axis is not None)
    np.testing.assert_allclose(inner_product(jnp.float32(x), jnp.float32(y), unit_axis), expected, rtol=1e-5)


@pytest.mark.parametrize("unit_axis", [None, -1, 0])
def test_projection_is_orthogonal_idempotent_and_takes_nothing_else(rng, unit_axis):
    w, g = jnp.float32(rng.normal(size=(2, 6, 8, 4)))
    s = spheres(w, unit_axis=unit_axis)
    tangent = project(s, {"w": g}, unit_axis)["w"]
    rounding = 1e-6 * float(jnp.linalg.norm(tangent) * jnp.linalg.norm(w))
    np.testing.assert_allclose(inner_product(tangent, w, unit_axis), 0.0, atol=rounding)
    np.testing.assert_allclose(project(s, {"w": tangent}, unit_axis)["w"], tangent, atol=1e-6)
    # What is taken is along w: a multiple of it, one for each sphere.
    axes = tuple(axis for axis in range(3) if unit_axis is None or axis != unit_axis % 3)
    multiple = np.median((g - tangent) / w, axes, keepdims=True)
    np.testing.assert_allclose(g - tangent, multiple * w, atol=1e-5)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("project_update", [False, True])
@pytest.mark.parametrize("unit_axis", [None, -1])
def test_retraction(rng, unit_axis, project_update, size):
    w64, u64 = rng.normal(size=(2, 6, 8, 4))
    w, u = jnp.float32(w64), jnp.float32(size * u64)
    w64, u64 = np.float64(w), np.float64(u)
    axes = (0, 1, 2) if unit_axis is None else (0, 1)
    square = np.sum(w64**2, axis=axes, keepdims=True)
    if project_update:
        u64 = u64 - np.sum(u64 * w64, axis=axes, keepdims=True) / square * w64
    expected = (w64 + u64) * np.sqrt(square / np.sum((w64 + u64) ** 2, axis=axes, keepdims=True))
    actual = w + retract(spheres(w, unit_axis=unit_axis), {"w": u}, unit_axis, project_update)["w"]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("multiple", [10.0, 1e3, 1e5])
def test_an_update_long_along_the_weight_ends_on_the_sphere_where_its_tangent_part_points(rng, multiple):
    w = jnp.float32(rng.normal(size=(64, 64)))
    u = jnp.float32(multiple * w + 0.1 * jnp.float32(rng.normal(size=(64, 64))))
    moved = w + retract(spheres(w), {"w": u}, None, project_update=True)["w"]
    w64, u64 = np.float64(w), np.float64(u)
    end = w64 + u64 - np.sum(u64 * w64) / np.sum(w64**2) * w64
    # float32 has lost digits of u's tangent part already: 6e-8 of its length along w.
    np.testing.assert_allclose(moved, end * np.sqrt(np.sum(w64**2) / np.sum(end**2)), atol=2e-6 + 1e-6 * multiple)
    np.testing.assert_allclose(toy.norm64(moved), toy.norm64(w), rtol=1e-6)


def test_a_complex_leaf_has_a_sphere_of_real_radius():
    w = jnp.array([[3.0j, 4.0], [0.0, 12.0j]])  # of norm 13
    g = jnp.array([[1.0 + 1.0j, 2.0j], [5.0, 1.0]])
    s = spheres(w)
    assert s.radius["w"].dtype == jnp.float32
    tangent = project(s, {"w": g}, None)["w"]
    np.testing.assert_allclose(np.vdot(tangent, w).real, 0.0, atol=1e-5)
    moved = w + retract(s, {"w": g}, None)["w"]
    np.testing.assert_allclose(moved, (w + g) * 13 / np.linalg.norm(w + g), rtol=1e-5)


def test_retraction_returns_to_the_stored_radius_from_elsewhere():
    w = jnp.array([[3.0, 4.0]])  # of norm 5, on a sphere of radius 10
    updates = retract(spheres(w, radius=10.0), {"w": jnp.zeros_like(w)}, None)
    np.testing.assert_allclose(w + updates["w"], [[6.0, 8.0]], rtol=1e-6)


def test_small_updates_keep_their_digits():
    """As s (w + u) - w they would be rounded to the last digits of w, 6e-8; along w that is all that is rounded."""
    w, u = jnp.array([[1.0, 1.0]]), jnp.array([[1.2345e-5, -1.2345e-5]])
    updates = retract(spheres(w), {"w": u}, None)["w"]
    np.testing.assert_allclose(updates[0, 0] - updates[0, 1], 2.469e-5, rtol=1e-6)
    np.testing.assert_allclose(updates[0, 0] + updates[0, 1], 0.0, atol=1.2e-7)


def test_retraction_of_bfloat16_leaves_is_computed_in_float32():
    # u is along w, so nothing is left of it; u + 2 w rounded to bfloat16 would leave 8e-6.
    w, u = jnp.ones((1, 1), jnp.bfloat16), jnp.full((1, 1), 2.0**-8, jnp.bfloat16)
    assert abs(retract(spheres(w), {"w": u}, None)["w"]) < 1e-6


def test_a_radius_of_zero_holds_nothing():
    w, g = jnp.zeros((2, 2)), jnp.ones((2, 2))
    s = spheres(w)
    assert not s.held["w"]
    with jax.debug_nans(True):
        toy.assert_equal(project(s, {"w": g}, None)["w"], g)
        toy.assert_equal(retract(s, {"w": g}, None)["w"], g)


def test_units_of_norm_zero_are_free_one_by_one():
    w = jnp.array([[3.0, 0.0], [4.0, 0.0]])
    s = spheres(w, unit_axis=-1)
    np.testing.assert_array_equal(s.held["w"], [[True, False]])
    moved = w + retract(s, {"w": jnp.ones((2, 2))}, -1)["w"]
    # (4, 5) at length 5; (1, 1) as it is.
    np.testing.assert_allclose(moved, [[20 / 41**0.5, 1.0], [25 / 41**0.5, 1.0]], rtol=1e-6)


def test_optax_masked_trees_are_accepted():
    assert zero_radii({"a": jnp.ones((2, 2)), "b": optax.MaskedNode()}, None, None) == {"a": 0.0}


@pytest.mark.parametrize("unit_axis", [None, -1])
@pytest.mark.parametrize("length", [0.6, 0.4, 1e-2, 1e-4, 1e-6])
def test_an_update_nearly_back_to_the_origin_ends_on_the_sphere(rng, length, unit_axis):
    """w + u is much shorter than w: rounding counts for more by as much, and the next step takes it back."""
    w = jnp.float32(rng.normal(size=(5, 4)))
    u = length * jnp.float32(rng.normal(size=(5, 4))) - w
    s = spheres(w, unit_axis=unit_axis)
    moved = jax.jit(lambda u: retract(s, {"w": u}, unit_axis)["w"])(u)
    end, goal = np.asarray(w, np.float64) + np.asarray(moved), np.asarray(w, np.float64) + np.asarray(u, np.float64)
    axes = None if unit_axis is None else 0
    norms = [np.linalg.norm(x.ravel() if axes is None else x, axis=axes) for x in (end, np.asarray(w), goal)]
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-6 + 3e-7 / length)
    np.testing.assert_allclose(end / norms[0], goal / norms[2], atol=1e-6 + 3e-7 / length)
    end = jnp.float32(end)
    again = end + retract(spheres(end, radius=s.radius["w"], unit_axis=unit_axis), {"w": 0 * u}, unit_axis)["w"]
    np.testing.assert_allclose(np.linalg.norm(again if axes == 0 else again.ravel(), axis=axes), norms[1], rtol=1e-6)
