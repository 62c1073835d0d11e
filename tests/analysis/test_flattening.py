"""Norms, angles and the Hessian's top eigenvalue, against float64 NumPy, known spectra and invariances."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adamlab.analysis.flattening import top_hessian_eigenvalue, trace
from adamlab.models.layers import conv2d

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
LABELS = jnp.asarray(RNG.integers(3, size=10))
IMAGES = jnp.asarray(RNG.normal(size=(10, 4, 4, 2)), jnp.float32)


measure = jax.jit(trace, static_argnames=("loss_and_logits", "iterations"))


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


PARAMS = {
    "Conv_0": {"kernel": normal(3, 3, 2, 4), "bias": normal(4)},
    "BatchNorm_0": {"scale": normal(4)},
    "Dense_0": {"kernel": normal(4, 3), "bias": normal(3)},
}
NEW_PARAMS = jax.tree.map(lambda w: w + 0.1 * normal(*w.shape), PARAMS)


STATE = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_numbers():
    """For each test, whatever ran before it."""
    RNG.bit_generator.state = STATE


def cross_entropy(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()


def conv_net(params):
    x = conv2d(IMAGES, params["Conv_0"]["kernel"]) + params["Conv_0"]["bias"].reshape(1, 1, 1, -1)
    x = (jnp.tanh(x) * params["BatchNorm_0"]["scale"].reshape(1, 1, 1, -1)).mean((1, 2))
    logits = x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"].reshape(1, -1)
    return cross_entropy(logits), logits


def dense_net(weights):
    """4 inputs, 6 hidden units, 3 classes: 42 weights in one vector."""
    hidden, out = weights[:24].reshape(4, 6), weights[24:].reshape(6, 3)
    return cross_entropy(jnp.tanh(IMAGES.reshape(10, 8, 4).mean(1) @ hidden) @ out)


def only_kernel(params):
    return jnp.sum(params["kernel"]), params["kernel"]


def angle_step(w, new):
    return measure(only_kernel, {"kernel": w}, {"kernel": new}, KEY, iterations=1)["angular_step"]


@pytest.fixture(scope="module")
def measured():
    return measure(conv_net, PARAMS, NEW_PARAMS, KEY, iterations=200)


def norm64(*leaves):
    return np.sqrt(sum(np.sum(np.asarray(leaf, np.float64) ** 2) for leaf in leaves))


def angle64(v, w):
    """Kahan's formula, of the float32 arrays in float64."""
    v, w = (np.asarray(x, np.float64) / norm64(x) for x in (v, w))
    return 2 * np.arctan2(norm64(v - w), norm64(v + w))


def test_norms(measured):
    gradients = jax.jit(jax.grad(lambda params: conv_net(params)[0]))(PARAMS)
    step = jax.tree.map(lambda new, w: np.float64(new) - np.float64(w), NEW_PARAMS, PARAMS)
    kernels = {name: PARAMS[name]["kernel"] for name in ("Conv_0", "Dense_0")}
    angles = {name: angle64(NEW_PARAMS[name]["kernel"], kernel) for name, kernel in kernels.items()}
    expected = {
        "gradient_norm": norm64(*jax.tree.leaves(gradients)),
        "logit_norm": np.mean([norm64(logits) for logits in conv_net(PARAMS)[1]]),
        "weight_norm": norm64(*kernels.values()),
        "update_norm": norm64(*jax.tree.leaves(step)),
        "angular_step": np.mean(list(angles.values())),
        "layer_weight_norms": {f"{name}/kernel": norm64(kernel) for name, kernel in kernels.items()},
        "layer_angular_steps": {f"{name}/kernel": angle for name, angle in angles.items()},
    }
    assert all(leaf.shape == () and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(measured))
    assert measured.keys() == expected.keys() | {"hessian_eigenvalue"}
    for name, value in expected.items():
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), measured[name], value)


def test_jit_measures_the_same():
    def linear(params):
        logits = IMAGES.reshape(10, 32) @ params["kernel"]
        return cross_entropy(logits), logits

    arguments = (linear, {"kernel": normal(32, 3)}, {"kernel": normal(32, 3)}, KEY)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4), measure(*arguments), trace(*arguments))


@pytest.mark.parametrize("growth", [1.0, 1.3])
@pytest.mark.parametrize("angle", [1e-6, 1e-5, 1e-3, 1.0, np.pi / 2, 3.0, np.pi - 1e-3, np.pi - 1e-5])
def test_angles_are_accurate_from_tiny_to_opposite(angle, growth):
    w, u = RNG.normal(size=(2, 64, 32))
    u -= np.sum(u * w) / np.sum(w * w) * w
    new = growth * (np.cos(angle) * w + np.sin(angle) * norm64(w) / norm64(u) * u)
    w, new = jnp.float32(w), jnp.float32(new)
    expected = angle64(new, w)  # of the rounded arrays: rounding turns them, too
    assert expected == pytest.approx(angle, rel=1e-2)
    np.testing.assert_allclose(angle_step(w, new), expected, rtol=1e-3 if growth != 1.0 else 1e-5)


def test_a_zero_kernel_has_no_angle():
    zero, w = jnp.zeros((4, 3)), normal(4, 3)
    for before, after in ((zero, zero), (zero, w), (w, zero), (w, w)):
        assert angle_step(before, after) == 0.0


@pytest.mark.parametrize("spectrum", [[4.0, 3.0, -2.0, 0.5, 0.0], [-4.0, 3.0, 2.0, -1.0, 0.0]])
def test_a_quadratic_with_known_spectrum(spectrum):
    rotation = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
    hessian = jnp.float32(rotation @ np.diag(spectrum) @ rotation.T)
    found = top_hessian_eigenvalue(lambda w: w @ hessian @ w / 2 + jnp.sum(w), jnp.ones(5), KEY, iterations=40)
    # The quotient's error is below the start's spread over the other directions times (3/4)^(2 * 39) = 2e-10.
    np.testing.assert_allclose(found, spectrum[0], rtol=1e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_hessian_of_a_dense_net(sign):
    weights = RNG.normal(size=42)
    with jax.enable_x64(True):
        spectrum = np.linalg.eigvalsh(jax.jit(jax.hessian(dense_net))(jnp.asarray(weights, jnp.float64)))
    expected = sign * spectrum[np.argmax(np.abs(spectrum))]
    found = top_hessian_eigenvalue(lambda w: sign * dense_net(w), jnp.float32(weights), KEY, iterations=200)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_hessian_of_a_tree_with_a_convolution(measured):
    flat, unravel = jax.flatten_util.ravel_pytree(PARAMS)
    spectrum = np.linalg.eigvalsh(np.float64(jax.jit(jax.hessian(lambda w: conv_net(unravel(w))[0]))(flat)))
    np.testing.assert_allclose(measured["hessian_eigenvalue"], spectrum[np.argmax(np.abs(spectrum))], rtol=1e-4)


def test_power_iteration_goes_as_far_as_it_is_told_from_where_the_key_says():
    """Curvatures 1 and 0.95: 15 products are far from the end, and each start is at another distance from it."""

    def quadratic(params):
        return jnp.sum(jnp.array([[1.0, 0.95]]) * params["kernel"] ** 2) / 2, params["kernel"]

    def found(key=KEY, **iterations):
        params = {"kernel": jnp.ones((1, 2))}
        return float(measure(quadratic, params, params, key, **iterations)["hessian_eigenvalue"])

    assert found() == found(iterations=15)
    assert len({found(iterations=1), found(iterations=15), found(iterations=200)}) == 3
    assert found(iterations=1) != found(jax.random.key(1), iterations=1)
    np.testing.assert_allclose(found(iterations=200), 1.0, rtol=1e-6)


def test_no_curvature_is_zero():
    assert top_hessian_eigenvalue(jnp.sum, jnp.ones(3), KEY, iterations=5) == 0.0


def test_a_normalised_layer_hides_its_norm_from_the_loss():
    """L(c w) = L(w) for every c, so that grad L(c w) = grad L(w) / c and H(c w) = H(w) / c^2.

    For all parameters together this holds where c scales all of them, as here; else for the layer's block. BatchNorm's
    epsilon, absent here, breaks it for small kernels.
    """
    inputs, head = normal(10, 8), normal(6, 3)

    def normalised(params):
        x = inputs @ params["kernel"]
        x = (x - x.mean(0, keepdims=True)) / x.std(0, keepdims=True)
        logits = jnp.tanh(x) @ head
        return cross_entropy(logits), logits

    w, c = normal(8, 6), 8.0
    one = measure(normalised, {"kernel": w}, {"kernel": 1.1 * w}, KEY)
    large = measure(normalised, {"kernel": c * w}, {"kernel": 1.1 * c * w}, KEY)
    powers = {"gradient_norm": -1, "logit_norm": 0, "weight_norm": 1, "update_norm": 1, "hessian_eigenvalue": -2}
    for name, power in powers.items():
        np.testing.assert_allclose(large[name], one[name] * c**power, rtol=1e-4, err_msg=name)


def test_large_logits_flatten_the_loss():
    """A separable problem: a growing kernel classifies the same, and gradient and Hessian vanish."""
    inputs = 3.0 * jax.nn.one_hot(LABELS, 3)

    def linear(params):
        logits = inputs @ params["kernel"]
        return cross_entropy(logits), logits

    steep, flat = (measure(linear, {"kernel": k}, {"kernel": k}, KEY) for k in (jnp.eye(3), 3.0 * jnp.eye(3)))
    np.testing.assert_allclose(flat["logit_norm"], 3 * steep["logit_norm"], rtol=1e-6)
    # 1 - p is 2 / (e^3 + 2) = 0.09 before and 2 / (e^9 + 2) = 2.5e-4 after; both derivatives are in proportion to it.
    assert flat["gradient_norm"] < 0.01 * steep["gradient_norm"]
    assert 0.0 < flat["hessian_eigenvalue"] < 0.01 * steep["hessian_eigenvalue"]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"^params must contain a kernel, .* got \['scale'\]$"):
        trace(conv_net, {"scale": jnp.ones(3)}, {"scale": jnp.ones(3)}, KEY)
    with pytest.raises(ValueError, match=r"^iterations must be at least 1, got 0$"):
        top_hessian_eigenvalue(jnp.sum, jnp.ones(3), KEY, iterations=0)
