"""From a configuration to what trains it, and from the papers' names to Optax's."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamlab import models
from adamlab.config import RunConfig
from adamlab.optim.adam import adam
from adamlab.training.parallel import compile_evaluation, compile_training
from adamlab.training.step import Arrays, Normalisation, make_eval_step, make_init, make_train_step

DTYPES = {"float32": jnp.float32, "bf16": jnp.bfloat16}


class Program(NamedTuple):
    """The compiled functions of a run: see `training/step.py` and `training/parallel.py`."""

    init: Callable
    train_chunk: Callable
    evaluate: Callable


def build_program(
    config: RunConfig, num_classes: int, image_shape: tuple[int, ...], mean: tuple, std: tuple
) -> Program:
    """The program that trains `config`; runs that differ in hyperparameters, seed or epochs share one."""
    options = {"stem": config.stem, "downsample": config.downsample}
    chosen = tuple((name, value) for name, value in options.items() if value is not None)
    return _build(
        config.model,
        chosen,
        config.precision,
        config.epsilon_placement,
        num_classes,
        image_shape,
        Normalisation(mean, std),
    )


@cache
def _build(
    model_name: str,
    options: tuple[tuple[str, str], ...],
    precision: str,
    epsilon_placement: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    normalise: Normalisation,
) -> Program:
    model = models.create(model_name, num_classes, dtype=DTYPES[precision], **dict(options))

    def make_optimizer(hyperparameters: Arrays) -> optax.GradientTransformation:
        return build_adam(hyperparameters, epsilon_placement)

    return Program(
        init=jax.jit(make_init(model, make_optimizer, image_shape)),
        train_chunk=compile_training(make_train_step(model, make_optimizer, normalise)),
        evaluate=compile_evaluation(make_eval_step(model, normalise)),
    )


def build_adam(hyperparameters: Arrays, epsilon_placement: str) -> optax.GradientTransformation:
    """`adamlab.adam` from the papers' names: alpha, beta1, beta2, epsilon."""
    epsilon = hyperparameters["epsilon"]
    where = {"eps": epsilon} if epsilon_placement == "outside" else {"eps": 0.0, "eps_root": epsilon}
    return adam(hyperparameters["alpha"], hyperparameters["beta1"], hyperparameters["beta2"], **where)
