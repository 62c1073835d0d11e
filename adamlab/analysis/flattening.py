"""Loss flattening: weights and logits grow, and with the loss its gradients, its Hessian and the steps shrink.

Gupta et al., "Adam vs. SGD: Closing the generalization gap on image classification", sections 1 and 2, call the end of
it the loss of weight adaptivity. Constraining the weights' norms (LAWN) is meant to prevent it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from adamlab.optim.leaves import kernel_mask
from adamlab.optim.sphere import inner_product, layer_norms


def trace(
    loss_and_logits: Callable[[optax.Params], tuple[Array, Array]],
    params: optax.Params,
    new_params: optax.Params,
    key: Array,
    iterations: int = 15,
) -> dict[str, Any]:
    r"""What loss flattening changes, at one moment of training.

    With batch x, loss L, logits z, kernels w and the parameters :math:`\theta` before, :math:`\theta'` after a step:

    .. math:: \|\nabla L\|, \quad \tfrac1n \textstyle\sum_i \|z_i\|, \quad \|w\|, \quad \|\theta' - \theta\|, \quad
        \angle(w, w'), \quad \lambda_{\max |\cdot|}(\nabla^2 L)

    Where normalisation follows a layer, L does not see the norm of its kernel: c times the kernel has a gradient c
    times and a Hessian block c^2 times smaller, and the same function. Read both together with the norms.

    Args:
      loss_and_logits: From parameters to the mean loss in nats, shape (), and the logits, (n, classes).
      params: The parameters before an optimizer's step.
      new_params: Those after it, the same tree.
      key: For the start of the power iteration.
      iterations: See `top_hessian_eigenvalue`, which is nearly all of the cost.

    Returns:
      float32 scalars: `gradient_norm`; `logit_norm`, the mean over the images; `weight_norm`, of all kernels together;
      `update_norm`, of all parameters; `angular_step`, the mean over the kernels, radians; `hessian_eigenvalue`. Flat
      dicts from a kernel's path ("Conv_0/kernel") to float32 scalars: `layer_weight_norms`; `layer_angular_steps`,
      radians, 0 where one of the two kernels is zero. Kernels are the leaves that `kernel_mask` marks.

    Raises:
      ValueError: If there is no kernel, or `iterations` is below 1.

    Example:
      >>> before, after = {"kernel": jnp.array([[3.0, 0.0]])}, {"kernel": jnp.array([[3.0, 3.0]])}
      >>> def loss_and_logits(params):
      ...     return jnp.sum(params["kernel"] ** 2), params["kernel"]
      >>> measured = trace(loss_and_logits, before, after, jax.random.key(0))
      >>> [round(float(measured[name]), 3) for name in ("gradient_norm", "angular_step", "hessian_eigenvalue")]
      [6.0, 0.785, 2.0]
    """
    kernels, new_kernels = _kernels(params), _kernels(new_params)
    weight_norms = layer_norms(kernels)
    if not weight_norms:
        raise ValueError(f"params must contain a kernel, a leaf of rank 2 or more, got {list(layer_norms(params))}")
    angles = jax.tree.leaves(jax.tree.map(_angle, kernels, new_kernels))
    (_, logits), gradients = jax.value_and_grad(loss_and_logits, has_aux=True)(params)
    measured = {
        "gradient_norm": _norm(gradients),
        "logit_norm": jnp.mean(jnp.linalg.norm(logits, axis=-1)),
        "weight_norm": _norm(kernels),
        "update_norm": _norm(optax.tree.sub(new_params, params)),
        "angular_step": jnp.mean(jnp.stack(angles)),
        "hessian_eigenvalue": top_hessian_eigenvalue(lambda p: loss_and_logits(p)[0], params, key, iterations),
        "layer_weight_norms": weight_norms,
        "layer_angular_steps": dict(zip(weight_norms, angles, strict=True)),
    }
    return jax.tree.map(lambda x: x.astype(jnp.float32), measured)


def top_hessian_eigenvalue(
    loss_fn: Callable[[optax.Params], Array], params: optax.Params, key: Array, iterations: int
) -> Array:
    r"""The eigenvalue of largest magnitude of a loss's Hessian H, by power iteration.

    .. math:: v_{k+1} = H v_k / \|H v_k\|, \qquad \lambda \approx v_K^\top H v_K

    The relative error falls like r^(2K), r being the ratio of the second largest magnitude to the largest: with 20
    products to 0.2% for r = 0.85, with 10 to 5%. If the two are of opposite sign and r is nearly 1, the quotient lies
    anywhere between them.

    H ignores the kinks of ReLUs: it is the curvature within one linear region, which in a deep net at initialisation
    is smaller than an optimizer's step. There it can be large and negative.

    Args:
      loss_fn: From parameters to a scalar that `jax.grad`, and `jax.jvp` over it, can differentiate.
      params: Where; a tree of floating-point arrays.
      key: For the start, a random normal direction.
      iterations: K + 1, the number of Hessian-vector products. The number is fixed, so that every call costs the same.

    Returns:
      The Rayleigh quotient of the last direction, shape (); 0 for H = 0.

    Raises:
      ValueError: If `iterations` is below 1.

    Example:
      >>> def saddle(w):
      ...     return w[0] ** 2 - 3 * w[1] ** 2
      >>> round(float(top_hessian_eigenvalue(saddle, jnp.ones(2), jax.random.key(0), iterations=20)), 3)
      -6.0
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")

    flat, unravel = ravel_pytree(params)
    gradient = jax.grad(lambda flat: loss_fn(unravel(flat)))

    def iterate(direction, _):
        product = jax.jvp(gradient, (flat,), (direction,))[1]
        return _normalise(product), jnp.vdot(direction, product)

    # One draw for all leaves: on CPU, one per leaf takes several times longer to compile.
    start = _normalise(jax.random.normal(key, flat.shape, flat.dtype))
    return lax.scan(iterate, start, length=iterations)[1][-1]


def _kernels(params: optax.Params) -> Any:
    """The tree without its other leaves."""
    return jax.tree.map(lambda is_kernel, leaf: leaf if is_kernel else None, kernel_mask(params), params)


def _angle(w: Array, new: Array) -> Array:
    """The angle between two leaves, from the part of the step new - w that is orthogonal to w.

    In float32 a cosine near 1 has lost angles below 3e-4, and rounded unit vectors lie 3e-8 from where they should.
    The difference of two close floats is exact, so that here the error is relative to the step.
    """
    square = inner_product(w, w)
    moves = (square > 0.0) & (inner_product(new, new) > 0.0)

    def project(step):
        return step - inner_product(step, w) / jnp.where(moves, square, 1.0) * w

    across = project(project(new - w))  # the second time takes what rounding left of a long step along w
    return jnp.where(moves, jnp.arctan2(_norm(across) * jnp.sqrt(square), inner_product(new, w)), 0.0)


def _normalise(x: Array) -> Array:
    norm = _norm(x)
    return x / jnp.where(norm > 0.0, norm, 1.0)


def _norm(tree: Any) -> Array:
    return jnp.sqrt(jnp.asarray(sum(inner_product(leaf, leaf) for leaf in jax.tree.leaves(tree))))
