"""The two pieces of LAWN as links of a chain."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adamlab.optim.adam import adam
from adamlab.optim.constraints import keep_on_sphere, project_to_tangent
from adamlab.optim.lawn import lawn
from adamlab.optim.relatives import fixed_norm
from tests.optim import toy

STEPS = 60
INNERS = {"adam": adam(0.03), "momentum": optax.sgd(0.03, 0.9), "lamb": optax.lamb(0.03)}


@pytest.mark.parametrize(("inner", "unit_axis"), [("adam", None), ("momentum", -1), ("lamb", None)])
def test_both_around_an_optimizer_are_fixed_norm(inner, unit_axis):
    options = {"unit_axis": unit_axis}
    chain = optax.chain(project_to_tangent(**options), INNERS[inner], keep_on_sphere(**options))
    trajectory, state = toy.run(chain, steps=STEPS)
    expected, fixed = toy.run(fixed_norm(INNERS[inner], **options), steps=STEPS)
    toy.assert_close(trajectory, expected)
    toy.assert_close(state[-1].radius, fixed.radius)
    for name in toy.KERNELS:
        np.testing.assert_allclose(toy.norm64(trajectory[name][-1]), toy.norm64(toy.PARAMS[name]), rtol=1e-6)


def test_both_put_off_are_lawn():
    free_steps = 20

    def late(transform):
        return optax.conditionally_transform(transform, lambda step: step >= free_steps)

    chain = optax.chain(late(project_to_tangent()), adam(0.03), late(keep_on_sphere()))
    trajectory, _ = toy.run(chain, steps=STEPS)
    expected, _ = toy.run(lawn(adam(0.03), free_steps=free_steps), steps=STEPS)
    toy.assert_close(trajectory, expected)


@pytest.mark.parametrize("free_steps", [0, 5])
def test_both_are_lawn_where_a_leaf_begins_at_zero(free_steps):
    """It has no sphere in step 0, and is free for good then, although it has a norm in the next."""
    params = toy.PARAMS | {"dense/kernel": jnp.zeros_like(toy.PARAMS["dense/kernel"])}

    def late(transform):
        return optax.conditionally_transform(transform, lambda step: step >= free_steps)

    pieces = optax.chain(late(project_to_tangent()), adam(0.03), late(keep_on_sphere()))
    trajectory, _ = toy.run(pieces, params, STEPS)
    expected, _ = toy.run(lawn(adam(0.03), free_steps=free_steps), params, STEPS)
    toy.assert_close(trajectory, expected)


def test_masks():
    mask = {name: name == "dense/kernel" for name in toy.PARAMS}
    project, keep = project_to_tangent(mask), keep_on_sphere(mask)
    projected, _ = project.update(toy.PARAMS, project.init(toy.PARAMS), toy.PARAMS)
    np.testing.assert_allclose(projected["dense/kernel"], 0.0, atol=1e-6)  # w is orthogonal to its tangent space
    toy.assert_equal(projected["conv/kernel"], toy.PARAMS["conv/kernel"])
    assert set(keep.init(toy.PARAMS).radius) == {"dense/kernel"}


@pytest.mark.parametrize("make", [project_to_tangent, keep_on_sphere])
def test_wrong_use_is_refused(make):
    with pytest.raises(ValueError, match=r"selects none of: bias \(2,\)"):
        make().init({"bias": jnp.ones(2)})
    with pytest.raises(ValueError, match="needs the parameters"):
        make().update(toy.PARAMS, make().init(toy.PARAMS))


def test_keep_on_sphere_tells_when_it_is_not_last():
    _, state = toy.run(optax.chain(adam(0.03), keep_on_sphere(), optax.scale(0.5)), steps=5)
    assert state[1].drift > 1e-5
    _, state = toy.run(optax.chain(adam(0.03), keep_on_sphere()), steps=5)
    assert state[1].drift < 1e-6
    # And what has stopped, as `lawn` does.
    once = optax.conditionally_transform(optax.scale(0.5), lambda step: step == 1)
    _, state = toy.run(optax.chain(adam(0.03), keep_on_sphere(), once), steps=10)
    assert state[1].drift > 1e-5
