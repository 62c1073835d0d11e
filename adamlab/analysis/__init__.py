"""Measurements: of a loss while it is trained (`flattening`), and of what its end owes to a hyperparameter."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adamlab.analysis import calibration, flattening, intervals, sensitivity

__all__ = ["calibration", "flattening", "intervals", "sensitivity"]


def __getattr__(name: str) -> Any:
    # When it is used: who looks at losses alone does not wait for JAX.
    if name in __all__:
        return import_module(f"adamlab.analysis.{name}")
    raise AttributeError(f"module 'adamlab.analysis' has no attribute {name!r}")
