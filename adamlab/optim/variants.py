"""The LAWN paper's three: Adam, SGD and LAMB under `lawn` (sections 2 and 3)."""

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from adamlab.optim.adam import adam, keep_dtypes
from adamlab.optim.checks import check_decay, check_learning_rate, check_non_negative
from adamlab.optim.lawn import Steps, counted, lawn
from adamlab.optim.leaves import Mask


def adam_lawn(
    learning_rate: optax.ScalarOrSchedule,
    free_steps: Steps,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    *,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam-LAWN: `adamlab.adam` under `lawn`. For the other options of `lawn`, write ``lawn(adam(...), ...)``.

    Args:
      learning_rate: Step size, or a schedule such as `three_phase_schedule`.
      free_steps, mask: As in `lawn`.
      b1, b2, eps, eps_root: As in `adam`. Under `optax.inject_hyperparams` see `lawn`; only the mask is static.

    Returns:
      A transformation with a `LawnState`, last in its chain.

    Raises:
      ValueError: An argument is out of range, the mask selects nothing, or `update` gets no `params`.

    Source:
      The LAWN paper, section 2; how the norm is held: `lawn`.
    """
    return lawn(adam(learning_rate, b1, b2, eps, eps_root), free_steps=free_steps, mask=mask)


def sgd_lawn(
    learning_rate: optax.ScalarOrSchedule,
    free_steps: Steps,
    momentum: ArrayLike = 0.9,
    nesterov: bool = False,
    weight_decay: ArrayLike = 0.0,
    *,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD-LAWN: SGD with momentum and weight decay in the free phase, without the decay in the constrained one.

    .. math:: g \leftarrow g + \lambda w \quad \text{in steps 0 to free\_steps - 1, then as in lawn}

    "We retain the tuned value for weight decay of the base SGD optimizer for the free phase of SGD-LAWN" (LAWN
    paper, section 3.2, of ImageNet). As in PyTorch, which the paper ran, it is added to the gradient of every
    parameter.

    Args:
      learning_rate: Step size, or a schedule such as `three_phase_schedule`.
      free_steps, mask: As in `lawn`.
      momentum: Decay rate of the momentum, in [0, 1).
      nesterov: Whether the momentum is Nesterov's.
      weight_decay: Factor of the parameters that is added to their gradients in the free phase, >= 0.

    Returns:
      A transformation with a `LawnState`, last in its chain.

    Raises:
      ValueError: An argument is out of range, the mask selects nothing, or `update` gets no `params`.
    """
    check_learning_rate(learning_rate)
    check_decay(momentum=momentum)
    check_non_negative(weight_decay=weight_decay)
    free_steps = counted(free_steps)
    inner = optax.chain(decay_while_free(weight_decay, free_steps), optax.sgd(learning_rate, momentum, nesterov))
    return lawn(keep_dtypes(inner), free_steps=free_steps, mask=mask)


def decay_while_free(weight_decay: ArrayLike, free_steps: Steps) -> optax.GradientTransformation:
    """Weight decay in the gradients of steps 0 to free_steps - 1; arguments as in `sgd_lawn`."""
    return optax.add_decayed_weights(lambda count: weight_decay * jnp.less(count, free_steps))


def lamb_lawn(
    learning_rate: optax.ScalarOrSchedule,
    free_steps: Steps,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-6,
    eps_root: ArrayLike = 0.0,
    *,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """LAMB-LAWN: `optax.lamb` without weight decay under `lawn`.

    The paper says that it was run, and not how: which LAMB, and all its settings, are ours.

    Args:
      learning_rate: Step size relative to a layer's weight norm, or a schedule such as `three_phase_schedule`.
      free_steps, mask: As in `lawn`.
      b1, b2, eps, eps_root: As in `optax.lamb`.

    Returns:
      A transformation with a `LawnState`, last in its chain.

    Raises:
      ValueError: An argument is out of range, the mask selects nothing, or `update` gets no `params`.

    Source:
      The LAWN paper, section 3.2; LAMB: You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76
      minutes", arXiv:1904.00962.
    """
    check_learning_rate(learning_rate)
    check_decay(b1=b1, b2=b2)
    check_non_negative(eps=eps, eps_root=eps_root)
    return lawn(keep_dtypes(optax.lamb(learning_rate, b1, b2, eps, eps_root)), free_steps=free_steps, mask=mask)
