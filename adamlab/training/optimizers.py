"""From the papers' names to Optax's: a run's optimizer and its learning rate, from its hyperparameters as arrays."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamlab.config import RunConfig
from adamlab.hyperparameters import OPTIMIZERS, ConfigError
from adamlab.optim import adam, adam_lawn, adamp, lamb_lawn, sgd_lawn, three_phase_schedule, two_phase_schedule
from adamlab.optim.adam import scale_by_adam
from adamlab.optim.leaves import kernel_mask
from adamlab.optim.variants import decay_while_free
from adamlab.training.step import Arrays


def _kernels(params: Mapping[str, Any], of_head: bool) -> dict[str, Any]:
    """Marks the kernels of the head, which every net of `adamlab.models` has under this name, or all others."""
    if "head" not in params:
        raise ConfigError(f"this optimizer needs a net with a layer named head, got {', '.join(params)}")
    return {
        layer: jax.tree.map(lambda is_kernel, layer=layer: is_kernel and (layer == "head") == of_head, flags)
        for layer, flags in kernel_mask(params).items()
    }


_MASKS = {"adam_lawn_head": partial(_kernels, of_head=True), "adam_lawn_body": partial(_kernels, of_head=False)}


def traced(config: RunConfig) -> Arrays:
    """A run's hyperparameters as float32 scalars, lengths in steps: what one compiled program takes in.

    Returns:
      `alpha`, `beta1`, `beta2`, `epsilon`, `weight_decay`, `free_steps`, `warmup_steps` and `total_steps`.
    """
    h, steps = config.hyperparameters, config.protocol.steps_per_epoch
    values = {name: getattr(h, name) for name in ("alpha", "beta1", "beta2", "epsilon", "weight_decay")}
    lengths = {
        "free_steps": round(h.free_epochs * steps),
        "warmup_steps": round(h.warmup_epochs * steps),
        "total_steps": config.protocol.total_steps,
    }
    return {name: jnp.float32(value) for name, value in (values | lengths).items()}


class Recipe(NamedTuple):
    """What of a run's optimizer is no number: runs that share it share a program.

    Args:
      optimizer: A key of `OPTIMIZERS`.
      schedule: `constant` or `phases`.
      epsilon_placement: `outside` or `inside` the root.
    """

    optimizer: str = "adam"
    schedule: str = "constant"
    epsilon_placement: str = "outside"

    def __call__(self, hyperparameters: Arrays) -> optax.GradientTransformation:
        """The optimizer with the hyperparameters of `traced`."""
        h, rate = hyperparameters, self._learning_rate(hyperparameters)
        b1, b2, free_steps = h["beta1"], h["beta2"], h["free_steps"]
        epsilon = (
            {"eps": 0.0, "eps_root": h["epsilon"]} if self.epsilon_placement == "inside" else {"eps": h["epsilon"]}
        )
        decay = optax.add_decayed_weights(h["weight_decay"])
        match self.optimizer:
            case "adam" | "adam_three_phase":
                # As PyTorch's Adam, weight decay in the gradient: of the LAWN paper our reading.
                return optax.chain(decay, adam(rate, b1, b2, **epsilon))
            case "adam_lawn" | "adam_lawn_head" | "adam_lawn_body":
                return adam_lawn(rate, free_steps, b1, b2, **epsilon, mask=_MASKS.get(self.optimizer))
            case "adamw":
                return optax.chain(scale_by_adam(b1, b2, **epsilon), decay, optax.scale_by_learning_rate(rate))
            case "adamp":
                return adamp(rate, b1, b2, h["epsilon"], h["weight_decay"])
            case "sgd":
                return optax.chain(decay, optax.sgd(rate, b1))
            case "sgd_three_phase":
                return optax.chain(decay_while_free(h["weight_decay"], free_steps), optax.sgd(rate, b1))
            case "sgd_lawn":
                return sgd_lawn(rate, free_steps, b1, weight_decay=h["weight_decay"])
            case "lamb_lawn":
                return lamb_lawn(rate, free_steps, b1, b2, h["epsilon"])
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")

    def _learning_rate(self, h: Arrays) -> jax.Array | optax.Schedule:
        if self.schedule == "constant":
            return h["alpha"]
        if OPTIMIZERS[self.optimizer].has_free_phase:
            return three_phase_schedule(h["alpha"], h["free_steps"], h["warmup_steps"], h["total_steps"])
        return two_phase_schedule(h["alpha"], h["warmup_steps"], h["total_steps"])
