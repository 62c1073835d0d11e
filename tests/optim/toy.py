"""A small noisy problem for optimizer tests, in float64 for NumPy and in float32 for JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

STEPS = 300
KERNELS = ("conv/kernel", "dense/kernel")

_rng = np.random.default_rng(0)
_SHAPES = {"conv/kernel": (3, 3, 2, 4), "conv/bias": (4,), "dense/kernel": (6, 3), "scale": ()}
PARAMS64 = {name: _rng.normal(size=shape) for name, shape in _SHAPES.items()}
_TARGETS = {name: 2.0 * _rng.normal(size=shape) for name, shape in _SHAPES.items()}
_CURVATURES = {name: _rng.uniform(0.1, 2.0, size=shape) for name, shape in _SHAPES.items()}
_NOISE64 = {name: 0.3 * _rng.normal(size=(STEPS, *shape)) for name, shape in _SHAPES.items()}

PARAMS = {name: jnp.asarray(w, jnp.float32) for name, w in PARAMS64.items()}
_NOISE = {name: jnp.asarray(x, jnp.float32) for name, x in _NOISE64.items()}


def gradients64(params, step):
    """Of sum(curvature / 2 * (w - target)^2), with noise as from minibatches."""
    return {k: _CURVATURES[k] * (w - _TARGETS[k]) + _NOISE64[k][step] for k, w in params.items()}


def gradients(params, step):
    """The same in float32."""
    return {k: _CURVATURES[k] * (w - _TARGETS[k]) + _NOISE[k][step % STEPS] for k, w in params.items()}


def step(optimizer, params, state, count, gradients=gradients):
    updates, state = optimizer.update(gradients(params, count), state, params)
    return optax.apply_updates(params, updates), state


def run(optimizer, params=PARAMS, steps=STEPS, gradients=gradients):
    """Trains in one compiled scan. Returns the parameters after every step and the last state."""

    def body(carry, count):
        carry = step(optimizer, *carry, count, gradients)
        return carry, carry[0]

    carry = (params, optimizer.init(params))
    (_, state), trajectory = jax.jit(lambda carry: jax.lax.scan(body, carry, jnp.arange(steps)))(carry)
    return jax.device_get(trajectory), state


def norm64(w):
    return np.linalg.norm(np.asarray(w, np.float64).reshape(-1))


def assert_equal(actual, desired):
    jax.tree.map(np.testing.assert_array_equal, actual, desired)


def assert_close(actual, desired, rtol=1e-6, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), actual, desired)
