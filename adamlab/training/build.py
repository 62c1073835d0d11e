"""From a configuration to the compiled functions that train it."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from adamlab import models
from adamlab.config import VARIANTS, RunConfig, check_division
from adamlab.data.augment import crop_and_flip
from adamlab.hyperparameters import ConfigError
from adamlab.training.optimizers import Recipe
from adamlab.training.parallel import AXIS, Devices, compile_evaluation, compile_training
from adamlab.training.step import Normalisation, make_eval_step, make_init, make_trace, make_train_step

DTYPES = {"float32": jnp.float32, "bf16": jnp.bfloat16}


class Program(NamedTuple):
    """The compiled functions of a run: see `training/step.py` and `training/parallel.py`."""

    init: Callable
    train_chunk: Callable
    evaluate: Callable
    trace: Callable


def build_program(
    config: RunConfig,
    num_classes: int,
    image_shape: tuple[int, ...],
    mean: tuple,
    std: tuple,
    devices: Devices | None = None,
    runs: int = 1,
) -> Program:
    """The program that trains `config`; runs that differ in hyperparameters, seed or epochs share one.

    With several `runs`, `train_chunk` and `evaluate` are vmapped over them: the state, the indices, the seeds, and what
    they return have a leading axis then.

    Raises:
      ConfigError: The batch cannot be split over the devices, or not into the groups that `config` names.
    """
    devices = devices or Devices()
    piece = config.piece
    check_division(config.protocol.batch_size, piece, devices.count)
    if config.norm_group not in (None, piece // devices.count):
        needed = f"norm_group {config.norm_group} of {piece} images needs {piece // config.norm_group} devices"
        raise ConfigError(f"{needed}, got {devices.count}")
    options = {name: value for name in VARIANTS if (value := getattr(config, name)) is not None}
    return _build(
        models.create(config.model, num_classes, dtype=DTYPES[config.precision], **options),
        Recipe(config.optimizer, config.protocol.schedule, config.epsilon_placement),
        config.protocol.augment and config.protocol.image_size is None,  # photographs are augmented as they are read
        image_shape,
        Normalisation(mean, std),
        devices,
        config.protocol.batch_size // piece,
        config.norm_group is not None,
        runs,
    )


@cache
def _build(
    model: nn.Module,
    make_optimizer: Recipe,
    augment: bool,
    image_shape: tuple[int, int, int],
    normalise: Normalisation,
    devices: Devices,
    pieces: int,
    norm_per_device: bool,
    runs: int,
) -> Program:
    axis_name = AXIS if devices.count > 1 else None
    split = model.clone(axis_name=None if norm_per_device else axis_name)
    train_step = make_train_step(split, make_optimizer, normalise, axis_name, pieces)
    whole_step = make_train_step(model, make_optimizer, normalise)
    return Program(
        init=jax.jit(make_init(model, make_optimizer, image_shape), out_shardings=devices.replicated),
        train_chunk=compile_training(devices, train_step, crop_and_flip if augment else None, pieces, runs),
        evaluate=compile_evaluation(devices, make_eval_step(model, normalise), runs),
        trace=jax.jit(make_trace(model, whole_step, normalise)),
    )
