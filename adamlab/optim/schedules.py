"""The LAWN paper's learning rates (section 3): two phases for an optimizer as it is, three for it under LAWN.

The paper counts the phases, and tunes the warm-up's length and the peak; their shapes stand in an appendix of
arXiv:2108.05839. Our reading, in this order: a constant free phase, a linear warm-up, a cosine decay to 0 at the last
step. Section 1 has LAWN begin "with Adam in the initial warm-up phase", which may mean that the free phase warms up.
"""

from numbers import Integral

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from adamlab.optim.checks import check_positive, check_steps

Number = float | jax.Array


def two_phase_schedule(peak_value: Number, warmup_steps: Number, total_steps: Number) -> optax.Schedule:
    r"""Linear warm-up, then cosine decay: `optax.warmup_cosine_decay_schedule` from 0 to 0, but traceable.

    With P the peak, W the length of the warm-up and T that of the training, the learning rate of step t is

    .. math::

      \alpha_t = \begin{cases}
        P \, t / W & t < W \\
        \frac{P}{2} \left(1 + \cos \left( \pi \, \frac{\min(t, T) - W}{T - W} \right) \right) & t \ge W
      \end{cases}

    Every argument may be a Python number or a traced array.

    Args:
      peak_value: The learning rate at the end of the warm-up, > 0.
      warmup_steps: Length of the warm-up, 0 or at least 1. With 0 the first step has the peak.
      total_steps: Length of the training, > warmup_steps.

    Returns:
      A function from the step count, starting at 0, to the learning rate.

    Raises:
      ValueError: An argument is out of range. Traced values cannot be looked at and are not checked.

    Example:
      >>> schedule = two_phase_schedule(1.0, warmup_steps=2, total_steps=6)
      >>> [round(float(schedule(step)), 3) for step in range(7)]
      [0.0, 0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    check_positive(peak_value=peak_value)
    check_steps(warmup_steps=warmup_steps)
    _check_longer(total_steps, warmup_steps, "warmup_steps")

    def schedule(count):
        warmup = count / jnp.maximum(warmup_steps, 1)
        decay = jnp.clip((count - warmup_steps) / (total_steps - warmup_steps), 0.0, 1.0)
        return peak_value * jnp.where(count < warmup_steps, warmup, 0.5 * (1.0 + jnp.cos(jnp.pi * decay)))

    return schedule


def three_phase_schedule(
    peak_value: Number,
    free_steps: Number,
    warmup_steps: Number,
    total_steps: Number,
    free_value: Number | None = None,
) -> optax.Schedule:
    r"""A constant learning rate for LAWN's free phase, then warm-up and decay for its constrained phase.

    The learning rate of step t is free_value for t < free_steps, and from there on that of step t - free_steps in
    ``two_phase_schedule(peak_value, warmup_steps, total_steps - free_steps)``.

    Every argument may be a Python number or a traced array.

    Args:
      peak_value: The learning rate at the end of the warm-up, > 0.
      free_steps: Length of the free phase, 0 or at least 1, as given to `adamlab.lawn`.
      warmup_steps: Length of the warm-up after it, 0 or at least 1.
      total_steps: Length of the training, > free_steps + warmup_steps.
      free_value: The learning rate of the free phase, > 0. Default: the peak.

    Returns:
      A function from the step count, starting at 0, to the learning rate.

    Raises:
      ValueError: An argument is out of range. Traced values cannot be looked at and are not checked.

    Example:
      >>> schedule = three_phase_schedule(1.0, free_steps=2, warmup_steps=2, total_steps=8)
      >>> [round(float(schedule(step)), 3) for step in range(9)]
      [1.0, 1.0, 0.0, 0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    check_positive(peak_value=peak_value)
    free_value = peak_value if free_value is None else free_value
    check_positive(free_value=free_value)
    check_steps(free_steps=free_steps, warmup_steps=warmup_steps)
    _check_longer(total_steps, free_steps + warmup_steps, "free_steps + warmup_steps")
    constrained = two_phase_schedule(peak_value, warmup_steps, total_steps - free_steps)
    return lambda count: jnp.where(jnp.less(count, free_steps), free_value, constrained(count - free_steps))


def _check_longer(total_steps: Number, before: Number, name: str) -> None:
    check_positive(total_steps=total_steps)
    if isinstance(total_steps, Integral) and total_steps >= 2**31:  # a count of steps is an int32
        raise ValueError(f"total_steps must be < 2**31, got {total_steps}")
    if not isinstance(total_steps, Tracer) and not isinstance(before, Tracer) and not total_steps > before:
        raise ValueError(f"total_steps must be > {name} = {before}, got {total_steps}")
