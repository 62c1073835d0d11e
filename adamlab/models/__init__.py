"""Flax modules: one literal dict from name to constructor."""

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from adamlab.models.plain import plain20
from adamlab.models.resnet import resnet34, resnet50
from adamlab.models.vgg import vgg19

MODELS: dict[str, Callable[..., nn.Module]] = {
    "plain20": plain20,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "vgg19": vgg19,
}


def create(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Build a net by name.

    Every net maps normalised float images (batch, height, width, channels) to float32 logits (batch, num_classes),
    keeps BatchNorm's running averages in the collection ``batch_stats``, and takes the options ``dtype`` (of the
    activations; parameters stay float32) and ``axis_name`` (of the mapped axis over which BatchNorm averages).

    Args:
      name: One of `MODELS`.
      num_classes: Number of logits.
      **options: The constructor's own; see there.

    Returns:
      The Flax module; ``jax.jit(model.init)(key, images)`` is the quickest way to initialise it: it drops the
      forward pass.

    Raises:
      ValueError: If the name is unknown, ``num_classes`` is not positive, or an option has a bad value.
      TypeError: If the net has no such option.

    >>> import jax, jax.numpy as jnp
    >>> model = create("plain20", num_classes=10)
    >>> shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    >>> sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    269722
    """
    if name not in MODELS:
        raise ValueError(f"name must be one of {', '.join(MODELS)}, got {name!r}")
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    constructor = MODELS[name]
    known = [option for option in inspect.signature(constructor).parameters if option != "num_classes"]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise TypeError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    return constructor(num_classes, **options)
