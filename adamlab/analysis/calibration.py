"""Temperature scaling: how much of a test loss is logits of the wrong size.

Dividing all logits by one number, a temperature, makes a network more or less confident and leaves what it predicts as
it is (Guo et al., "On calibration of modern neural networks", ICML 2017, section 4.2). Where the test losses of two
networks differ as they are, and no longer when each has its best temperature, the difference was confidence.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import ArrayLike

# Eight to a factor of two: a parabola between them is within 1e-4 nats of the lowest loss.
TEMPERATURES = 2.0 ** np.linspace(-2, 6, 65)


def losses_at_temperatures(logits: Array, labels: Array) -> Array:
    r"""Each image's cross-entropy at each of `TEMPERATURES`.

    .. math:: L_{ij} = -\log \mathrm{softmax}(z_i / T_j)_{y_i}

    Args:
      logits: z, (n, classes).
      labels: y, integers, (n,).

    Returns:
      L in nats, float32, (n, 65).

    Example:
      >>> losses = losses_at_temperatures(jnp.array([[2.0, 0.0]]), jnp.array([0]))
      >>> [round(float(loss), 4) for loss in losses[0, [16, 24]]]  # T = 1 and 2: log(1 + exp(-2)), log(1 + exp(-1))
      [0.1269, 0.3133]
    """
    logits = logits.astype(jnp.float32)

    def loss(temperature: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits / temperature, labels)

    return jax.vmap(loss, out_axes=1)(jnp.float32(TEMPERATURES))


def best_temperature(losses: ArrayLike) -> tuple[float, float]:
    r"""The temperature at which a mean loss is lowest, and that loss.

    .. math:: \hat T = \arg\min_T \tfrac1n \textstyle\sum_i L_i(T), \qquad \tfrac1n \textstyle\sum_i L_i(\hat T)

    It is chosen on the images that the loss is of. One number chosen on n images takes some 1/(2n) off their loss, half
    a thousandth on a thousand, of all settings nearly alike; so this is a bound for what a temperature can do.

    Args:
      losses: The mean loss at each of `TEMPERATURES`, nats, (65,). One that is not finite is left out.

    Returns:
      The temperature, at least 1/4 and at most 64: an end where the loss still falls there, as it does towards infinity
      for a network that knows nothing. And the loss, nats.

    Raises:
      ValueError: None of the losses is finite, or there are not 65.

    Example:
      >>> temperature, loss = best_temperature((np.log2(TEMPERATURES) - 1.03) ** 2 + 0.5)
      >>> round(float(np.log2(temperature)), 6), round(loss, 6)
      (1.03, 0.5)

    Source:
      Guo et al., "On calibration of modern neural networks", ICML 2017, section 4.2.
    """
    array = np.asarray(losses, np.float64)
    if array.shape != TEMPERATURES.shape:
        raise ValueError(f"losses must be {len(TEMPERATURES)}, one for each temperature, got shape {array.shape}")
    array = np.where(np.isfinite(array), array, np.inf)
    lowest = int(np.argmin(array))
    if array[lowest] == np.inf:
        raise ValueError("losses must be finite at one temperature at least, got none")
    around = array[lowest - 1 : lowest + 2] if lowest else array[:0]
    if len(around) < 3 or not np.isfinite(around).all() or around[0] + around[2] == 2 * around[1]:
        return float(TEMPERATURES[lowest]), float(array[lowest])
    # The vertex of the parabola through the three, in the logarithm of the temperature.
    slope, curvature = (around[2] - around[0]) / 2, around[0] - 2 * around[1] + around[2]
    step = np.log(TEMPERATURES[1] / TEMPERATURES[0])
    temperature = TEMPERATURES[lowest] * np.exp(-step * slope / curvature)
    return float(temperature), float(around[1] - slope**2 / (2 * curvature))
