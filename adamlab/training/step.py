"""One training step and one evaluation step: pure functions of arrays."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from adamlab.analysis import calibration, flattening

Arrays = dict[str, jax.Array]
# From a run's hyperparameters, as arrays, to its optimizer.
OptimizerFactory = Callable[[Arrays], optax.GradientTransformation]


class TrainState(NamedTuple):
    """All that training changes, and the hyperparameters: they are arrays, so one compiled step serves every value."""

    params: Any
    batch_stats: Any
    opt_state: Any
    hyperparameters: Arrays


class Normalisation(NamedTuple):
    """Per-channel mean and standard deviation of images scaled to [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: jax.Array) -> jax.Array:
        """uint8 images (..., channels) as float32 of about zero mean and unit variance."""
        scale, offset = 1 / (255 * jnp.array(self.std)), jnp.array(self.mean) / jnp.array(self.std)
        shape = (1,) * (images.ndim - 1) + (-1,)
        return images.astype(jnp.float32) * scale.reshape(shape) - offset.reshape(shape)


def make_init(model: nn.Module, make_optimizer: OptimizerFactory, image_shape: tuple[int, int, int]) -> Callable:
    """The function `init(seed, hyperparameters) -> TrainState`."""

    def init(seed: jax.Array, hyperparameters: Arrays) -> TrainState:
        variables = model.init(jax.random.key(seed), jnp.zeros((1, *image_shape)), train=False)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        return TrainState(params, batch_stats, make_optimizer(hyperparameters).init(params), hyperparameters)

    return init


def make_train_step(
    model: nn.Module,
    make_optimizer: OptimizerFactory,
    normalise: Normalisation,
    axis_name: str | None = None,
    pieces: int = 1,
) -> Callable:
    """The function `train_step(state, batch) -> (state, loss)`.

    `batch` holds `image`, uint8 (n, height, width, channels), and `label`, int32 (n,). The loss is the batch's mean
    cross-entropy in nats, before the update.

    Args:
      model: The net; the axis of its BatchNorm is `axis_name`, or None for statistics per device.
      make_optimizer: From hyperparameters to the optimizer.
      normalise: From uint8 images to what the net takes.
      axis_name: The mapped axis over whose devices the batch is split: each has n images of it.
      pieces: Into how many pieces of n / pieces images the batch is cut; only one of them is in memory at a time.
        BatchNorm sees a piece, and its running averages move once, to the mean over the pieces.
    """

    def measure(params: Any, batch_stats: Any, batch: Arrays) -> tuple[jax.Array, Any, Any]:
        images = normalise(batch["image"])

        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params, "batch_stats": batch_stats}
            logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
            return cross_entropy(logits, batch["label"]).mean(), updated.get("batch_stats", {})

        (loss, updated), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
        return loss, updated, gradients

    def train_step(state: TrainState, batch: Arrays) -> tuple[TrainState, jax.Array]:
        measured = _mean_over_pieces(partial(measure, state.params, state.batch_stats), batch, pieces)
        if axis_name is not None:
            measured = lax.pmean(measured, axis_name)
        loss, batch_stats, gradients = measured
        with jax.named_scope("optimizer"):  # the name that a profile shows
            optimizer = make_optimizer(state.hyperparameters)
            updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        return TrainState(params, batch_stats, opt_state, state.hyperparameters), loss

    return train_step


def _mean_over_pieces(measure: Callable, batch: Arrays, pieces: int) -> Any:
    """The mean of `measure`, a tree of float arrays, over equal pieces of a batch, one after the other."""
    if pieces == 1:
        return measure(batch)
    cut = {name: array.reshape(pieces, -1, *array.shape[1:]) for name, array in batch.items()}
    zeros = optax.tree.zeros_like(jax.eval_shape(measure, {name: array[0] for name, array in cut.items()}))

    def add(total: Any, piece: Arrays) -> tuple[Any, None]:
        return optax.tree.add(total, measure(piece)), None

    total, _ = lax.scan(add, zeros, cut)
    return optax.tree.scale(1 / pieces, total)


def make_trace(model: nn.Module, train_step: Callable, normalise: Normalisation) -> Callable:
    """The function `trace(state, batch) -> measurements` of `adamlab.analysis.flattening.trace` at a state.

    The step whose length is measured is the one that the optimizer would take on `batch`; the state stays as it is.
    """

    def trace(state: TrainState, batch: Arrays) -> dict[str, Any]:
        images = normalise(batch["image"])

        def loss_and_logits(params: Any) -> tuple[jax.Array, jax.Array]:
            variables = {"params": params, "batch_stats": state.batch_stats}
            logits, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
            return cross_entropy(logits, batch["label"]).mean(), logits

        stepped, _ = train_step(state, batch)
        return flattening.trace(loss_and_logits, state.params, stepped.params, jax.random.key(0))

    return trace


def make_eval_step(model: nn.Module, normalise: Normalisation) -> Callable:
    """The function `eval_step(state, batch) -> {"loss", "scaled_losses", "correct", "count"}`: sums over images.

    `scaled_losses`, (65,), are at `adamlab.analysis.calibration.TEMPERATURES`. Only images whose `mask` is 1 count, so
    that each of a set counts once: the last batch is filled up, and what fills it has mask 0.
    """

    def eval_step(state: TrainState, batch: Arrays) -> Arrays:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        logits: Any = model.apply(variables, normalise(batch["image"]), train=False)
        loss = cross_entropy(logits, batch["label"])
        scaled = calibration.losses_at_temperatures(logits, batch["label"])
        correct = jnp.argmax(logits, axis=-1) == batch["label"]
        # A masked image must not spoil the sum, not even with an infinite loss.
        return {
            "loss": jnp.sum(loss, where=batch["mask"]),
            "scaled_losses": jnp.sum(scaled, axis=0, where=batch["mask"][:, None]),
            "correct": jnp.sum(correct, where=batch["mask"]),
            "count": jnp.sum(batch["mask"]),
        }

    return eval_step


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy in nats per image: -log softmax(logits)[label]. Shapes (n, classes) and (n,) give (n,)."""
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
