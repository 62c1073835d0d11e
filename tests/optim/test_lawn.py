"""LAWN: both phases against a float64 reference, the switch, radii over many steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adamlab.optim.adam import adam
from adamlab.optim.lawn import adam_lawn, lamb_lawn, lawn, sgd_lawn
from tests.optim import reference, toy

INNERS = {
    "adam": adam(0.03),
    "nesterov": optax.sgd(0.03, 0.9, nesterov=True),
    "lamb": optax.lamb(0.03),
    "schedule": optax.adam(optax.cosine_decay_schedule(0.03, 100)),
}
OPTIONS = [{"unit_axis": -1, "project_update": True}, {"at_switch": "reset"}, {"at_switch": "transport"}]


def assert_matches_reference(optimizer, inner, **options):
    trajectory, _ = toy.run(optimizer)
    expected = list(reference.lawn(inner, toy.PARAMS64, toy.gradients64, steps=toy.STEPS, **options))
    for name in toy.PARAMS64:
        np.testing.assert_allclose(trajectory[name], [w[name] for w in expected], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("free_steps", [0, 1, 100])
def test_adam_lawn_matches_the_reference(free_steps):
    assert_matches_reference(adam_lawn(0.03, free_steps), reference.Adam(0.03), free_steps=free_steps)


def test_lamb_lawn_matches_the_reference():
    assert_matches_reference(lamb_lawn(0.03, 100), reference.Lamb(0.03, eps=1e-6), free_steps=100)


@pytest.mark.parametrize(("make", "inner"), [(adam_lawn, reference.Adam), (lamb_lawn, reference.Lamb)])
def test_decay_rates_and_epsilon_are_the_inner_optimizers(make, inner):
    settings = {"b1": 0.8, "b2": 0.9, "eps": 1e-2}
    assert_matches_reference(make(0.03, 100, **settings), inner(0.03, **settings), free_steps=100)


@pytest.mark.parametrize(("make", "inner"), [(adam_lawn, optax.adam), (lamb_lawn, optax.lamb)])
def test_an_epsilon_inside_the_root_is_the_inner_optimizers(make, inner):
    trajectory, _ = toy.run(make(0.03, 5, eps_root=1e-2), steps=20)
    expected, _ = toy.run(lawn(inner(0.03, eps_root=1e-2), free_steps=5), steps=20)
    toy.assert_close(trajectory, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_lawn_matches_the_reference_with_weight_decay_in_the_free_phase_only(nesterov):
    inner = reference.Sgd(0.03, 0.9, nesterov, weight_decay=0.1)

    def end_decay(tangent):
        inner.weight_decay = 0.0

    optimizer = sgd_lawn(0.03, 100, 0.9, nesterov, weight_decay=0.1)
    assert_matches_reference(optimizer, inner, free_steps=100, at_switch=end_decay)


@pytest.mark.parametrize("options", [{"unit_axis": -1}, {"unit_axis": 0}, {"project_update": True}])
def test_options_match_the_reference(options):
    optimizer = lawn(adam(0.03), free_steps=100, **options)
    assert_matches_reference(optimizer, reference.Adam(0.03), free_steps=100, **options)


def test_unit_spheres_with_projected_updates_match_the_reference():
    options = {"unit_axis": -1, "project_update": True}
    optimizer = lawn(optax.sgd(0.03, 0.9), free_steps=100, **options)
    assert_matches_reference(optimizer, reference.Sgd(0.03, 0.9), free_steps=100, **options)


def test_reset_matches_the_reference_and_leaves_the_schedule_running():
    inner, schedule = reference.Adam(None), optax.linear_schedule(0.05, 0.01, 200)
    steps = iter(range(toy.STEPS))

    def scheduled(grads, params):
        inner.learning_rate = float(schedule(next(steps)))
        return inner(grads, params)

    def reset(tangent):
        inner.t, inner.m, inner.v = 0, None, None

    optimizer = lawn(adam(schedule), free_steps=100, at_switch="reset")
    assert_matches_reference(optimizer, scheduled, free_steps=100, at_switch=reset)


def test_reset_happens_after_a_fraction_of_a_free_step_too():
    trajectory, _ = toy.run(lawn(adam(0.03), free_steps=2.5, at_switch="reset"), steps=10)
    expected, _ = toy.run(lawn(adam(0.03), free_steps=3, at_switch="reset"), steps=10)
    toy.assert_close(trajectory, expected)


def test_reset_keeps_what_a_person_set_and_where_training_is():
    """A learning rate that was lowered by hand stays low, and what is due from a step on goes on being so."""
    params = {"kernel": jnp.array([[3.0, 4.0]])}
    gradient = {"kernel": jnp.array([[1.0, 0.0]])}
    injected = lawn(optax.inject_hyperparams(optax.sgd)(0.1, 0.9), free_steps=2, at_switch="reset")
    later = optax.conditionally_transform(optax.scale(0.1), lambda step: step >= 2)
    conditional = lawn(optax.chain(optax.sgd(0.1, 0.9), later), free_steps=2, at_switch="reset")
    state, other = injected.init(params), conditional.init(params)
    state.inner_state.hyperparams["learning_rate"] = jnp.float32(1e-3)
    for _ in range(4):
        _, state = injected.update(gradient, state, params)
        _, other = conditional.update(gradient, other, params)
    assert state.inner_state.hyperparams["learning_rate"] == jnp.float32(1e-3)
    assert other.inner_state[1].step == 4
    # The momentum did start afresh: two steps of 1 - 0.6 * 0.6, the gradient without what it has along w.
    for trace in (state.inner_state.inner_state[0].trace, other.inner_state[0][0].trace):
        np.testing.assert_allclose(trace["kernel"][0, 0], 1.9 * 0.64, rtol=1e-6)


@pytest.mark.parametrize("unit_axis", [None, -1])
@pytest.mark.parametrize(
    ("optimizer", "inner", "moment"),
    [(adam(0.03), reference.Adam, "m"), (optax.sgd(0.03, 0.9), partial(reference.Sgd, momentum=0.9), "velocity")],
    ids=["adam", "momentum"],
)
def test_transport_projects_the_first_moments_at_the_switch(optimizer, inner, moment, unit_axis):
    inner = inner(0.03)

    def transport(tangent):
        setattr(inner, moment, tangent(getattr(inner, moment)))

    optimizer = lawn(optimizer, free_steps=100, at_switch="transport", unit_axis=unit_axis)
    assert_matches_reference(optimizer, inner, free_steps=100, at_switch=transport, unit_axis=unit_axis)


@pytest.mark.parametrize(("inner", "options"), [*((i, {}) for i in INNERS), *(("adam", o) for o in OPTIONS)], ids=str)
def test_free_phase_is_the_inner_optimizer_bit_for_bit(inner, options):
    # Op by op: under jit, fusion may change last digits. NumPy's == takes 0 and -0 for equal, and they may differ.
    inner, optimizer = INNERS[inner], lawn(INNERS[inner], free_steps=3, **options)
    params, state, inner_state = toy.PARAMS, optimizer.init(toy.PARAMS), inner.init(toy.PARAMS)
    with jax.disable_jit():
        for step in range(3):
            grads = toy.gradients(params, step)
            updates, state = optimizer.update(grads, state, params)
            expected, inner_state = inner.update(grads, inner_state, params)
            toy.assert_equal((updates, state.inner_state), (expected, inner_state))
            params = optax.apply_updates(params, updates)
        updates, _ = optimizer.update(toy.gradients(params, 3), state, params)
        expected, _ = inner.update(toy.gradients(params, 3), inner_state, params)
        assert not np.array_equal(updates["conv/kernel"], expected["conv/kernel"])


@pytest.mark.parametrize("inner", ["adam", "lamb"])
def test_free_phase_is_the_inner_optimizer_under_jit(inner):
    trajectory, state = toy.run(lawn(INNERS[inner], free_steps=100), steps=100)
    expected, inner_state = toy.run(INNERS[inner], steps=100)
    toy.assert_close((trajectory, state.inner_state), (expected, inner_state), rtol=2e-6, atol=2e-6)


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


def test_free_leaves_follow_the_inner_optimizer_throughout():
    # Adam treats every entry by itself, so the constraint on the kernels cannot reach the others.
    trajectory, _ = toy.run(adam_lawn(0.03, 100))
    expected, _ = toy.run(adam(0.03))
    for name in ("conv/bias", "scale"):
        np.testing.assert_allclose(trajectory[name], expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("learning_rate", "options"), [(1e-4, {}), (0.3, {"unit_axis": -1, "project_update": True})], ids=str
)
def test_norms_neither_leave_the_radius_nor_drift_from_it_in_10_000_steps(learning_rate, options):
    params = {"small": jnp.ones((2, 3)), "large": jax.random.normal(jax.random.key(0), (3, 3, 8, 16))}
    grads = {k: jax.random.normal(jax.random.key(1), (32, *w.shape)) for k, w in params.items()}
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
