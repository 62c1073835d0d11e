"""LAWN inside JAX programs: traced free steps, one compilation, vmap, pmap, shard_map, sharded parameters, saving."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from adamlab.optim.adam import adam
from adamlab.optim.constraints import keep_on_sphere, project_to_tangent
from adamlab.optim.lawn import lawn
from adamlab.optim.relatives import adamp
from adamlab.optim.schedules import three_phase_schedule
from adamlab.optim.variants import adam_lawn, lamb_lawn, sgd_lawn
from tests.optim import toy

STEPS = 20


def train(free_steps, learning_rate=0.03, params=toy.PARAMS, gradients=toy.gradients):
    """A pure function of arrays: all steps of a training."""
    optimizer = adam_lawn(learning_rate, free_steps)

    def body(carry, count):
        return toy.step(optimizer, *carry, count, gradients), None

    (params, state), _ = jax.lax.scan(body, (params, optimizer.init(params)), jnp.arange(STEPS))
    return params, state.radius


@pytest.fixture(scope="module")
def expected():
    """Parameters and radii by number of free steps, each number in a program of its own."""
    return {n: jax.jit(lambda n=n: train(n))() for n in (0, 7, 100)}


@pytest.mark.parametrize("at_switch", ["keep", "reset", "transport"])
def test_one_compilation_serves_both_phases_and_every_number_of_free_steps(at_switch):
    compilations = []

    @jax.jit
    def step(params, state, free_steps, count):
        compilations.append(None)
        optimizer = lawn(adam(0.03), free_steps=free_steps, at_switch=at_switch)
        return toy.step(optimizer, params, state, count)

    for free_steps in (0, 3):
        params, state = toy.PARAMS, lawn(adam(0.03), free_steps=0, at_switch=at_switch).init(toy.PARAMS)
        for count in range(5):
            params, state = step(params, state, free_steps, count)
    assert len(compilations) == 1


def test_free_steps_may_be_traced_and_vmapped(expected):
    traced = jax.jit(train)
    for free_steps, result in expected.items():
        toy.assert_close(traced(free_steps), result)
    grid = jax.jit(jax.vmap(train))(jnp.array(list(expected)))
    for i, result in enumerate(expected.values()):
        toy.assert_close(jax.tree.map(lambda x, i=i: x[i], grid), result)


def test_a_fraction_of_a_free_step_counts_as_a_whole_one(expected):
    toy.assert_close(jax.jit(train)(6.5), expected[7])


def test_a_python_loop_equals_a_scan(expected):
    optimizer = adam_lawn(0.03, 7)
    step = jax.jit(lambda params, state, count: toy.step(optimizer, params, state, count))
    params, state = toy.PARAMS, optimizer.init(toy.PARAMS)
    for count in range(STEPS):
        params, state = step(params, state, count)
    toy.assert_close((params, state.radius), expected[7])


@pytest.mark.parametrize("optimizer", [lawn(optax.adam(0.03), free_steps=1), sgd_lawn(0.03, 1), adamp(0.03)])
def test_states_may_be_donated(optimizer):
    step = jax.jit(lambda params, state, count: toy.step(optimizer, params, state, count), donate_argnums=(0, 1))
    carry = (jax.tree.map(jnp.copy, toy.PARAMS), optimizer.init(toy.PARAMS))
    for count in range(3):
        carry = step(*carry, count)
    assert jnp.all(jnp.isfinite(carry[0]["conv/kernel"]))


def split_gradients(share, axis_name):
    """Each device sees gradients of its own; their mean is the gradient of the toy problem."""

    def gradients(params, count):
        grads = {k: g + share for k, g in toy.gradients(params, count).items()}
        return jax.lax.pmean(grads, axis_name)

    return gradients


SHARES = np.array([-1.0, 0.0, 2.0, -1.0], np.float32)  # their mean is 0


def test_pmap(expected):
    def run(share):
        return train(7, gradients=split_gradients(share, "data"))

    result = jax.pmap(run, axis_name="data")(SHARES)
    for device in range(4):
        toy.assert_close(jax.tree.map(lambda x, i=device: x[i], result), expected[7], rtol=1e-5, atol=1e-5)


def test_shard_map(expected):
    def run(share):
        return train(7, gradients=split_gradients(share[0], "data"))

    mesh = Mesh(jax.devices(), "data")
    result = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=P("data"), out_specs=P()))(SHARES)
    toy.assert_close(result, expected[7], rtol=1e-5, atol=1e-5)


MASK = {name: name in toy.KERNELS for name in toy.PARAMS}


@pytest.mark.parametrize("optimizer", [adam_lawn(0.03, 2), optax.chain(project_to_tangent(), keep_on_sphere())])
def test_shard_map_may_train_another_model_on_each_device(optimizer):
    def train_own(kernels):
        def body(carry, _):
            kernel, state = carry
            updates, state = optimizer.update(jnp.sin(kernel), state, kernel)
            return (optax.apply_updates(kernel, updates), state), None

        carry = kernels[0], optimizer.init(kernels[0])
        return jax.lax.scan(body, carry, length=5)[0][0][None]

    kernels = jax.random.normal(jax.random.key(0), (4, 3, 2))
    spread = jax.shard_map(train_own, mesh=Mesh(jax.devices(), "each"), in_specs=P("each"), out_specs=P("each"))
    toy.assert_close(jax.jit(spread)(kernels), jnp.concatenate([train_own(kernel[None]) for kernel in kernels]))


@pytest.mark.parametrize("make", [adam_lawn, sgd_lawn, lamb_lawn, partial(adam_lawn, mask=MASK)])
def test_norms_are_global_where_parameters_are_split_over_devices(make):
    mesh, optimizer = Mesh(jax.devices(), "model"), make(0.03, 5)
    specs = {"conv/kernel": P(None, None, None, "model"), "conv/bias": P("model"), "dense/kernel": P(), "scale": P()}
    shardings = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
    params = jax.device_put(toy.PARAMS, shardings)
    state = jax.jit(optimizer.init)(params)
    # What shards a state like the parameters shards moments only: radii are no parameters.
    shard = optax.tree.map_params(
        optimizer,
        lambda _, sharding: sharding,
        state,
        shardings,
        transform_non_params=lambda x: jax.tree.map(lambda _: NamedSharding(mesh, P()), x),
    )
    state = jax.device_put(state, shard)
    step = jax.jit(lambda params, state, count: toy.step(optimizer, params, state, count))
    for count in range(STEPS):
        params, state = step(params, state, count)
    assert params["conv/kernel"].addressable_shards[0].data.shape == (3, 3, 2, 1)
    trajectory, single = toy.run(optimizer, steps=STEPS)
    toy.assert_close((params, state.radius), (jax.tree.map(lambda x: x[-1], trajectory), single.radius))


@pytest.mark.parametrize("unit_axis", [None, -1])
def test_axes_of_a_mesh_may_be_explicit(unit_axis):
    """There shardings are part of types, and a select refuses radii that do not lie where the norms do."""
    mesh = jax.make_mesh((len(jax.devices()),), ("model",), axis_types=(AxisType.Explicit,))
    optimizer = lawn(optax.sgd(0.03, 0.9), free_steps=2, unit_axis=unit_axis)
    weights = {"w": jax.random.normal(jax.random.key(0), (3, 8))}

    def run(params):
        state = optimizer.init(params)
        for _ in range(5):
            gradients = jax.tree.map(jnp.sin, params)
            updates, state = optimizer.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
        return params, state.radius

    expected = run(weights)
    with jax.set_mesh(mesh):
        sharded = jax.jit(run)(jax.device_put(weights, NamedSharding(mesh, P(None, "model"))))
    toy.assert_close(jax.device_get(sharded), expected)


def test_everything_is_traceable_at_once():
    @jax.vmap
    def run(peak, free_steps, warmup_steps):
        schedule = three_phase_schedule(peak, free_steps, warmup_steps, STEPS)
        return train(free_steps, schedule)

    params, radius = run(jnp.array([0.01, 0.1]), jnp.array([2, 5]), jnp.array([0, 3]))
    schedule = three_phase_schedule(0.1, 5, 3, STEPS)
    alone = train(5, schedule)
    toy.assert_close(jax.tree.map(lambda x: x[1], (params, radius)), alone, rtol=1e-5, atol=1e-6)


def test_state_is_restored_into_an_abstract_target(tmp_path):
    optimizer = adam_lawn(0.03, 3)
    _, state = toy.run(optimizer, steps=5)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", jax.eval_shape(optimizer.init, toy.PARAMS))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    toy.assert_equal(restored, state)
    # Training goes on as if nothing had happened.
    params = toy.PARAMS
    toy.assert_equal(*(toy.step(optimizer, params, s, 5) for s in (restored, state)))


def test_float64_parameters_have_float64_norms():
    with jax.enable_x64(True):
        params = {"w": jnp.asarray(toy.PARAMS64["conv/kernel"])}
        optimizer = adam_lawn(0.1, 0)
        updates, state = optimizer.update(params, optimizer.init(params), params)
        assert state.radius["w"].dtype == updates["w"].dtype == jnp.float64
        radius = np.linalg.norm(toy.PARAMS64["conv/kernel"])
        np.testing.assert_allclose(jnp.linalg.norm(params["w"] + updates["w"]), radius, rtol=1e-14)
