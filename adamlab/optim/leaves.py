"""The leaves of a parameter tree, by path ("Conv_0/kernel"), and which of them a mask selects."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import GetAttrKey, keystr, tree_leaves_with_path, tree_map_with_path

Mask = Any | Callable[[Any], Any]
Leaves = dict[str, jax.Array]


def kernel_mask(params: optax.Params) -> Any:
    """Marks the kernels: leaves of rank 2 and more that are no integers, nor called "bias", "scale", "b" or "offset".

    Rank alone would take the biases of Equinox's convolutions, of shape (channels, 1, 1), and of Flax's attention,
    of shape (heads, features), for kernels, and the normalisation scales of layers that `flax.linen.scan` has stacked.
    "b" and "offset" are Haiku's names; its batch normalisation has parameters of shape (1, 1, 1, channels).

    Args:
      params: A tree of arrays.

    Returns:
      A tree of bools with the structure of `params`.

    Example:
      >>> import jax.numpy as jnp
      >>> kernel_mask({"conv": {"kernel": jnp.ones((3, 3, 8, 16)), "bias": jnp.ones(16)}, "scale": jnp.ones(())})
      {'conv': {'bias': False, 'kernel': True}, 'scale': False}
    """

    def is_kernel(name, leaf):
        if jnp.ndim(leaf) < 2 or not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):  # a table of indices
            return False
        return name.split("/")[-1] not in ("bias", "scale", "b", "offset")

    leaves, structure = jax.tree.flatten(params)
    return structure.unflatten(map(is_kernel, paths(params), leaves))


def select(params: optax.Params, mask: Mask | None) -> Leaves:
    """The leaves that a mask selects, by path. A mask that selects nothing is an error which lists the leaves."""
    leaves = named(params)
    if not leaves:
        return {}
    hint = "; in inject_hyperparams it is a static_args" if _is_flag(mask) else ""
    mask = kernel_mask if mask is None else mask
    # A tree of bools may be callable, too: an Equinox module is. And a function may be a tree: a `Partial` is.
    if callable(mask) and not any(map(_is_flag, jax.tree.leaves(mask))):
        mask = mask(params)
    for flag in jax.tree.leaves(mask):
        if not _is_flag(flag):
            raise ValueError(f"mask must be a tree of bools, or a function that gives one, but has {flag!r}")
    try:  # as in optax.masked, one bool in the mask may stand for a whole subtree of the parameters
        flags = jax.tree.leaves(jax.tree.map(lambda m, tree: jax.tree.map(lambda _: bool(m), tree), mask, params))
    except ValueError:
        raise ValueError(
            f"mask must have the structure of the parameters, {list(leaves)}, or begin as it does, "
            f"but has {paths(mask)}, or nodes of other types, which a function of the parameters would not have"
        ) from None
    if not any(flags):
        found = ", ".join(f"{name or 'the parameter'} {jnp.shape(leaf)}" for name, leaf in leaves.items())
        raise ValueError(f"mask must select the leaves to constrain, but selects none of: {found}{hint}")
    return {name: jnp.asarray(leaf) for (name, leaf), flag in zip(leaves.items(), flags, strict=True) if flag}


def _is_flag(leaf: Any) -> bool:
    is_array = isinstance(leaf, jax.Array | np.ndarray)
    return isinstance(leaf, bool | np.bool_) or (is_array and leaf.dtype == bool and leaf.ndim == 0)


def named(params: optax.Params) -> Leaves:
    """All leaves by path. Two of one path, such as "a/c" and "c" below "a", are an error."""
    leaves = list(zip(paths(params), jax.tree.leaves(params), strict=True))
    if len(dict(leaves)) < len(leaves):
        raise ValueError(f"every leaf needs a path of its own, got {sorted(name for name, _ in leaves)}")
    return dict(leaves)


def map_leaves(function: Callable[..., jax.Array], tree: Any, *quantities: Leaves) -> Any:
    """Replaces the leaves named in the quantities by function(leaf, *its quantities); the others pass.

    A leaf must have the shape of its first quantity: gradients of each example would be broadcast.
    """

    def apply(path, leaf):
        name = next((name for name in (_joined(path), _joined(_unboxed(path))) if name in quantities[0]), None)
        if name is None:
            return leaf
        leaf, given = jnp.asarray(leaf), [values[name] for values in quantities]
        if leaf.shape != given[0].shape:
            raise ValueError(f"updates must have the parameters' shapes, got {leaf.shape} for {name} {given[0].shape}")
        return function(leaf, *given)

    return tree_map_with_path(apply, tree)


def paths(tree: Any) -> list[str]:
    """The paths of a tree's leaves, in their order.

    The last step into a box (nnx.Param, linen.Partitioned) is no name: nnx.Optimizer inits with boxes and updates
    without them. A box holds one leaf; a `value` that has others beside it is a field of that name.
    """
    keys = [path for path, _ in tree_leaves_with_path(tree)]
    below = Counter(path[:depth] for path in keys for depth in range(len(path)))
    return [_joined(_unboxed(path) if below[path[:-1]] == 1 else path) for path in keys]


def _unboxed(path: tuple) -> tuple:
    return path[:-1] if path and path[-1] == GetAttrKey("value") else path


def _joined(path: tuple) -> str:
    return keystr(path, simple=True, separator="/")
