"""From a configuration to the compiled functions that train it."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp

from adamlab import models
from adamlab.config import RunConfig
from adamlab.data.augment import crop_and_flip
from adamlab.training.optimizers import Recipe
from adamlab.training.parallel import compile_evaluation, compile_training
from adamlab.training.step import Normalisation, make_eval_step, make_init, make_trace, make_train_step

DTYPES = {"float32": jnp.float32, "bf16": jnp.bfloat16}


class Program(NamedTuple):
    """The compiled functions of a run: see `training/step.py` and `training/parallel.py`."""

    init: Callable
    train_chunk: Callable
    evaluate: Callable
    trace: Callable


def build_program(
    config: RunConfig, num_classes: int, image_shape: tuple[int, ...], mean: tuple, std: tuple
) -> Program:
    """The program that trains `config`; runs that differ in hyperparameters, seed or epochs share one."""
    options = {"stem": config.stem, "downsample": config.downsample}
    return _build(
        config.model,
        tuple((name, value) for name, value in options.items() if value is not None),
        config.precision,
        Recipe(config.optimizer, config.protocol.schedule, config.epsilon_placement),
        config.protocol.augment,
        num_classes,
        image_shape,
        Normalisation(mean, std),
    )


@cache
def _build(
    model_name: str,
    options: tuple[tuple[str, str], ...],
    precision: str,
    make_optimizer: Recipe,
    augment: bool,
    num_classes: int,
    image_shape: tuple[int, int, int],
    normalise: Normalisation,
) -> Program:
    model = models.create(model_name, num_classes, dtype=DTYPES[precision], **dict(options))
    train_step = make_train_step(model, make_optimizer, normalise)
    return Program(
        init=jax.jit(make_init(model, make_optimizer, image_shape)),
        train_chunk=compile_training(train_step, crop_and_flip if augment else None),
        evaluate=compile_evaluation(make_eval_step(model, normalise)),
        trace=jax.jit(make_trace(model, train_step, normalise)),
    )
