"""What LAWN's arguments select, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adamlab.optim.adam import adam
from adamlab.optim.constraints import keep_on_sphere, project_to_tangent
from adamlab.optim.lawn import LawnState, lawn
from adamlab.optim.leaves import kernel_mask
from adamlab.optim.sphere import layer_norms
from adamlab.optim.variants import adam_lawn, lamb_lawn, sgd_lawn
from tests.optim import toy


@pytest.mark.parametrize("make", [adam_lawn, sgd_lawn, lamb_lawn])
def test_masks(make):
    def constrained(**kwargs):
        optimizer = make(0.03, 5, **kwargs)
        return set(optimizer.init({"a": toy.PARAMS, "c": jnp.ones((2, 2))}).radius)

    assert constrained() == {"a/conv/kernel", "a/dense/kernel", "c"}
    assert constrained(mask={"a": False, "c": True}) == {"c"}
    assert constrained(mask=lambda params: jax.tree.map(lambda w: w.ndim == 1, params)) == {"a/conv/bias"}
    of_rank = jax.tree_util.Partial(lambda rank, params: jax.tree.map(lambda w: w.ndim == rank, params), 1)
    assert constrained(mask=of_rank) == {"a/conv/bias"}  # a function that is a tree as well
    assert constrained(mask={"a": np.bool_(False), "c": jnp.array(True)}) == {"c"}
    with pytest.raises(ValueError, match=r"selects none of: a/conv/bias \(4,\), a/conv/kernel \(3, 3, 2, 4\), "):
        constrained(mask=lambda params: jax.tree.map(lambda _: False, params))


def test_radii_compare_with_layer_norms_by_path():
    state = adam_lawn(0.1, 1).init(toy.PARAMS)
    assert isinstance(state, LawnState)
    assert set(state.radius) <= set(layer_norms(toy.PARAMS))


def test_free_for_ever():
    trajectory, state = toy.run(adam_lawn(0.03, 10**10), steps=5)
    expected, _ = toy.run(adam(0.03), steps=5)
    toy.assert_close(trajectory, expected)
    assert state.drift == 0


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match=r"free_steps must be .* got -1"):
        lawn(adam(0.1), free_steps=-1)
    with pytest.raises(ValueError, match=r"at_switch must be .* got 'restart'"):
        lawn(adam(0.1), free_steps=1, at_switch="restart")
    with pytest.raises(TypeError, match=r"inner must be an Optax optimizer.* got <function adam"):
        lawn(optax.adam, free_steps=1)
    # SM3's mu are accumulators, one per axis of a leaf; centered RMSProp subtracts its own squared from its nu.
    for inner in (optax.sgd(0.1), optax.sm3(0.1), optax.rmsprop(0.1, centered=True)):
        with pytest.raises(ValueError, match="at_switch='transport' needs mu or trace or ema shaped like the param"):
            lawn(inner, free_steps=1, at_switch="transport").init(toy.PARAMS)
    # GaLore's mu of a matrix is of its projected gradient.
    galore = optax.contrib.scale_by_galore(rank=2)
    with pytest.raises(ValueError, match="needs mu or trace or ema shaped like the parameters"):
        lawn(galore, free_steps=1, at_switch="transport").init({"kernel": jnp.ones((6, 4))})
    for axis in (5, 1.0, True):
        with pytest.raises(
            ValueError, match=rf"unit_axis must be an axis of every constrained leaf, got {axis} for shape"
        ):
            lawn(adam(0.1), free_steps=1, unit_axis=axis).init(toy.PARAMS)
    with pytest.raises(ValueError, match=r"mask must have the structure .* but has \['other'\], or nodes of [^\n]*$"):
        lawn(adam(0.1), free_steps=1, mask={"other": True}).init(toy.PARAMS)
    for mask in ("kernel", dict.fromkeys(toy.PARAMS, "lawn"), lambda params: jax.tree.map(jnp.ndim, params)):
        with pytest.raises(ValueError, match="mask must be a tree of bools, or a function that gives one, but has"):
            lawn(adam(0.1), free_steps=1, mask=mask).init(toy.PARAMS)
    with pytest.raises(ValueError, match=r"selects none of: the parameter \(2,\)"):
        lawn(adam(0.1), free_steps=1).init(jnp.ones(2))
    injected = optax.inject_hyperparams(lawn)(adam(0.1), free_steps=1, mask=kernel_mask)  # which Optax calls, too
    with pytest.raises(ValueError, match=r"selects none of: .*; in inject_hyperparams it is a static_args"):
        injected.init(toy.PARAMS)
    optimizer = adam_lawn(0.1, 1)
    with pytest.raises(ValueError, match="needs the parameters"):
        optimizer.update(toy.PARAMS, optimizer.init(toy.PARAMS))
    other = adam_lawn(0.1, 1, mask={name: name == "conv/kernel" for name in toy.PARAMS}).init(toy.PARAMS)
    with pytest.raises(
        ValueError, match=r"radii of {'conv/kernel': \(\)}, where {'conv/kernel': \(\), 'dense/kernel': "
    ):
        optimizer.update(toy.PARAMS, other, toy.PARAMS)
    per_unit = lawn(adam(0.1), free_steps=1, unit_axis=-1)
    with pytest.raises(ValueError, match=r"mask and unit_axis: it has radii of {'conv/kernel': \(1, 1, 1, 4\), "):
        optimizer.update(toy.PARAMS, per_unit.init(toy.PARAMS), toy.PARAMS)
    wider = toy.PARAMS | {"dense/kernel": jnp.ones((6, 5))}
    with pytest.raises(ValueError, match=r"'dense/kernel': \(1, 3\)}, where .*'dense/kernel': \(1, 5\)} are needed"):
        per_unit.update(wider, per_unit.init(toy.PARAMS), wider)
    with pytest.raises(
        TypeError, match="state must be a LawnState, got a tuple; to go on from that of the optimizer in"
    ):
        optimizer.update(toy.PARAMS, adam(0.1).init(toy.PARAMS), toy.PARAMS)
    of_each_example = jax.tree.map(lambda w: jnp.stack([w, w]), toy.PARAMS)  # broadcast, it would be projected wrongly
    with pytest.raises(
        ValueError, match=r"must have the parameters' shapes, got \(2, 3, 3, 2, 4\) for conv/kernel \(3, "
    ):
        optimizer.update(of_each_example, optimizer.init(toy.PARAMS), toy.PARAMS)
    # Its parameters are pairs, fast and slow, and its gradients are not: none would be projected.
    pairs = optax.LookaheadParams(toy.PARAMS, toy.PARAMS)
    for inside in (lawn(optax.lookahead(optax.sgd(0.1), 3, 0.5), free_steps=0), project_to_tangent(), keep_on_sphere()):
        with pytest.raises(
            ValueError, match=r"must have the parameters' paths, \['fast/conv/bias', .* got \['conv/bias'"
        ):
            inside.update(toy.PARAMS, inside.init(pairs), pairs)
    clash = {"a/c": jnp.ones((2, 2)), "a": {"c": jnp.ones((2, 2))}}
    for function in (optimizer.init, layer_norms):
        with pytest.raises(ValueError, match="a path of its own"):
            function(clash)


@pytest.mark.parametrize("number", [float, np.float64, lambda x: np.full((3, 2), x)])
def test_numbers_and_numpys_arrays_are_taken_as_optax_takes_them(number):
    """A NumPy array of float64 becomes one of float32, without a warning."""
    params, gradient = {"w": number(3.0)}, {"w": number(1.0)}
    optimizer = lawn(optax.sgd(0.1), free_steps=1, mask=True)
    updates, state = optimizer.update(gradient, optimizer.init(params), params)
    expected, _ = optax.sgd(0.1).update(gradient, optax.sgd(0.1).init(params))
    np.testing.assert_allclose(updates["w"], expected["w"], rtol=1e-6)
    updates, state = optimizer.update(gradient, state, params)
    np.testing.assert_allclose(updates["w"], 0.0, atol=1e-6)  # all of the gradient is along w
    assert state.radius["w"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (adam_lawn, {"learning_rate": -0.1}, "learning_rate must be a finite number >= 0, got -0.1"),
        (adam_lawn, {"b1": 1.0}, r"b1 must be in \[0, 1\), got 1.0"),
        (sgd_lawn, {"learning_rate": -0.1}, "learning_rate must be a finite number >= 0, got -0.1"),
        (sgd_lawn, {"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        (sgd_lawn, {"weight_decay": -1e-4}, "weight_decay must be a finite number >= 0, got -0.0001"),
        (sgd_lawn, {"free_steps": -1}, "free_steps must be a number of steps, 0 or at least 1, got -1"),
        # Where Optax has the momentum.
        (sgd_lawn, {"free_steps": 0.9}, "free_steps must be a number of steps, 0 or at least 1, got 0.9"),
        (adam_lawn, {"free_steps": 0.9}, "free_steps must be a number of steps, 0 or at least 1, got 0.9"),
        (lamb_lawn, {"learning_rate": -0.1}, "learning_rate must be a finite number >= 0, got -0.1"),
        (lamb_lawn, {"b1": 1.0}, r"b1 must be in \[0, 1\), got 1.0"),
        (lamb_lawn, {"b2": -0.1}, r"b2 must be in \[0, 1\), got -0.1"),
        (lamb_lawn, {"eps": -1e-6}, "eps must be a finite number >= 0, got -1e-06"),
        (lamb_lawn, {"eps_root": -1.0}, "eps_root must be a finite number >= 0, got -1.0"),
    ],
)
def test_refuses_values_out_of_range(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**({"learning_rate": 0.1, "free_steps": 5} | arguments))
