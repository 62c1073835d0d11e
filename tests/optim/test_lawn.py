"""LAWN: both phases against a float64 reference, and the switch between them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adamlab.optim.adam import adam
from adamlab.optim.lawn import lawn
from adamlab.optim.variants import adam_lawn, lamb_lawn, sgd_lawn
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


def test_reset_keeps_a_learning_rate_that_a_plateau_has_reduced():
    plateau = optax.contrib.reduce_on_plateau(factor=0.1, patience=1)
    optimizer = lawn(optax.chain(optax.sgd(0.1), plateau), free_steps=4, at_switch="reset")
    params, scales = {"kernel": jnp.array([[3.0, 4.0]])}, []
    state = optimizer.init(params)
    for _ in range(6):  # the loss never falls, so every step but the first is one of a plateau
        _, state = optimizer.update(params, state, params, value=1.0)
        scales.append(float(state.inner_state[1].scale))
    np.testing.assert_allclose(scales, [1, 0.1, 1e-2, 1e-3, 1e-4, 1e-5], rtol=1e-6)


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


def test_free_leaves_follow_the_inner_optimizer_throughout():
    # Adam treats every entry by itself, so the constraint on the kernels cannot reach the others.
    trajectory, _ = toy.run(adam_lawn(0.03, 100))
    expected, _ = toy.run(adam(0.03))
    for name in ("conv/bias", "scale"):
        np.testing.assert_allclose(trajectory[name], expected[name], rtol=1e-5, atol=1e-6)
