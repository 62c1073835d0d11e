"""The LAWN paper's relatives of LAWN (section 2): norms held from the first step on, and AdamP."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from adamlab.optim.adam import average, keep_dtypes, one_minus_power, scale_by_adam, squared_size
from adamlab.optim.checks import check_decay, check_learning_rate, check_non_negative, check_positive
from adamlab.optim.lawn import lawn
from adamlab.optim.leaves import Mask
from adamlab.optim.sphere import inner_product, require_params


def fixed_norm(
    inner: optax.GradientTransformation, *, mask: Mask | None = None, unit_axis: int | None = None
) -> optax.GradientTransformationExtraArgs:
    """Holds weight norms at their initial values: `lawn` without a free phase.

    Args:
      inner: Any Optax optimizer.
      mask: Which leaves, as in `lawn`.
      unit_axis: One sphere per leaf or per unit, as in `lawn`. Hoffer et al. hold the norm of each unit.

    Returns:
      A transformation with a `LawnState`, last in its chain.

    Raises:
      TypeError: `inner` is no optimizer.
      ValueError: A constrained leaf has no `unit_axis`, the mask selects nothing, or `update` gets no `params`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> optimizer, w = fixed_norm(optax.sgd(0.5)), jnp.array([[3.0, 4.0]])
      >>> updates, _ = optimizer.update(jnp.array([[1.0, 0.0]]), optimizer.init(w), w)
      >>> f"{jnp.linalg.norm(w + updates):.4f}"
      '5.0000'

    Source:
      Hoffer, Banner, Golan and Soudry, "Norm matters", arXiv:1803.01814, as the LAWN paper describes it: "the
      layer-wise weight norms are set at initialization using heuristics and then kept constrained at those values".
      Here the heuristic is the initialisation itself.
    """
    return lawn(inner, free_steps=0, mask=mask, unit_axis=unit_axis)


def scale_by_adamp(
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    weight_decay: ArrayLike = 0.0,
    delta: ArrayLike = 0.1,
    wd_ratio: ArrayLike = 0.1,
    nesterov: bool = False,
    *,
    unit_axis: int = -1,
) -> optax.GradientTransformationExtraArgs:
    """`adamp` before the learning rate and the sign.

    Args:
      b1, b2, eps, weight_decay, delta, wd_ratio, nesterov, unit_axis: As in `adamp`.

    Returns:
      A transformation whose `update` needs `params`.

    Raises:
      ValueError: An argument is out of range, or `update` gets no `params`.

    Example:
      >>> import jax.numpy as jnp
      >>> transform, w = scale_by_adamp(), jnp.array([[3.0], [4.0]])
      >>> updates, _ = transform.update(jnp.array([[-0.8], [0.6]]), transform.init(w), w)  # orthogonal to w
      >>> [round(float(x), 2) for x in updates[:, 0]]  # Adam's (-1, 1) without its part along (0.6, 0.8)
      [-1.12, 0.84]

    Source:
      As `adamp`.
    """
    check_decay(b1=b1, b2=b2)
    check_positive(eps=eps)
    check_non_negative(weight_decay=weight_decay, delta=delta, wd_ratio=wd_ratio)

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        params = require_params(params, updates)
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(partial(average, b1), state.mu, updates)
        nu = jax.tree.map(partial(average, b2), state.nu, jax.tree.map(squared_size, updates))
        numerators = jax.tree.map(partial(average, b1), mu, updates) if nesterov else mu
        correction1, correction2 = one_minus_power(b1, count), one_minus_power(b2, count)

        def direction(numerator, v, gradient, weight):
            if gradient is None:
                return None
            gradient, weight = jnp.asarray(gradient), jnp.asarray(weight)
            step = numerator / correction1 / (jnp.sqrt(v / correction2) + eps)
            slope, ratio = 0.0, 1.0
            if weight.ndim > 1 and weight.size:
                slope, is_projected = _projection(step, gradient, weight, delta, eps, unit_axis)
                ratio = jnp.where(is_projected, wd_ratio, 1.0)
            step += (weight_decay * ratio - slope) * weight
            return step.astype(jnp.promote_types(gradient.dtype, weight.dtype))

        updates = jax.tree.map(direction, numerators, nu, updates, params)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformationExtraArgs(scale_by_adam().init, update_fn)


def _projection(step, gradient, weight, delta, eps, unit_axis) -> tuple[jax.Array, jax.Array]:
    """The multiple of the weight to take from the step, per unit, and whether there is anything to take."""
    slope, is_projected = jnp.zeros([]), jnp.asarray(False)
    # First by unit, then by layer, so the unit's verdict comes last here: it overrides the layer's.
    for axis in (None, unit_axis):
        norm_g = jnp.sqrt(inner_product(gradient, gradient, axis))
        norm_w = jnp.sqrt(inner_product(weight, weight, axis))
        cosine = jnp.abs(inner_product(gradient, weight, axis)) / (jnp.maximum(norm_g, eps) * jnp.maximum(norm_w, eps))
        is_orthogonal = jnp.max(cosine) < delta / jnp.sqrt(weight.size / norm_w.size)
        along = inner_product(step, weight, axis) / (norm_w + eps)
        slope = jnp.where(is_orthogonal, along / (norm_w + eps), slope)  # its square may underflow
        is_projected |= is_orthogonal
    return slope, is_projected


def adamp(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    weight_decay: ArrayLike = 0.0,
    delta: ArrayLike = 0.1,
    wd_ratio: ArrayLike = 0.1,
    nesterov: bool = False,
    *,
    unit_axis: int = -1,
) -> optax.GradientTransformationExtraArgs:
    r"""AdamP: Adam that takes from its steps what they have along the weights, where the loss is scale-invariant.

    With p the step of Adam, w a leaf of rank 2 or more, or a unit of it, and n the number of its entries:

    .. math::

      p \leftarrow p - \frac{\langle p, w \rangle}{\|w\|^2} w
        \quad \text{if} \quad \frac{|\langle g, w \rangle|}{\|g\| \|w\|} < \frac{\delta}{\sqrt{n}}

    The condition must hold for all units of a leaf, which are then projected each; else it is tried on the whole
    leaf. Where it holds, weight decay (decoupled, as in AdamW) is multiplied by wd_ratio. Norms still change.

    Args:
      learning_rate: Step size, or a schedule.
      b1: Decay rate of the first moment, in [0, 1).
      b2: Decay rate of the second moment, in [0, 1).
      eps: Added to the root of the second moment, and to the weight norms, > 0.
      weight_decay: Decoupled weight decay, >= 0; multiplied by the learning rate.
      delta: Threshold of the condition, >= 0.
      wd_ratio: Factor of the weight decay where the condition holds, >= 0.
      nesterov: Whether the momentum is Nesterov's, as the reference implementation has it.
      unit_axis: Axis of the output units: -1 for Linen, NNX and Haiku, 0 for Equinox. It is no number to inject:
        ``optax.inject_hyperparams(adamp, static_args="unit_axis")``.

    Returns:
      A transformation whose `update` needs `params`.

    Raises:
      ValueError: An argument is out of range, or `update` gets no `params`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> optimizer, w = adamp(0.1), jnp.array([[3.0], [4.0]])
      >>> updates, _ = optimizer.update(jnp.array([[-0.8], [0.6]]), optimizer.init(w), w)  # orthogonal to w
      >>> [round(float(x), 4) for x in updates[:, 0]]  # Adam's (0.1, -0.1) without its part along (0.6, 0.8)
      [0.112, -0.084]

    Source:
      Heo et al., "AdamP: Slowing down the slowdown for momentum optimizers on scale-invariant weights",
      arXiv:2006.08217, Algorithm 2, and the authors' package `adamp` 0.3.0.
    """
    check_learning_rate(learning_rate)
    return optax.chain(
        scale_by_adamp(b1, b2, eps, weight_decay, delta, wd_ratio, nesterov, unit_axis=unit_axis),
        keep_dtypes(optax.scale_by_learning_rate(learning_rate)),
    )
