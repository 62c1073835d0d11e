"""Geometry of layer norms: the sphere {x : ||x|| = r} of a leaf, its tangent space, and the way back onto it.

A leaf is one parameter array, and its sphere lies in the space of all its entries, whatever its rank. With
`unit_axis` there is one sphere per index of that axis instead: -1 for the output units of Linen, NNX and Haiku
(HWIO, IO), 0 for those of Equinox (OIHW, OI). Norms are float32, or float64 for float64 leaves.

What belongs to a leaf as a whole is kept in flat dicts from its path ("Conv_0/kernel") to scalars. A constraint that
is off is a coefficient of 0 or 1, never a branch: one program serves both phases of `lawn` and every switching step.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.core import Tracer

from adamlab.optim.leaves import Leaves, Mask, map_leaves, named, paths, select


def layer_norms(params: optax.Params) -> Leaves:
    """The Euclidean norm of every leaf.

    Args:
      params: A tree of arrays.

    Returns:
      A flat dict from path to norm: float32, or float64 for float64 leaves, shape ().

    Raises:
      ValueError: Two leaves have the same path.

    Example:
      >>> import jax.numpy as jnp
      >>> {path: float(norm) for path, norm in layer_norms({"dense": {"kernel": jnp.full((2, 2), 3.0)}}).items()}
      {'dense/kernel': 6.0}
    """
    leaves = {name: jnp.asarray(leaf) for name, leaf in named(params).items()}
    return {name: jnp.sqrt(inner_product(leaf, leaf)) for name, leaf in leaves.items()}


def inner_product(x: jax.Array, y: jax.Array, unit_axis: int | None = None) -> jax.Array:
    """<x, y> of whole leaves, shape (), or of each of their units, with the other axes kept at size 1."""
    dtype = jnp.promote_types(jnp.result_type(x, y), jnp.float32)
    products = jnp.real(x.astype(dtype) * jnp.conj(y.astype(dtype)))
    if unit_axis is None:
        return jnp.sum(products)
    if isinstance(unit_axis, Tracer):
        raise ValueError(f"unit_axis must be a Python int, got {unit_axis}: in inject_hyperparams it is a static_args")
    if isinstance(unit_axis, bool) or not hasattr(unit_axis, "__index__") or not -x.ndim <= unit_axis < x.ndim:
        raise ValueError(f"unit_axis must be an axis of every constrained leaf, got {unit_axis!r} for shape {x.shape}")
    unit = range(x.ndim)[unit_axis]
    return jnp.sum(products, axis=tuple(axis for axis in range(x.ndim) if axis != unit), keepdims=True)


def require_params(params: optax.Params | None, updates: Any) -> optax.Params:
    """The parameters given to an `update` that depends on them; an error where they are none, or not of the updates.

    A leaf finds its weight by its path. Under another one, as `optax.lookahead` has them, it would pass unprojected.
    """
    if params is None:
        raise ValueError("this transformation needs the parameters: call update(updates, state, params)")
    ours, theirs = paths(params), paths(updates)
    if ours and theirs and set(ours).isdisjoint(theirs):
        raise ValueError(f"updates must have the parameters' paths, {ours}, got {theirs}")
    return params


class Spheres(NamedTuple):
    """The spheres of the constrained leaves at one step: dicts with the same keys.

    Attributes:
      weight: The leaves w.
      square: ||w||^2, measured at this step.
      radius: The radius r.
      held: Whether the constraint is on. It never is where r = 0: a leaf without a direction has no sphere.
    """

    weight: Leaves
    square: Leaves
    radius: Leaves
    held: Leaves


def zero_radii(params: optax.Params, mask: Mask | None, unit_axis: int | None) -> Any:
    """The radii before the first step."""
    # Zeros that lie on devices as the norms will: on a mesh whose axes are explicit, that is part of their type.
    zeros = {name: jnp.zeros_like(inner_product(w, w, unit_axis)) for name, w in select(params, mask).items()}
    # optax.tree.map_params calls init with a tree without leaves. One leaf then stands for the whole dict, and says
    # that the radii, unlike the moments, are not shaped (or sharded) like the parameters.
    return zeros or jnp.zeros([])


def zero_drift(radius: Any) -> jax.Array:
    """No drift yet, float32. The sum of the radii, which are zeros, has their type on a mesh, as later drifts have."""
    return jnp.asarray(sum(jnp.sum(r) for r in jax.tree.leaves(radius)), jnp.float32)


def measure(
    params: optax.Params,
    radius: Any,
    count: int | jax.Array,
    free_steps: float | jax.Array,
    mask: Mask | None,
    unit_axis: int | None,
) -> Spheres:
    """Measures the norms, which become the radii up to and including step `free_steps`, the first one held."""
    weight = select(params, mask)
    square = {name: inner_product(w, w, unit_axis) for name, w in weight.items()}
    of_state = {name: jnp.shape(r) for name, r in radius.items()} if isinstance(radius, Mapping) else {}
    needed = {name: jnp.shape(sq) for name, sq in square.items()}
    if needed and of_state != needed:  # other shapes would be broadcast
        raise ValueError(
            f"the state must be of the same parameters, mask and unit_axis: it has radii of {of_state}, where "
            f"{needed} are needed"
        )
    # Not count <= free_steps: a fraction of a step then counts as a whole one here too.
    is_new = count - 1 < free_steps
    radius = {name: jnp.where(is_new, _root(sq), radius[name]) for name, sq in square.items()} or radius
    held = {name: (count >= free_steps) & (radius[name] > 0.0) for name in square}
    return Spheres(weight, square, radius, held)


def project(spheres: Spheres, updates: Any, unit_axis: int | None) -> Any:
    """Projects updates onto the tangent spaces: g - <g, w> / ||w||^2 w."""

    def project_leaf(update, weight, square, held):
        slope = inner_product(update, weight, unit_axis) / _non_zero(square)
        return (update - jnp.where(held, slope, 0.0) * weight).astype(update.dtype)

    return map_leaves(project_leaf, updates, spheres.weight, spheres.square, spheres.held)


def retract(spheres: Spheres, updates: Any, unit_axis: int | None, project_update: bool = False) -> Any:
    """Makes w + u end on the sphere: u becomes r (w + u) / ||w + u|| - w.

    That is s u + (s - 1) w with s = r / ||w + u|| and s - 1 = (r^2 - ||w + u||^2) / (||w + u|| (||w + u|| + r)), so
    that u keeps all of its digits. What is rounded in s - 1 is less than the last digit of w, and every step measures
    ||w + u|| anew: rounding errors do not add up. Where u takes w to a fraction of its length, as hardly any update
    does, s u and (s - 1) w cancel, and the end is off by s times as much.
    """

    def retract_leaf(update, weight, square, radius, held):
        # XLA on CPU would write an update out twice, before and after its scaling by the learning rate.
        u, w = lax.optimization_barrier(update), weight.astype(jnp.promote_types(weight.dtype, square.dtype))
        if project_update:
            normal = inner_product(u, w, unit_axis) / _non_zero(square)
            u = u - jnp.where(held, normal, 0.0) * w
        end_square = inner_product(w + u, w + u, unit_axis)
        held &= end_square > 0.0  # w + u = 0 points nowhere
        norm = jnp.sqrt(_non_zero(end_square))
        scale = jnp.where(held, radius / norm, 1.0)
        shift = jnp.where(held, (jnp.square(radius) - end_square) / (norm * (norm + radius)), 0.0)
        return (scale * u + shift * w).astype(update.dtype)

    return map_leaves(retract_leaf, updates, spheres.weight, spheres.square, spheres.radius, spheres.held)


def largest_drift(spheres: Spheres) -> jax.Array:
    """The largest |norm / radius - 1| of the spheres that are held, float32."""
    largest = jnp.zeros([], jnp.float32)
    for name, held in spheres.held.items():
        ratio = _root(spheres.square[name]) / _non_zero(spheres.radius[name])
        drift = jnp.max(jnp.where(held, jnp.abs(ratio - 1.0), 0.0), initial=0.0)
        largest = jnp.maximum(largest, drift.astype(jnp.float32))
    return largest


def _non_zero(divisor: jax.Array) -> jax.Array:
    return jnp.where(divisor > 0.0, divisor, 1.0)


def _root(square: jax.Array) -> jax.Array:
    """The square root, with a derivative of 0 at 0: who differentiates through a training would get NaN there."""
    return jnp.where(square == 0.0, 0.0, jnp.sqrt(jnp.where(square == 0.0, 1.0, square)))
