"""Radii, how norms keep to them over many steps, what the drift shows, and leaves without a norm."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adamlab.optim.adam import adam
from adamlab.optim.lawn import lawn
from adamlab.optim.variants import adam_lawn
from tests.optim import toy


def test_radius_is_the_norm_at_the_start_of_step_free_steps():
    trajectory, state = toy.run(adam_lawn(0.03, 100))
    assert set(state.radius) == set(toy.KERNELS)
    for name in toy.KERNELS:
        # The parameters after steps 0 to 99 are those at the start of step 100.
        at_switch = toy.norm64(trajectory[name][99])
        np.testing.assert_allclose(state.radius[name], at_switch, rtol=1.2e-7)
        norms = [toy.norm64(w) for w in trajectory[name]]
        np.testing.assert_allclose(norms[99:], at_switch, rtol=1e-6)
        assert abs(norms[98] / at_switch - 1) > 1e-4
        assert state.radius[name].shape == ()
        assert state.radius[name].dtype == jnp.float32
    assert state.count == toy.STEPS
    assert state.drift < 1e-6


def test_unit_radii_are_the_norms_of_the_units():
    trajectory, state = toy.run(lawn(adam(0.03), free_steps=5, unit_axis=-1), steps=50)
    assert state.radius["conv/kernel"].shape == (1, 1, 1, 4)
    for step in (4, 49):
        norms = [toy.norm64(trajectory["conv/kernel"][step][..., unit]) for unit in range(4)]
        np.testing.assert_allclose(state.radius["conv/kernel"].ravel(), norms, rtol=1e-6)


@pytest.mark.parametrize(
    ("learning_rate", "options"), [(1e-4, {}), (0.3, {"unit_axis": -1, "project_update": True})], ids=str
)
def test_norms_neither_leave_the_radius_nor_drift_from_it_in_10_000_steps(learning_rate, options):
    rng = np.random.default_rng(0)  # JAX would compile for ten seconds to draw arrays of such ranks
    params = {"small": jnp.ones((2, 3)), "large": jnp.float32(rng.normal(size=(3, 3, 8, 16)))}
    grads = {k: jnp.float32(rng.normal(size=(32, *w.shape))) for k, w in params.items()}
    optimizer = lawn(adam(learning_rate), free_steps=5, **options)

    @jax.jit
    def thousand_steps(params, state):
        def body(_, carry):
            return toy.step(optimizer, *carry, carry[1].count, lambda _, i: {k: g[i % 32] for k, g in grads.items()})

        return jax.lax.fori_loop(0, 1000, body, (params, state))

    state, errors = optimizer.init(params), []
    for _ in range(10):
        params, state = thousand_steps(params, state)
        for name, w in jax.device_get(params).items():
            axes = tuple(range(w.ndim - 1)) if "unit_axis" in options else None
            norms = np.sqrt(np.sum(np.square(w, dtype=np.float64), axis=axes))
            errors.append(np.max(np.abs(norms / np.squeeze(np.float64(state.radius[name])) - 1)))
    assert max(errors) < 1e-6
    # Without trend: errors that added up would be several times as large at the end as in the beginning.
    assert np.mean(errors[-6:]) < 2 * np.mean(errors[:6]) + 5e-8


def test_leaves_without_norm_at_the_switch_stay_free():
    params = {"head": jnp.zeros((3, 2)), "body": jnp.ones((3, 2))}

    def gradients(params, step):  # the head starts to move at step 5, long after the switch
        return {"head": jnp.where(step < 5, 0.0, jnp.ones((3, 2))), "body": params["body"] - 2.0}

    trajectory, state = toy.run(lawn(optax.sgd(0.1), free_steps=2), params, 10, gradients)
    assert state.radius["head"] == 0.0
    np.testing.assert_allclose(trajectory["head"][-1], -0.5, rtol=1e-6)  # five free steps of -0.1
    assert jnp.all(jnp.isfinite(trajectory["body"]))
    assert state.drift < 1e-6


def test_an_update_to_the_origin_is_passed_on_without_nan():
    w = jnp.array([[3.0, 4.0]])
    optimizer = lawn(optax.stateless(lambda updates, params: jax.tree.map(jnp.negative, params)), free_steps=0)
    updates, _ = optimizer.update(jnp.ones_like(w), optimizer.init(w), w)
    toy.assert_equal(updates, -w)


def test_bfloat16_parameters_have_float32_norms_and_keep_their_dtype():
    params = {name: w.astype(jnp.bfloat16) for name, w in toy.PARAMS.items()}
    optimizer = adam_lawn(0.03, 50)
    updates, state = jax.jit(optimizer.update)(params, optimizer.init(params), params)
    assert {u.dtype for u in updates.values()} == {jnp.dtype(jnp.bfloat16)}

    def gradients(params, step):
        return jax.tree.map(lambda g, w: g.astype(w.dtype), toy.gradients(params, step), params)

    trajectory, state = toy.run(optimizer, params, gradients=gradients)
    for name in toy.KERNELS:
        assert state.radius[name].dtype == jnp.float32
        np.testing.assert_allclose(state.radius[name], toy.norm64(trajectory[name][49]), rtol=1e-6)
        # bfloat16 rounds update and weight, each by up to 2^-9, and the next step takes those errors back.
        norms = [toy.norm64(w) for w in trajectory[name][50:]]
        np.testing.assert_allclose(norms, state.radius[name], rtol=2.0**-8)


def test_the_drift_shows_what_comes_after():
    def drift(optimizer):
        _, state = toy.run(optimizer, steps=30)
        return optax.tree.get(state, "drift")

    right = [
        optax.chain(optax.clip_by_global_norm(1.0), adam_lawn(0.03, 5)),
        lawn(optax.contrib.schedule_free(optax.sgd(0.03), 0.03), free_steps=5),
    ]
    wrong = [
        optax.chain(adam_lawn(0.03, 5), optax.clip(0.001)),
        optax.chain(adam_lawn(0.03, 5), optax.add_decayed_weights(-0.01)),
        optax.chain(lawn(optax.scale_by_adam(), free_steps=5), optax.scale_by_learning_rate(0.03)),
        optax.contrib.schedule_free(lawn(optax.sgd(0.03), free_steps=5), 0.03),
    ]
    assert all(drift(optimizer) < 1e-6 for optimizer in right)
    assert all(drift(optimizer) > 1e-4 for optimizer in wrong)


def test_weights_that_are_nan_have_a_drift_that_is_nan():
    optimizer = lawn(optax.sgd(0.1), free_steps=0)
    gradients = toy.PARAMS | {"dense/kernel": toy.PARAMS["dense/kernel"].at[0, 0].set(jnp.nan)}
    state, params = optimizer.init(toy.PARAMS), toy.PARAMS
    for _ in range(2):
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    assert np.isnan(state.drift)


def test_the_drift_remembers_what_has_stopped():
    """The next update puts a norm right again: what a seldom clipping did must still be seen at the end."""
    once = optax.conditionally_transform(optax.scale(0.5), lambda step: step == 10)
    _, state = toy.run(optax.chain(adam_lawn(0.03, 5), once), steps=30)
    assert optax.tree.get(state, "drift") > 1e-5


@pytest.mark.parametrize("name", toy.KERNELS)
def test_the_drift_is_that_of_the_unit_which_moved_most(name):
    optimizer = lawn(adam(0.03), free_steps=0, unit_axis=-1)
    _, state = optimizer.update(toy.gradients(toy.PARAMS, 0), optimizer.init(toy.PARAMS), toy.PARAMS)
    moved = toy.PARAMS | {name: toy.PARAMS[name].at[..., 1].multiply(1.25)}
    _, state = optimizer.update(toy.gradients(moved, 1), state, moved)
    np.testing.assert_allclose(state.drift, 0.25, rtol=1e-5)


@pytest.mark.parametrize("free_steps", [0, 2, 10])
def test_who_differentiates_through_a_training_gets_the_inner_optimizers_gradient_from_zero_leaves(free_steps):
    """As meta-learning does. A leaf that is 0 and stays so has a square root whose derivative is infinite."""
    params = {"a": jnp.array([[0.6, -0.8]]), "head": jnp.zeros((2, 1))}

    def end(params, learning_rate, wrap):
        optimizer = wrap(optax.sgd(learning_rate))
        state = optimizer.init(params)
        for _ in range(3):
            updates, state = optimizer.update(
                jax.grad(lambda p: jnp.sum((p["a"] @ p["head"]) ** 2))(params), state, params
            )
            params = optax.apply_updates(params, updates)
        return jnp.sum((params["a"] @ (params["head"] + 1.0)) ** 2)

    found = jax.grad(end, (0, 1))(params, 0.1, lambda inner: lawn(inner, free_steps=free_steps))
    expected = jax.grad(end, (0, 1))(params, 0.1, lambda inner: inner)
    toy.assert_close(found[0]["head"], expected[0]["head"])
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_who_goes_back_step_by_step_with_a_cotangent_for_all_of_the_state_gets_no_nan_from_zero_leaves():
    """As truncated backpropagation does: the drift's cotangent is an array of 0 then, not a missing one."""
    optimizer, params = lawn(optax.sgd(0.1), free_steps=0), {"head": jnp.zeros((2, 1))}
    state = optimizer.init(params)
    results, pull = jax.vjp(lambda p: optimizer.update({"head": jnp.ones((2, 1))}, state, p), params)
    is_whole = lambda x: jnp.issubdtype(x.dtype, jnp.integer)  # noqa: E731
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, jax.dtypes.float0) if is_whole(x) else 0 * x, results)
    toy.assert_close(pull(zeros)[0], {"head": np.zeros((2, 1))})
