"""Composable Optax transforms: Adam, and optimization on spheres of constant layer norm."""

from adamlab.optim.adam import adam, scale_by_adam

__all__ = ["adam", "scale_by_adam"]
