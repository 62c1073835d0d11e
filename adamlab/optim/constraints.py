"""The two pieces of a training on spheres, as links of an `optax.chain`; `adamlab.lawn` is made of both."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from adamlab.optim.leaves import Leaves, Mask
from adamlab.optim.sphere import (
    largest_drift,
    measure,
    project,
    require_params,
    retract,
    zero_drift,
    zero_radii,
)


class ProjectToTangentState(NamedTuple):
    """State of `project_to_tangent`: the number of updates so far, and the norms at the first of them."""

    count: ArrayLike
    radius: Leaves


def project_to_tangent(
    mask: Mask | None = None, *, unit_axis: int | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Projects updates onto the tangent spaces of the weights' spheres.

    .. math::

      g \leftarrow g - \frac{\langle g, w \rangle}{\|w\|^2} w

    Args:
      mask: Which leaves, as in `adamlab.lawn`.
      unit_axis: None for one sphere per leaf, or an axis for one per unit, as in `adamlab.lawn`.

    Returns:
      A transformation whose `update` needs `params`. Leaves whose norm is 0 at the first update stay free, as those of
      `keep_on_sphere` do: their updates pass unchanged.

    Raises:
      ValueError: A constrained leaf has no `unit_axis`, the mask selects nothing, or `update` gets no `params`.

    Example:
      >>> import jax.numpy as jnp
      >>> transform, w = project_to_tangent(), jnp.array([[3.0, 4.0]])
      >>> updates, _ = transform.update(jnp.array([[1.0, 0.0]]), transform.init(w), w)
      >>> [round(float(x), 4) for x in updates[0]]  # orthogonal to w
      [0.64, -0.48]
    """

    def init_fn(params):
        return ProjectToTangentState(jnp.zeros([], jnp.int32), zero_radii(params, mask, unit_axis))

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        spheres = measure(require_params(params, updates), state.radius, state.count, 0, mask, unit_axis)
        state = ProjectToTangentState(optax.safe_increment(state.count), spheres.radius)
        return project(spheres, updates, unit_axis), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class KeepOnSphereState(NamedTuple):
    """State of `keep_on_sphere`: see `adamlab.LawnState` for the fields."""

    count: ArrayLike
    radius: Leaves
    drift: jax.Array


def keep_on_sphere(mask: Mask | None = None, *, unit_axis: int | None = None) -> optax.GradientTransformationExtraArgs:
    r"""Makes every step end on the sphere where the first one began.

    .. math::

      u \leftarrow r \frac{w + u}{\|w + u\|} - w

    A constraint on the parameters to come, so it must be the last link of its chain. The radii are the norms at its
    first update, so that `optax.conditionally_transform` can put it off:

    ``chain(project_to_tangent(), inner, keep_on_sphere())`` is ``fixed_norm(inner)`` in pieces, and with both pieces
    in ``conditionally_transform(piece, lambda step: step >= n)`` it is ``lawn(inner, free_steps=n)``.

    Args:
      mask: Which leaves, as in `adamlab.lawn`.
      unit_axis: None for one sphere per leaf, or an axis for one per unit, as in `adamlab.lawn`.

    Returns:
      A transformation whose `update` needs `params`. Leaves whose norm is 0 at the first update stay free.

    Raises:
      ValueError: A constrained leaf has no `unit_axis`, the mask selects nothing, or `update` gets no `params`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> optimizer, w = optax.chain(optax.sgd(1.0), keep_on_sphere()), jnp.array([[0.0, 5.0]])
      >>> updates, _ = optimizer.update(jnp.array([[-3.0, 1.0]]), optimizer.init(w), w)
      >>> [round(float(x), 4) for x in (w + updates)[0]]  # w - g = (3, 4) has norm 5 already
      [3.0, 4.0]
    """

    def init_fn(params):
        radius = zero_radii(params, mask, unit_axis)
        return KeepOnSphereState(jnp.zeros([], jnp.int32), radius, zero_drift(radius))

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        spheres = measure(require_params(params, updates), state.radius, state.count, 0, mask, unit_axis)
        updates = retract(spheres, updates, unit_axis)
        count = optax.safe_increment(state.count)
        drift = jnp.maximum(state.drift, largest_drift(spheres))
        return updates, KeepOnSphereState(count, spheres.radius, drift)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
