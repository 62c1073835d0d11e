"""A net of a few hundred parameters, smooth, so that rounding errors stay what they are, and what it is trained on.

  python -m tests.training.small MODULE ARGUMENTS...

runs a command as `python -m` does, with this net in plain20's place: traced, compiled and loaded in a moment.
"""

import runpy
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from adamlab import models
from adamlab.config import RunConfig
from adamlab.data.augment import crop_and_flip
from adamlab.hyperparameters import OPTIMIZERS, Hyperparameters
from adamlab.models.layers import BatchNorm, Conv, Head
from adamlab.protocol import Protocol
from adamlab.training.optimizers import Recipe, traced
from adamlab.training.parallel import AXIS, Devices, compile_training
from adamlab.training.step import Normalisation, TrainState, make_init, make_train_step
from experiments import grid

BATCH, STEPS = 16, 50
SHAPE = (8, 8, 2)
RNG = np.random.default_rng(0)
DATA = {
    "image": RNG.integers(0, 256, (64, *SHAPE)).astype(np.uint8),
    "label": RNG.integers(0, 3, 64).astype(np.int32),
}
INDICES = RNG.integers(0, 64, (STEPS, BATCH)).astype(np.int32)
SEEDS = RNG.integers(0, 2**32, STEPS, dtype=np.uint32)
NORMALISE = Normalisation((0.5, 0.5), (0.3, 0.3))


class Net(nn.Module):
    """Two convolutions of so many features and a head, with BatchNorm and tanh or with tanh alone."""

    num_classes: int = 3
    axis_name: str | None = None
    norm: bool = True
    dtype: DTypeLike = jnp.float32
    features: int = 4

    @nn.compact
    def __call__(self, images, train=False):
        x = images
        for name in ("first", "second"):
            x = Conv(self.features, name=name)(x)
            x = nn.tanh(BatchNorm(self.axis_name, name=f"{name}_norm")(x, train) if self.norm else x)
        return Head(self.num_classes, name="head")(x)


def hyperparameters(optimizer):
    """As arrays: 10 free steps where there is a free phase, then 10 of warm-up and the decay to the 50th."""
    free = {"free_epochs": 0.2} if OPTIMIZERS[optimizer].has_free_phase else {}
    rates = {"alpha": 0.01 if OPTIMIZERS[optimizer].defaults.alpha < 0.1 else 0.1, "warmup_epochs": 0.2}
    protocol = Protocol("small", BATCH * STEPS, 1, BATCH, epochs=1, schedule="phases")
    return traced(RunConfig("none", "none", protocol, Hyperparameters(**rates, **free), optimizer=optimizer))


def train(
    devices: Devices,
    optimizer: str = "adam",
    norm: bool = True,
    norm_per_device: bool = False,
    pieces: int = 1,
    streamed: bool = False,
) -> tuple[TrainState, np.ndarray]:
    """The state after 50 augmented steps, and their losses."""
    axis_name = AXIS if devices.count > 1 else None
    recipe = Recipe(optimizer, "phases")
    model = Net(axis_name=None if norm_per_device else axis_name, norm=norm)
    step = make_train_step(model, recipe, NORMALISE, axis_name, pieces)
    chunk = compile_training(devices, step, crop_and_flip, pieces)
    init = jax.jit(make_init(Net(norm=norm), recipe, SHAPE), out_shardings=devices.replicated)
    state, losses = init(np.int32(0), hyperparameters(optimizer)), []
    data = devices.replicate(DATA)
    for part in (slice(0, 25), slice(25, 50)):
        if streamed:
            batches = devices.split({name: array[INDICES[part]] for name, array in DATA.items()}, pieces)
            state, some = chunk(state, batches, None, SEEDS[part])
        else:
            state, some = chunk(state, data, INDICES[part], SEEDS[part])
        losses.append(some)
    return jax.device_get(state), np.concatenate(losses)


def assert_agree(ours, theirs, tolerance=1e-5):
    """Parameters, running averages and losses."""
    (state, losses), (expected, expected_losses) = ours, theirs
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=tolerance)
    for a, b in ((state.params, expected.params), (state.batch_stats, expected.batch_stats)):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=tolerance), a, b)


def take_its_place() -> None:
    """From here on plain20 is this net, in this process."""
    models.MODELS["plain20"] = Net


class Task(grid.Task):
    """A run in an engine's process, where it is this net as well."""

    def __call__(self) -> str | None:
        take_its_place()
        return super().__call__()


def run_command() -> None:
    """Runs the module that the arguments begin with, with this net in plain20's place."""
    take_its_place()
    grid.Task = Task
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    from tests.training import small  # by its name: `__main__` is about to be the command

    small.run_command()
