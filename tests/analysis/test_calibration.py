"""Temperature scaling, beside a search in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from adamlab.analysis.calibration import TEMPERATURES, best_temperature, losses_at_temperatures


def network(seed, scale, knowledge, images=300, classes=10):
    """Logits that know the label by more or less, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    logits = rng.normal(size=(images, classes))
    logits[np.arange(images), labels] += knowledge
    return np.float32(scale * logits), labels


def reference(logits, labels, temperature):
    return -log_softmax(np.float64(logits) / temperature, axis=1)[np.arange(len(labels)), labels]


def measure(logits, labels):
    return best_temperature(losses_at_temperatures(jnp.asarray(logits), jnp.asarray(labels)).mean(axis=0))


def test_losses_are_those_of_float64():
    logits, labels = network(seed=0, scale=5.0, knowledge=1.0)
    losses = jax.jit(losses_at_temperatures)(logits, labels)
    assert (losses.shape, losses.dtype) == ((300, 65), np.float32)
    for column, temperature in enumerate(TEMPERATURES):
        np.testing.assert_allclose(losses[:, column], reference(logits, labels, temperature), rtol=2e-5, atol=2e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.5, 20), st.floats(0.3, 3))
def test_the_best_temperature_is_that_of_a_search(seed, scale, knowledge):
    logits, labels = network(seed, scale, knowledge)
    searched = minimize_scalar(
        lambda exponent: reference(logits, labels, 2.0**exponent).mean(),
        bounds=(-2, 6),
        method="bounded",
        options={"xatol": 1e-6},
    )
    temperature, loss = measure(logits, labels)
    assert loss == pytest.approx(searched.fun, abs=1e-4)
    assert np.log2(temperature) == pytest.approx(searched.x, abs=0.02)


def test_logits_twice_as_large_have_twice_the_temperature_and_the_same_loss():
    logits, labels = network(seed=1, scale=3.0, knowledge=1.0)
    once, twice = measure(logits, labels), measure(2 * logits, labels)
    assert twice[0] == pytest.approx(2 * once[0], rel=1e-4)
    assert twice[1] == pytest.approx(once[1], rel=1e-5)


def test_a_network_that_knows_nothing_gets_the_highest_temperature_and_nearly_the_loss_of_a_guess():
    logits, labels = network(seed=2, scale=4.0, knowledge=-0.5)
    temperature, loss = measure(logits, labels)
    assert temperature == 64
    assert np.log(10) < loss < np.log(10) + 0.05


def test_losses_that_overflow_at_low_temperatures_are_left_out():
    logits = np.float32([[1e38, 0.0], [0.0, 1e38]])
    losses = np.asarray(losses_at_temperatures(jnp.asarray(logits), jnp.array([1, 1]))).mean(axis=0)
    assert not np.isfinite(losses).all()
    assert best_temperature(losses) == (64, pytest.approx(1e38 / 64 / 2, rel=1e-5))


@pytest.mark.parametrize(
    ("losses", "said"), [(np.full(65, np.nan), "got none"), (np.ones(3), r"must be 65.*got shape \(3,\)")]
)
def test_losses_that_cannot_be_searched_are_refused(losses, said):
    with pytest.raises(ValueError, match=said):
        best_temperature(losses)
