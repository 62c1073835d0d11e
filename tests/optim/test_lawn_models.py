"""LAWN on the parameter trees of Linen, NNX, Equinox and Haiku, and convergence on Optax's own test problems."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from adamlab.optim.lawn import lawn
from adamlab.optim.leaves import kernel_mask
from adamlab.optim.relatives import adamp, fixed_norm
from adamlab.optim.variants import adam_lawn, lamb_lawn, sgd_lawn
from tests.optim import toy

X = jax.random.normal(jax.random.key(0), (16, 3))
Y = jnp.sin(2.0 * X[:, :2])
K1, B1 = jax.random.normal(jax.random.key(1), (3, 4)), jnp.full(4, 0.1)
K2, B2 = jax.random.normal(jax.random.key(2), (4, 2)), jnp.full(2, 0.2)


def linen_model():
    model = linen.Sequential([linen.Dense(4), jnp.tanh, linen.Dense(2)])
    params = {"layers_0": {"kernel": K1, "bias": B1}, "layers_2": {"kernel": K2, "bias": B2}}
    kernels = lambda params: (params["layers_0"]["kernel"], params["layers_2"]["kernel"])  # noqa: E731
    return params, lambda params: model.apply({"params": params}, X), kernels


def nnx_sequential():
    model = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), jnp.tanh, nnx.Linear(4, 2, rngs=nnx.Rngs(0)))
    for layer, kernel, bias in ((model.layers[0], K1, B1), (model.layers[2], K2, B2)):
        layer.kernel[...], layer.bias[...] = kernel, bias
    return model


def nnx_model():
    graph, params = nnx.split(nnx_sequential(), nnx.Param)

    def kernels(params):
        layers = nnx.merge(graph, params).layers
        return layers[0].kernel[...], layers[2].kernel[...]

    return params, lambda params: nnx.merge(graph, params)(X), kernels


def equinox_model():
    eqx = pytest.importorskip("equinox")
    layers = [eqx.nn.Linear(3, 4, key=jax.random.key(0)), eqx.nn.Linear(4, 2, key=jax.random.key(0))]
    model = eqx.nn.Sequential([layers[0], eqx.nn.Lambda(jnp.tanh), layers[1]])
    where = lambda m: (m[0].weight, m[0].bias, m[2].weight, m[2].bias)  # noqa: E731
    model = eqx.tree_at(where, model, (K1.T, B1, K2.T, B2))
    params, static = eqx.partition(model, eqx.is_array)
    return params, lambda params: jax.vmap(eqx.combine(params, static))(X), lambda p: (p[0].weight.T, p[2].weight.T)


def haiku_model():
    hk = pytest.importorskip("haiku")
    model = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([4, 2], activation=jnp.tanh)(x)))
    params = {"mlp/~/linear_0": {"w": K1, "b": B1}, "mlp/~/linear_1": {"w": K2, "b": B2}}
    return params, lambda p: model.apply(p, X), lambda p: (p["mlp/~/linear_0"]["w"], p["mlp/~/linear_1"]["w"])


@pytest.fixture(scope="module")
def expected():
    """The kernels as the same network in plain JAX learns them."""

    def output(w):
        return jnp.tanh(X @ w["k1"] + w["b1"][None]) @ w["k2"] + w["b2"][None]

    params = {"k1": K1, "b1": B1, "k2": K2, "b2": B2}
    return train(params, output, lambda w: (w["k1"], w["k2"]))


def train(params, output, kernels):
    """Ten steps of Adam-LAWN, of which four are free."""
    optimizer = adam_lawn(0.03, 4)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        grads = jax.grad(lambda params: jnp.mean(jnp.square(output(params) - Y)))(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(10):
        params, state = step(params, state)
    assert len(state.radius) == 2
    assert state.drift < 1e-6
    return kernels(params)


@pytest.mark.parametrize("model", [linen_model, nnx_model, equinox_model, haiku_model])
def test_libraries_give_the_same_trajectory(model, expected):
    for actual, desired in zip(train(*model()), expected, strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-5, atol=1e-6)


def test_nnx_optimizer(expected):
    model = nnx_sequential()
    optimizer = nnx.Optimizer(model, adam_lawn(0.03, 4), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        grads = nnx.grad(lambda model: jnp.mean(jnp.square(model(X) - Y)))(model)
        optimizer.update(model, grads)

    for _ in range(10):
        step(model, optimizer)
    np.testing.assert_allclose(model.layers[0].kernel[...], expected[0], rtol=1e-5, atol=1e-6)


def test_biases_of_rank_2_and_more_are_no_kernels():
    attention = linen.MultiHeadDotProductAttention(num_heads=2).init(jax.random.key(0), jnp.ones((1, 3, 4)))["params"]
    assert kernel_mask(attention)["query"] == {"bias": False, "kernel": True}
    eqx = pytest.importorskip("equinox")
    conv = eqx.filter(eqx.nn.Conv2d(3, 4, 3, key=jax.random.key(0)), eqx.is_array)
    mask = kernel_mask(conv)
    assert (mask.weight, mask.bias) == (True, False)


class Attention(NamedTuple):
    """Fields of which one has the name that boxes give to what they hold."""

    query: jax.Array
    value: jax.Array
    bias: jax.Array


def test_a_field_called_value_keeps_its_name():
    """Below a module called "b", a name of biases, it would be none of the kernels."""
    attention = Attention(jnp.ones((2, 2)), jnp.full((2, 2), 2.0), jnp.ones(2))
    assert kernel_mask({"b": attention}) == {"b": Attention(True, True, False)}
    params = {"b": attention, "boxed": linen.Partitioned(jnp.full((2, 2), 3.0), (None, None))}
    optimizer = lawn(optax.sgd(0.1), free_steps=0)
    gradients = jax.tree.map(lambda leaf: 1.0 + jnp.arange(leaf.size, dtype=float).reshape(leaf.shape), params)
    updates, state = optimizer.update(gradients, optimizer.init(params), params)
    assert {name: float(radius) for name, radius in state.radius.items()} == {"b/query": 2, "b/value": 4, "boxed": 6}
    end = optax.apply_updates(params, updates)
    for weight, norm in ((end["b"].query, 2.0), (end["b"].value, 4.0), (end["boxed"].value, 6.0)):
        np.testing.assert_allclose(np.linalg.norm(weight), norm, rtol=1e-6)
    assert (end["b"].value != attention.value).all()


def test_a_mask_with_the_structure_of_an_equinox_module_is_no_function():
    """Although it can be called."""
    eqx = pytest.importorskip("equinox")
    params = eqx.filter(eqx.nn.MLP(4, 3, 8, 1, key=jax.random.key(0)), eqx.is_array)
    mask = kernel_mask(params)
    assert callable(mask)
    given = lawn(optax.adam(1e-2), free_steps=1, mask=mask).init(params)
    assert given.radius.keys() == lawn(optax.adam(1e-2), free_steps=1).init(params).radius.keys()


def test_haikus_shifts_of_rank_4_and_biases_of_rank_3_are_no_kernels():
    hk = pytest.importorskip("haiku")

    def forward(x):
        x = hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9)(hk.Conv2D(4, 3)(x), is_training=True)
        return hk.Conv2D(4, 3, data_format="NCHW")(x)

    params, _ = hk.transform_with_state(forward).init(jax.random.key(0), jnp.ones((1, 4, 8, 8)))
    constrained = lawn(optax.sgd(0.1), free_steps=2).init(params).radius
    assert sorted(constrained) == ["conv2_d/w", "conv2_d_1/w"]


# Optax's problems: parabola, Rosenbrock's function and a parabola of matrices. The starts have the norms of the
# minima, which are then the minima on the spheres as well.
MINIMA = {"parabola": [[1.0, -1.0, 1.0]], "rosenbrock": [[1.0, 1.0]], "matrix": [[3.0, -2.0], [1.0, 4.0]]}
STARTS = {"parabola": [[3**0.5, 0.0, 0.0]], "rosenbrock": [[1.3, 0.31**0.5]], "matrix": [[30**0.5, 0.0], [0.0, 0.0]]}
STEPS = 3000
SCHEDULE = optax.cosine_decay_schedule(0.1, STEPS)
OPTIMIZERS = {
    "adam_lawn": adam_lawn(SCHEDULE, 0),
    "sgd_lawn": sgd_lawn(lambda count: 0.01 * SCHEDULE(count), 0),
    "lamb_lawn": lamb_lawn(SCHEDULE, 0),
    "fixed_norm": fixed_norm(optax.adam(SCHEDULE)),
    "project_update": lawn(optax.adam(SCHEDULE), free_steps=0, project_update=True),
    "free": adam_lawn(SCHEDULE, STEPS),
    "adamp": adamp(SCHEDULE),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_converges(optimizer):
    minima = {name: jnp.array(minimum) for name, minimum in MINIMA.items()}

    def objective(params):
        x, y = params["rosenbrock"][0]
        rosenbrock = (1.0 - x) ** 2 + 100.0 * (y - x**2) ** 2
        return rosenbrock + sum(jnp.sum((params[name] - minima[name]) ** 2) for name in ("parabola", "matrix"))

    start = {name: jnp.array(w) for name, w in STARTS.items()}
    trajectory, _ = toy.run(OPTIMIZERS[optimizer], start, STEPS, lambda params, _: jax.grad(objective)(params))
    for name, minimum in MINIMA.items():
        np.testing.assert_allclose(trajectory[name][-1], minimum, rtol=3e-2, atol=3e-2)
