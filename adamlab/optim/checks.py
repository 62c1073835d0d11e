"""Refuses hyperparameters out of range when an optimizer is built, before anything is traced."""

from collections.abc import Callable

import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike


def check_positive(**values: ArrayLike) -> None:
    """Raises ValueError unless every value, given by name, is a finite number > 0 (or traced)."""
    _check(values, lambda x: 0 < x < float("inf"), "a finite number > 0")


def check_learning_rate(learning_rate: ArrayLike | Callable) -> None:
    """Raises ValueError unless it is a schedule, or a finite number >= 0 (or traced).

    0 is what schedules begin and end with, and `optax.inject_hyperparams` passes on as a number.
    """
    if not callable(learning_rate):
        check_non_negative(learning_rate=learning_rate)


def check_steps(**values: ArrayLike) -> None:
    """Raises ValueError unless every value, given by name, is a number of steps, 0 or at least 1 (or traced).

    Between the two it is a share of the training, or a momentum.
    """
    _check(values, lambda x: x == 0 or 1 <= x < float("inf"), "a number of steps, 0 or at least 1")


def check_non_negative(**values: ArrayLike) -> None:
    """Raises ValueError unless every value, given by name, is a finite number >= 0 (or traced)."""
    _check(values, lambda x: 0 <= x < float("inf"), "a finite number >= 0")


def check_decay(**values: ArrayLike) -> None:
    """Raises ValueError unless every value, given by name, is a decay rate in [0, 1) (or traced)."""
    _check(values, lambda x: 0 <= x < 1, "in [0, 1)")


def _check(values: dict[str, ArrayLike], accept: Callable[[float], bool], wanted: str) -> None:
    for name, value in values.items():
        if isinstance(value, Tracer):
            continue
        try:  # NaN fails every comparison, so it is refused without a rule of its own
            accepted = np.ndim(value) == 0 and accept(np.asarray(value).item())
        except TypeError:  # text, None
            accepted = False
        if not accepted:
            raise ValueError(f"{name} must be {wanted}, got {repr(value) if isinstance(value, str) else value}")
