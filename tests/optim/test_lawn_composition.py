"""LAWN among Optax's transformations: around them, behind them and inside their wrappers."""

from functools import partial
from inspect import signature

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adamlab.optim.adam import adam
from adamlab.optim.lawn import lawn
from adamlab.optim.relatives import adamp
from adamlab.optim.schedules import two_phase_schedule
from adamlab.optim.variants import adam_lawn, lamb_lawn, sgd_lawn
from tests.optim import toy

FREE, STEPS = 5, 20
INNER = optax.adam(0.03)
LAWN = lawn(INNER, free_steps=FREE)
IS_CONV = {k: k.startswith("conv") for k in toy.PARAMS}
NOT_CONV = {k: not v for k, v in IS_CONV.items()}


def holds_norms(optimizer, names=toy.KERNELS, steps=STEPS, since=FREE):
    """Whether the norms of exactly these kernels are constant after the free phase."""
    trajectory, _ = toy.run(optimizer, steps=steps)
    norms = {k: np.array([toy.norm64(w) for w in trajectory[k][since - 1 :]]) for k in toy.KERNELS}
    return {k for k, n in norms.items() if np.allclose(n, n[0], rtol=1e-6, atol=0.0)} == set(names)


def test_chain_and_clipping():
    clip = optax.clip_by_global_norm(0.1)
    assert holds_norms(optax.chain(clip, LAWN))
    assert holds_norms(lawn(optax.chain(clip, INNER), free_steps=FREE))


def test_weight_decay_before_lawn_has_no_effect_on_constrained_leaves():
    # Its gradient points along w, so the projection removes it. From step 0 on, so that the moments never see it.
    decayed = optax.chain(optax.add_decayed_weights(0.5), lawn(INNER, free_steps=0))
    trajectory, _ = toy.run(decayed, steps=STEPS)
    expected, _ = toy.run(lawn(INNER, free_steps=0), steps=STEPS)
    for name in toy.KERNELS:
        np.testing.assert_allclose(trajectory[name], expected[name], rtol=1e-4, atol=1e-5)
    assert np.abs(trajectory["conv/bias"][-1] - expected["conv/bias"][-1]).max() > 1e-3
    assert holds_norms(lawn(optax.adamw(0.03, weight_decay=0.1), free_steps=FREE))


def test_masked_and_partition():
    is_conv = {k: k.startswith("conv") for k in toy.PARAMS}
    others = {k: not v for k, v in is_conv.items()}
    assert holds_norms(
        optax.chain(optax.masked(LAWN, is_conv), optax.masked(optax.scale(-0.01), others)), ["conv/kernel"]
    )
    labels = {k: "lawn" if k in toy.KERNELS else "free" for k in toy.PARAMS}
    by_label = optax.partition({"lawn": LAWN, "free": INNER, "unused": LAWN}, labels)
    trajectory, _ = toy.run(by_label, steps=STEPS)
    expected, _ = toy.run(LAWN, steps=STEPS)
    toy.assert_close(trajectory, expected, rtol=1e-5)
    inside = lawn(optax.partition({"lawn": INNER, "free": optax.sgd(0.03)}, labels), free_steps=FREE)
    assert holds_norms(inside)
    frozen = lawn(optax.partition({"lawn": optax.set_to_zero(), "free": INNER}, labels), free_steps=FREE)
    trajectory, _ = toy.run(frozen, steps=STEPS)
    np.testing.assert_allclose(trajectory["conv/kernel"][-1], toy.PARAMS["conv/kernel"], rtol=1e-6)


@pytest.mark.parametrize("at_switch", ["reset", "transport"])
def test_moments_of_some_leaves_only(at_switch):
    is_conv = {k: k.startswith("conv") for k in toy.PARAMS}
    inner = optax.chain(
        optax.masked(INNER, is_conv), optax.masked(optax.scale(-0.01), {k: not v for k, v in is_conv.items()})
    )
    assert holds_norms(lawn(inner, free_steps=FREE, at_switch=at_switch))
    # Adam knows leaves one by one: those that it has move as where it has all.
    found, _ = toy.run(lawn(inner, free_steps=FREE, at_switch=at_switch), steps=STEPS)
    alone, _ = toy.run(lawn(INNER, free_steps=FREE, at_switch=at_switch), steps=STEPS)
    kept, _ = toy.run(LAWN, steps=STEPS)
    for name in (name for name in toy.PARAMS if is_conv[name]):
        np.testing.assert_allclose(found[name], alone[name], rtol=1e-6, atol=1e-6)
    assert np.abs(found["conv/kernel"][-1] - kept["conv/kernel"][-1]).max() > 1e-3


def test_inject_hyperparams():
    make = optax.inject_hyperparams(adam_lawn, static_args=("mask",))
    assert holds_norms(make(0.03, FREE))
    trajectory, state = toy.run(make(optax.constant_schedule(0.03), free_steps=FREE), steps=STEPS)
    expected, _ = toy.run(adam_lawn(0.03, FREE), steps=STEPS)
    toy.assert_close(trajectory, expected, rtol=1e-5)
    assert state.hyperparams["free_steps"] == FREE
    assert holds_norms(lawn(optax.inject_hyperparams(optax.adam)(learning_rate=0.03), free_steps=FREE))


def test_inject_hyperparams_follows_a_schedule_from_0_to_0():
    """Optax builds the optimizer anew at every step, with the schedule's number."""
    schedule = two_phase_schedule(0.03, warmup_steps=1, total_steps=3)
    for make in (adam, adamp, partial(adam_lawn, free_steps=2)):
        optimizer = optax.inject_hyperparams(make)(schedule)
        params, state = toy.PARAMS, optimizer.init(toy.PARAMS)
        for step in range(4):  # step by step, so that the numbers are not traced
            before = params
            params, state = toy.step(optimizer, params, state, step)
            moved = max(float(np.abs(params[k] - before[k]).max()) for k in params)
            assert (moved > 1e-3) == (step in (1, 2))
            assert (moved < 1e-6) == (step in (0, 3))


@pytest.mark.parametrize("make", [adam, adamp, adam_lawn, sgd_lawn, lamb_lawn])
def test_half_precision_is_kept_with_traced_hyperparameters(make):
    names = {"learning_rate": 0.01, "b1": 0.9, "b2": 0.99, "eps": 1e-3, "momentum": 0.9, "weight_decay": 0.1}
    numbers = {name: jnp.float32(number) for name, number in names.items() if name in signature(make).parameters}
    numbers |= {"free_steps": jnp.float32(2)} if "free_steps" in signature(make).parameters else {}
    params = jax.tree.map(lambda w: w.astype(jnp.bfloat16), toy.PARAMS)

    @jax.jit
    def train(params, numbers):
        optimizer = optax.apply_if_finite(make(**numbers), 3)

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(params, state, params)
            assert {update.dtype for update in jax.tree.leaves(updates)} == {jnp.dtype(jnp.bfloat16)}
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=4)[0]  # which wants a carry of one type

    moved, state = train(params, numbers)
    assert state.total_notfinite == 0
    assert any(np.any(moved[k] != params[k]) for k in params)


def test_noise_goes_on_at_the_switch():
    """Neither does it repeat itself, nor does its annealing start again."""
    noisy = optax.noisy_sgd(0.1, eta=1.0, gamma=0.5, key=0)
    still = lambda params, step: jax.tree.map(jnp.zeros_like, params)  # noqa: E731
    trajectory, _ = toy.run(lawn(noisy, free_steps=3, at_switch="reset"), steps=6, gradients=still)
    expected, _ = toy.run(noisy, steps=6, gradients=still)
    # A bias is free: for it nothing changes.
    np.testing.assert_allclose(trajectory["conv/bias"], expected["conv/bias"], rtol=1e-6)


def test_sophias_random_signs_do_not_repeat_themselves_after_the_switch():
    params = {"kernel": jnp.ones((8, 4))}
    loss = lambda params: jnp.sum(params["kernel"] ** 4)  # noqa: E731
    optimizer = lawn(optax.contrib.sophia(0.01, update_interval=1), free_steps=2, at_switch="reset")
    state, keys = optimizer.init(params), set()
    for _ in range(5):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params, obj_fn=loss)
        params = optax.apply_updates(params, updates)
        keys.add(tuple(optax.tree.get(state, "key").tolist()))
    assert len(keys) == 5


def test_multi_steps():
    # Two mini-steps with the same gradients make one step.
    optimizer = optax.MultiSteps(LAWN, every_k_schedule=2)
    trajectory, _ = toy.run(optimizer, steps=2 * STEPS, gradients=lambda p, i: toy.gradients(p, i // 2))
    expected, _ = toy.run(LAWN, steps=STEPS)
    toy.assert_close(jax.tree.map(lambda x: x[1::2], trajectory), expected, rtol=1e-5)
    inside = lawn(optax.MultiSteps(INNER, every_k_schedule=2).gradient_transformation(), free_steps=FREE)
    assert holds_norms(inside)


def test_a_reset_does_not_set_back_a_schedule_of_multi_steps_inside():
    every = optax.MultiSteps(optax.sgd(0.03), lambda step: jnp.where(step < 1, 1, 2))
    trajectory, _ = toy.run(lawn(every, free_steps=3, at_switch="reset"), steps=9)
    biases = np.stack([toy.PARAMS["conv/bias"], *trajectory["conv/bias"]])
    moved = np.abs(np.diff(biases, axis=0)).max(axis=1) > 0
    # One step of one gradient, then of two; the switch, before step 3, throws away the gradient of none.
    assert np.flatnonzero(moved).tolist() == [0, 2, 4, 6, 8]


def test_apply_if_finite():
    def gradients(params, i):  # a NaN in the constrained phase
        return jax.tree.map(lambda g: jnp.where(i == 10, jnp.nan, g), toy.gradients(params, i))

    trajectory, state = toy.run(optax.apply_if_finite(LAWN, 5), steps=STEPS, gradients=gradients)
    assert state.total_notfinite == 1
    norms = [toy.norm64(w) for w in trajectory["conv/kernel"][FREE - 1 :]]
    np.testing.assert_allclose(norms, norms[0], rtol=1e-6)


def test_schedule_free_inside():
    assert holds_norms(lawn(optax.contrib.schedule_free(optax.sgd(0.03), 0.03), free_steps=FREE))


@pytest.mark.parametrize("name", ["lion", "novograd", "adafactor", "rprop"])
def test_other_inner_optimizers(name):
    assert holds_norms(lawn(getattr(optax, name)(learning_rate=0.03), free_steps=FREE))


def test_inner_gets_extra_args():
    def update(updates, state, params=None, *, factor, **extra_args):
        return jax.tree.map(lambda g: -factor * g, updates), state

    inner = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
    optimizer = lawn(inner, free_steps=1)
    updates, _ = optimizer.update(toy.PARAMS, optimizer.init(toy.PARAMS), toy.PARAMS, factor=2.0, unknown=3)
    toy.assert_equal(updates, jax.tree.map(lambda g: -2.0 * g, toy.PARAMS))


def test_float32_parameters_are_held_under_gradients_of_bfloat16():
    """Gradients of a rounded copy: updates have the parameters' precision, or norms could not be held to 1e-6."""

    def gradients(params, step):
        rounded = jax.tree.map(lambda w: w.astype(jnp.bfloat16), params)
        return jax.tree.map(lambda g: g.astype(jnp.bfloat16), toy.gradients(rounded, step))

    for make in (adam_lawn, sgd_lawn, lamb_lawn):
        trajectory, state = toy.run(make(0.03, FREE), steps=100, gradients=gradients)
        assert state.drift < 1e-6
        for name in toy.KERNELS:
            norms = [toy.norm64(w) for w in trajectory[name][FREE - 1 :]]
            np.testing.assert_allclose(norms, norms[0], rtol=1e-6)
    for make in (adam, adamp):
        updates, _ = make(0.1).update(gradients(toy.PARAMS, 0), make(0.1).init(toy.PARAMS), toy.PARAMS)
        assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float32")}


def test_free_for_ever_with_weight_decay():
    """More steps than an int32 counts."""
    for steps in (10**10, np.int64(2**32)):
        found, _ = toy.run(sgd_lawn(0.01, steps, weight_decay=0.1), steps=STEPS)
        expected, _ = toy.run(optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.01, 0.9)), steps=STEPS)
        toy.assert_close(found, expected)


@pytest.mark.parametrize("free_steps", [0, 5])
@pytest.mark.parametrize(
    "make",
    [
        partial(lawn, optax.sgd(0.1)),
        partial(adam_lawn, 0.1),
        partial(sgd_lawn, 0.1, weight_decay=0.1),
        lambda free_steps: adamp(0.1, nesterov=True),
        partial(lawn, optax.sgd(0.1, 0.9), at_switch="reset"),
    ],
)
def test_missing_gradients_stay_missing(make, free_steps):
    """Their moments wait, and the others' updates are what they are without the leaf."""
    optimizer = make(free_steps=free_steps)
    missing = {**toy.PARAMS, "conv/kernel": None}
    updates, state = optimizer.update(missing, optimizer.init(toy.PARAMS), toy.PARAMS)
    assert updates["conv/kernel"] is None
    rest = {name: leaf for name, leaf in toy.PARAMS.items() if name != "conv/kernel"}
    expected, _ = optimizer.update(rest, optimizer.init(rest), rest)
    for name in rest:
        np.testing.assert_array_equal(updates[name], expected[name])
    for _ in range(6):
        _, state = optimizer.update(missing, state, toy.PARAMS)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
