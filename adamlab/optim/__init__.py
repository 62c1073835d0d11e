"""Composable Optax transforms: Adam, and optimization on spheres of constant layer norm (LAWN)."""

from adamlab.optim.adam import adam, scale_by_adam
from adamlab.optim.constraints import keep_on_sphere, project_to_tangent
from adamlab.optim.lawn import LawnState, lawn
from adamlab.optim.leaves import kernel_mask
from adamlab.optim.relatives import adamp, fixed_norm, scale_by_adamp
from adamlab.optim.schedules import three_phase_schedule, two_phase_schedule
from adamlab.optim.sphere import layer_norms
from adamlab.optim.variants import adam_lawn, lamb_lawn, sgd_lawn

__all__ = [
    "LawnState",
    "adam",
    "adam_lawn",
    "adamp",
    "fixed_norm",
    "keep_on_sphere",
    "kernel_mask",
    "lamb_lawn",
    "lawn",
    "layer_norms",
    "project_to_tangent",
    "scale_by_adam",
    "scale_by_adamp",
    "sgd_lawn",
    "three_phase_schedule",
    "two_phase_schedule",
]
