"""Two-phase and three-phase learning rates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adamlab.optim.schedules import three_phase_schedule, two_phase_schedule

COUNTS = np.arange(0, 110)


@pytest.mark.parametrize("warmup_steps", [1, 7, 50])
def test_two_phases_are_optax_warmup_cosine_decay(warmup_steps):
    schedule = two_phase_schedule(0.3, warmup_steps, 100)
    expected = optax.warmup_cosine_decay_schedule(0.0, 0.3, warmup_steps, 100)
    np.testing.assert_allclose(schedule(COUNTS), expected(COUNTS), rtol=1e-5, atol=1e-7)


def test_without_warmup_the_first_step_has_the_peak():
    schedule = two_phase_schedule(0.3, 0, 100)
    np.testing.assert_allclose(schedule(COUNTS), optax.cosine_decay_schedule(0.3, 100)(COUNTS), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("free_value", [None, 0.01])
def test_three_phases_are_a_constant_and_then_two_phases(free_value):
    schedule = three_phase_schedule(0.3, 20, 10, 100, free_value)
    np.testing.assert_allclose(schedule(COUNTS[:20]), 0.3 if free_value is None else free_value, rtol=1e-6)
    np.testing.assert_allclose(schedule(COUNTS[20:]), two_phase_schedule(0.3, 10, 80)(COUNTS[:-20]), rtol=1e-6)
    # Warm-up from 0 to the peak, the decay's middle half way through the 70 steps after it, and 0 from the end on.
    at = [20, 25, 30, 65, 100, 109]
    np.testing.assert_allclose([schedule(t) for t in at], [0.0, 0.15, 0.3, 0.15, 0.0, 0.0], rtol=1e-5, atol=1e-8)


def test_no_free_phase_leaves_two_phases():
    np.testing.assert_allclose(three_phase_schedule(0.3, 0, 5, 100)(COUNTS), two_phase_schedule(0.3, 5, 100)(COUNTS))


def test_every_argument_may_be_traced_and_vmapped():
    def rates(peak, free_steps, warmup_steps, total_steps, free_value):
        return three_phase_schedule(peak, free_steps, warmup_steps, total_steps, free_value)(COUNTS)

    settings = [(0.3, 20, 10, 100, 0.1), (1.0, 0, 0, 50, 1.0), (0.5, 7, 0, 90, 0.2)]
    columns = [jnp.array(column) for column in zip(*settings, strict=True)]
    grid = jax.jit(jax.vmap(rates))(*columns)
    for row, setting in zip(grid, settings, strict=True):
        np.testing.assert_allclose(row, rates(*setting), rtol=1e-5, atol=1e-7)


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match="peak_value must be a finite number > 0, got 0"):
        two_phase_schedule(0, 1, 10)
    with pytest.raises(ValueError, match="peak_value must be a finite number > 0, got inf"):
        two_phase_schedule(float("inf"), 1, 10)
    with pytest.raises(ValueError, match="total_steps must be a finite number > 0, got inf"):
        two_phase_schedule(1.0, 1, float("inf"))
    with pytest.raises(ValueError, match=r"total_steps must be < 2\*\*31, got 2147483648"):
        two_phase_schedule(1.0, 1, 2**31)
    with pytest.raises(ValueError, match="free_steps must be a number of steps, 0 or at least 1, got -1"):
        three_phase_schedule(1.0, -1, 4, 10)
    with pytest.raises(ValueError, match="warmup_steps must be a number of steps, 0 or at least 1, got -1"):
        two_phase_schedule(1.0, -1, 10)
    with pytest.raises(ValueError, match=r"warmup_steps must be a number of steps, 0 or at least 1, got 0\.1"):
        two_phase_schedule(1.0, 0.1, 1.0)  # a share of the training
    with pytest.raises(ValueError, match=r"free_steps must be a number of steps, 0 or at least 1, got 0\.1"):
        three_phase_schedule(1.0, 0.1, 5, 1000)
    with pytest.raises(ValueError, match="total_steps must be > warmup_steps = 10, got 10"):
        two_phase_schedule(1.0, 10, 10)
    with pytest.raises(ValueError, match=r"total_steps must be > free_steps \+ warmup_steps = 12, got 10"):
        three_phase_schedule(1.0, 8, 4, 10)
    with pytest.raises(ValueError, match=r"peak_value must be a finite number > 0, got 0\.0"):
        three_phase_schedule(0.0, 8, 4, 20)
    with pytest.raises(ValueError, match=r"free_value must be a finite number > 0, got -0\.1"):
        three_phase_schedule(1.0, 8, 4, 20, -0.1)
