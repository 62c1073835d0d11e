"""adamlab: how Adam behaves on deep CNNs, and what fixing each layer's weight norm changes.

The optimizers are here, ready for Optax; `models`, `data`, `records` and `training` are submodules. Everything is
imported when it is first used: reading records does not wait for JAX, and the optimizers do not wait for Flax.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adamlab import analysis, claims, config, data, models, optim, records, training
    from adamlab.optim import (
        LawnState,
        adam,
        adam_lawn,
        adamp,
        fixed_norm,
        keep_on_sphere,
        kernel_mask,
        lamb_lawn,
        lawn,
        layer_norms,
        project_to_tangent,
        scale_by_adam,
        scale_by_adamp,
        sgd_lawn,
        three_phase_schedule,
        two_phase_schedule,
    )

__all__ = [
    "LawnState",
    "adam",
    "adam_lawn",
    "adamp",
    "analysis",
    "claims",
    "config",
    "data",
    "fixed_norm",
    "keep_on_sphere",
    "kernel_mask",
    "lamb_lawn",
    "lawn",
    "layer_norms",
    "models",
    "optim",
    "project_to_tangent",
    "records",
    "scale_by_adam",
    "scale_by_adamp",
    "sgd_lawn",
    "three_phase_schedule",
    "training",
    "two_phase_schedule",
]
__version__ = "0.1.0"

_SUBMODULES = {"analysis", "claims", "config", "data", "models", "optim", "records", "training"}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"adamlab.{name}")
    if name in __all__:
        return getattr(import_module("adamlab.optim"), name)
    raise AttributeError(f"module 'adamlab' has no attribute {name!r}")
