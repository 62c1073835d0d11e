"""Adam (Kingma and Ba, 2017), with every hyperparameter free to be a traced array."""

from functools import partial, reduce

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from adamlab.optim.checks import check_decay, check_learning_rate, check_non_negative


def scale_by_adam(
    b1: ArrayLike = 0.9, b2: ArrayLike = 0.999, eps: ArrayLike = 1e-8, eps_root: ArrayLike = 0.0
) -> optax.GradientTransformation:
    r"""Rescales gradients by their bias-corrected moments: `adam` before the learning rate and the sign.

    Args:
      b1: Decay rate of the first moment, in [0, 1).
      b2: Decay rate of the second moment, in [0, 1).
      eps: Added to the square root, >= 0.
      eps_root: Added inside the square root, >= 0.

    Returns:
      An `optax.GradientTransformation`; its moments have the parameters' dtypes, its updates those or the gradients',
      whichever are wider. A bfloat16 second moment hardly decays at 0.999: train float32 parameters, and round copies
      of them.

    Raises:
      ValueError: A number is out of range. Traced values cannot be looked at and are not checked.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> w = jnp.array([2.0])
      >>> optimizer = optax.chain(scale_by_adam(), optax.add_decayed_weights(0.01), optax.scale_by_learning_rate(0.1))
      >>> updates, _ = optimizer.update(jnp.array([5.0]), optimizer.init(w), w)
      >>> f"{updates[0]:.3f}"  # -0.1 (1 + 0.01 * 2): AdamW
      '-0.102'

    Source:
      As `adam`.
    """
    check_decay(b1=b1, b2=b2)
    check_non_negative(eps=eps, eps_root=eps_root)

    def init_fn(params):
        # Two trees of zeros, not one twice: a step that donates its state must own every buffer once.
        mu, nu = optax.tree.zeros_like(params), optax.tree.zeros_like(params)
        return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), mu, nu)

    def update_fn(updates, state, params=None):
        del params
        count = optax.safe_increment(state.count)
        correction1, correction2 = one_minus_power(b1, count), one_minus_power(b2, count)

        def rescale(m, v, g):
            if g is None:  # a gradient that is missing: its moments stay as they are
                return None
            step = m / correction1 / (jnp.sqrt(v / correction2 + eps_root) + eps)
            return step.astype(jnp.promote_types(jnp.result_type(g), m.dtype))

        mu = jax.tree.map(partial(average, b1), state.mu, updates)
        nu = jax.tree.map(partial(average, b2), state.nu, jax.tree.map(squared_size, updates))
        return jax.tree.map(rescale, mu, nu, updates), optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init_fn, update_fn)


def adam(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
) -> optax.GradientTransformation:
    r"""Adam: steps along the first moment of the gradient, rescaled by the root of its second.

    .. math::

      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
      v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
      \theta_t &= \theta_{t-1} - \alpha \frac{m_t / (1 - \beta_1^t)}
        {\sqrt{v_t / (1 - \beta_2^t) + \bar\varepsilon} + \varepsilon}

    Epsilon has two places. Algorithm 1 as the sensitivity paper prints it has it inside the root (`eps_root`);
    PyTorch's Adam, which the paper ran, and Kingma and Ba have it outside (`eps`, the default). Where
    gradients are small, 1e-8 inside acts as its root, 1e-4, does outside.

    Every argument may be a Python number or a traced array, in any mix, so one compiled training step serves a
    whole grid of settings, and `jax.vmap` trains several at once.

    Args:
      learning_rate: Step size alpha >= 0, or a schedule from the step count (starting at 0) to it.
      b1: Decay rate of the first moment, in [0, 1).
      b2: Decay rate of the second moment, in [0, 1).
      eps: Added to the square root, >= 0.
      eps_root: Added inside the square root, >= 0.

    Returns:
      An `optax.GradientTransformation`.

    Raises:
      ValueError: A number is out of range. Traced values cannot be looked at and are not checked.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> @jax.jit
      ... def one_step(alpha, x):
      ...     optimizer = adam(alpha, b2=0.99)
      ...     updates, _ = optimizer.update(jax.grad(jnp.square)(x), optimizer.init(x))
      ...     return optax.apply_updates(x, updates)
      >>> [round(float(one_step(alpha, 3.0)), 3) for alpha in (0.1, 0.01)]  # compiled once
      [2.9, 2.99]

    Source:
      Kingma and Ba, 2017, arXiv:1412.6980, Algorithm 1; Madan and Wu, "Hyperparameter Sensitivity Analysis for
      Adam Optimization on Deep CNNs", Algorithm 1.
    """
    check_learning_rate(learning_rate)
    return optax.chain(scale_by_adam(b1, b2, eps, eps_root), keep_dtypes(optax.scale_by_learning_rate(learning_rate)))


def keep_dtypes(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Keeps traced float32 hyperparameters from promoting updates and state of a narrower type.

    Updates have the gradients' dtypes or the parameters', whichever are wider. State whose gradient is missing waits.
    """

    def is_none(x):
        return x is None

    def narrowed(update, *given):
        if update is None:
            return None
        return update.astype(reduce(jnp.promote_types, map(jnp.result_type, given)))

    def update_fn(updates, state, params=None):
        moved, new_state = inner.update(updates, state, params)
        given = (updates,) if params is None else (updates, params)
        kept = jax.tree.map(
            lambda new, old: old if new is None else new.astype(old.dtype), new_state, state, is_leaf=is_none
        )
        return jax.tree.map(narrowed, moved, *given, is_leaf=is_none), kept

    return optax.GradientTransformation(inner.init, update_fn)


def average(decay: ArrayLike, moment: jax.Array, number: jax.Array | None) -> jax.Array:
    """The moving average, of its own type whatever the decay's; it waits where a number is missing."""
    return moment if number is None else jnp.asarray(decay * moment + (1 - decay) * number, moment.dtype)


def squared_size(x: jax.Array) -> jax.Array:
    """|x|^2 of each entry, which may be complex."""
    return jnp.real(x * jnp.conj(x))


def one_minus_power(decay: ArrayLike, count: ArrayLike) -> jax.Array:
    """1 - decay^count to full relative precision: in float32, 1 - 0.99999**2 keeps three digits, this keeps seven."""
    return _one_minus_power(decay - 1.0, count)


@jax.custom_jvp
def _one_minus_power(gap: ArrayLike, count: ArrayLike) -> jax.Array:
    return -jnp.expm1(count * jnp.log1p(gap))


@_one_minus_power.defjvp
def _by_gap(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    # At decay 0 the chain rule would multiply 0 by the infinite derivative of the logarithm.
    (gap, count), (gap_dot, _) = primals, tangents
    return _one_minus_power(gap, count), -count * jnp.power(1 + gap, count - 1) * gap_dot
