"""LAWN, Logit Attenuating Weight Normalization, around any Optax optimizer.

Sources: Gupta, Ramanath, Shi and Keerthi, "Adam vs. SGD: Closing the generalization gap on image classification"
(the LAWN paper), section 2; its algorithm stands in Gupta et al., "Logit Attenuating Weight Normalization",
arXiv:2108.05839, 2021, of which we had the abstract alone. The LAWN paper says that each layer's weight norm is
constrained at its current value, not how: the projection and the retraction are our reading (docs/lawn.md).
"""

from numbers import Integral
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from adamlab.optim.checks import check_steps
from adamlab.optim.leaves import Leaves, Mask, select
from adamlab.optim.sphere import (
    largest_drift,
    measure,
    project,
    require_params,
    retract,
    zero_drift,
    zero_radii,
)
from adamlab.optim.switch import require_first_moments, reset, transport

Steps = float | jax.Array
AtSwitch = Literal["keep", "reset", "transport"]


class LawnState(NamedTuple):
    """State of `lawn`.

    Attributes:
      count: Number of updates so far, int32, shape ().
      radius: The radii of the constrained leaves by path, float32 (float64 of leaves that are): shape () each, or
        (1, ..., units, ..., 1) with `unit_axis`. 0 before the first update, in the free phase the norms that the last
        one found, and fixed from the switch on: 0 for a leaf that had no norm there, which stays free.
      drift: The largest |norm / radius - 1| which any update so far found among the norms that one had set, float32,
        shape (). Rounding alone makes about 1e-7 for float32 parameters. More shows that something moved them in
        between: most likely a transformation that comes after `lawn`, which must be last. NaN where weights are.
      inner_state: The state of the inner optimizer.
    """

    count: ArrayLike
    radius: Leaves
    drift: jax.Array
    inner_state: optax.OptState


def lawn(
    inner: optax.GradientTransformation,
    *,
    free_steps: Steps,
    mask: Mask | None = None,
    unit_axis: int | None = None,
    project_update: bool = False,
    at_switch: AtSwitch = "keep",
) -> optax.GradientTransformationExtraArgs:
    r"""Trains freely with `inner` for some steps, then holds each layer's weight norm where it is.

    In steps 0 to free_steps - 1, the free phase, updates are those of `inner`, bit for bit (op by op, and but for the
    sign of zeros). From step free_steps on, the constrained phase, a leaf w keeps the norm r that it had at the
    beginning of that step:

    .. math::

      g &\leftarrow g - \frac{\langle g, w \rangle}{\|w\|^2} w \\
      u &\leftarrow \mathrm{inner}(g) \\
      w &\leftarrow r \frac{w + u}{\|w + u\|}

    The paper has weight decay in the free phase of SGD-LAWN alone, and the constrained one takes it back: give `inner`
    none, or let it end at the switch, as `sgd_lawn` does.

    A constraint must have the last word on the parameters: ``lawn(...)`` comes last in an `optax.chain`, around
    whatever scales, clips or averages updates. Right are ``chain(clip_by_global_norm(1.0), lawn(adam(1e-3), ...))``
    and ``lawn(chain(clip_by_global_norm(1.0), adam(1e-3)), ...)``; wrong are
    ``chain(lawn(...), clip_by_global_norm(1.0))``, ``chain(lawn(...), add_decayed_weights(...))``,
    ``chain(lawn(scale_by_adam(), ...), scale_by_learning_rate(1e-3))``, ``schedule_free(lawn(...), ...)`` and
    ``lookahead(lawn(...), ...)``. A transformation cannot see its place, but it sees the parameters: `LawnState.drift`
    tells. Wrappers that apply an update as it is or not at all may go around it: `MultiSteps`, `apply_if_finite`,
    `masked`, `partition`, and `inject_hyperparams` (with ``static_args=("mask", "unit_axis")``, and
    ``hyperparam_dtype=jnp.float32`` for parameters of bfloat16, to which it would round a decay rate of 0.999: to 1).

    Args:
      inner: Any Optax optimizer but those with a line search, which would not see the constraint. What takes the
        gradients of each example, as `optax.contrib.differentially_private_aggregate` does, comes before ``lawn(...)``.
      free_steps: Number of free steps, >= 0; the paper's E_free is in epochs, and "just a few" of them. May be a
        traced array: one program serves a grid of them. A fraction of a step counts as a whole one; a number between
        0 and 1 is refused, as a decay rate or a share of the training in the wrong place.
      mask: Which leaves to constrain: a tree of bools with the structure of the parameters, or a prefix of it, or a
        function from parameters to such a tree. Default: `kernel_mask`, our reading of "the weight vector of each
        layer"; biases and normalisation parameters are free, so that logits may still grow through BatchNorm's scales.
      unit_axis: None, the default, holds "the norms of the weight vector of each layer". An axis holds the norms
        of each unit instead: -1 for the output units of Linen, NNX and Haiku, 0 for those of Equinox.
      project_update: Whether to remove from the inner optimizer's update what it has along w, before retraction.
        Momentum gathered at other points, and Adam's rescaling, make updates leave the tangent space.
      at_switch: What happens to the inner state at the switch. "keep", the default: nothing. "reset": it starts afresh,
        but for what sets a learning rate: the counts of steps that schedules read, injected hyperparameters,
        `reduce_on_plateau` (not what `optax.contrib.prodigy` and its like keep beside their moments). "transport":
        first moments (the fields mu, trace and ema of Optax's states, but for centered RMSProp's) are projected onto
        the tangent space.

    Returns:
      A transformation whose `update` needs `params`, and whose state is a `LawnState`. Updates keep the dtypes that
      `inner` gives them; norms are float32 also for bfloat16 leaves. A leaf of norm 0 at the switch, such as a
      zero-initialised head that has not moved, has no sphere and stays free for good. Where parameters are split
      over devices under `jax.jit`, norms are global; inside `jax.shard_map` and `jax.pmap` they must be replicated.

    Raises:
      TypeError: `inner` is no optimizer, or `update` gets another state.
      ValueError: An argument is out of range, a constrained leaf has no `unit_axis`, the mask selects nothing, or
        `update` gets no `params`, or others than those of the state or of the updates.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from adamlab.optim.sphere import layer_norms
      >>> params = {"kernel": jnp.array([[3.0, 4.0]])}
      >>> optimizer = lawn(optax.adam(0.1), free_steps=2)
      >>> state, norms = optimizer.init(params), []
      >>> for _ in range(5):
      ...     gradients = jax.grad(lambda p: jnp.sum((p["kernel"] - 1.0) ** 2))(params)
      ...     updates, state = optimizer.update(gradients, state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     norms.append(round(float(layer_norms(params)["kernel"]), 3))
      >>> norms
      [4.86, 4.72, 4.72, 4.72, 4.72]
    """
    if not (hasattr(inner, "init") and hasattr(inner, "update")):
        raise TypeError(f"inner must be an Optax optimizer, such as optax.adam(1e-3), got {inner!r}")
    if at_switch not in ("keep", "reset", "transport"):
        raise ValueError(f"at_switch must be 'keep', 'reset' or 'transport', got {at_switch!r}")
    check_steps(free_steps=free_steps)
    free_steps = counted(free_steps)
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        radius = zero_radii(params, mask, unit_axis)
        inner_state = inner.init(params)
        if at_switch == "transport" and isinstance(radius, dict):  # else there are no parameters: see `zero_radii`
            require_first_moments(inner_state, select(params, mask))
        return LawnState(jnp.zeros([], jnp.int32), radius, zero_drift(radius), inner_state)

    def update_fn(updates, state, params=None, **extra_args):
        if not hasattr(state, "radius"):
            raise TypeError(
                f"state must be a LawnState, got a {type(state).__name__}; to go on from that of the optimizer inside, "
                "lawn(...).init(params)._replace(inner_state=...)"
            )
        params = require_params(params, updates)
        spheres = measure(params, state.radius, state.count, free_steps, mask, unit_axis)
        updates = project(spheres, updates, unit_axis)
        inner_state = state.inner_state
        # The only step that is held and still measures its radius.
        is_switch = (state.count >= free_steps) & (state.count - 1 < free_steps)
        if at_switch == "reset":
            inner_state = reset(inner_state, inner.init(params), is_switch)
        elif at_switch == "transport":
            inner_state = transport(inner_state, spheres, is_switch, unit_axis)
        updates, inner_state = inner.update(updates, inner_state, params, **extra_args)
        updates = retract(spheres, updates, unit_axis, project_update)
        count = optax.safe_increment(state.count)
        drift = jnp.maximum(state.drift, largest_drift(spheres))
        return updates, LawnState(count, spheres.radius, drift, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def counted(free_steps: Steps) -> Steps:
    """As far as a count of steps, an int32, goes: for ever."""
    return min(int(free_steps), 2**31 - 1) if isinstance(free_steps, Integral) else free_steps
