"""What becomes of an inner optimizer's state where LAWN's free phase ends."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamlab.optim.leaves import Leaves, named
from adamlab.optim.sphere import Spheres, project

# What Optax's states call a running mean of gradients: Adam and most others, momentum, and `optax.ema`.
FIRST_MOMENTS = ("mu", "trace", "ema")
# What says where training is, or what a person set: `inject_hyperparams`, `conditionally_transform`, `MultiSteps`; and
# keys, since noise must not come twice.
_RUN_ON = ("hyperparams", "hyperparams_states", "step", "gradient_step", "rng_key", "key")


def has_first_moment(node: Any) -> bool:
    """Whether a node of an inner state is one that has a running mean of gradients to step along.

    Centered RMSProp has one, too, but subtracts its square from the second moment: with another mean its root is NaN.
    """
    if isinstance(node, optax.ScaleByRStdDevState):
        return False
    return not set(FIRST_MOMENTS).isdisjoint(getattr(node, "_fields", ()))


def require_first_moments(inner_state: Any, constrained: Leaves) -> None:
    """Raises ValueError unless running means of gradients in an inner state have a constrained leaf, in its shape."""
    nodes = filter(has_first_moment, jax.tree.leaves(inner_state, is_leaf=has_first_moment))
    moments = [named(getattr(node, field)) for node in nodes for field in FIRST_MOMENTS if field in node._fields]
    shapes = [(m[name].shape, jnp.shape(w)) for m in moments for name, w in constrained.items() if name in m]
    if not shapes or any(ours != theirs for ours, theirs in shapes):  # GaLore's are of a projected gradient
        fields, structure = " or ".join(FIRST_MOMENTS), jax.tree.structure(inner_state)
        raise ValueError(
            f"at_switch='transport' needs {fields} shaped like the parameters, not centered RMSProp's, in {structure}"
        )


def reset(inner_state: Any, fresh: Any, is_switch: jax.Array) -> Any:
    """Replaces the state by a fresh one at the switch, except for `_RUN_ON`, the clocks of schedules, and what
    `reduce_on_plateau` has come to."""

    def is_state(node):
        return hasattr(node, "_fields")

    def choose(new, old):
        if old is None:  # a momentum whose gradient is missing, in Optax
            return None
        if not is_state(new):
            return jnp.where(is_switch, new, old)
        if set(new._fields) <= {"count", "rng_key"}:  # as in Optax's ScaleByScheduleState and AddNoiseState
            return old
        if isinstance(new, optax.contrib.ReduceLROnPlateauState):  # a learning rate, as a schedule's
            return old
        fields = [(name, getattr(old, name), getattr(new, name)) for name in new._fields]
        return new._replace(**{name: o if name in _RUN_ON else reset(o, n, is_switch) for name, o, n in fields})

    return jax.tree.map(choose, fresh, inner_state, is_leaf=is_state)


def transport(inner_state: Any, spheres: Spheres, is_switch: jax.Array, unit_axis: int | None) -> Any:
    """Projects first moments onto the tangent spaces at the switch."""
    spheres = spheres._replace(held={name: held & is_switch for name, held in spheres.held.items()})

    def transported(node):
        if not has_first_moment(node):
            return node
        moments = {field: getattr(node, field) for field in FIRST_MOMENTS if field in node._fields}
        return node._replace(**{field: project(spheres, moment, unit_axis) for field, moment in moments.items()})

    return jax.tree.map(transported, inner_state, is_leaf=has_first_moment)
