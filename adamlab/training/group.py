"""Runs that one program trains: where they stand, what is recorded of them, and which of them go on."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adamlab.analysis.calibration import best_temperature
from adamlab.config import RunConfig
from adamlab.training.build import Program
from adamlab.training.checkpoint import Checkpoints, Position
from adamlab.training.feed import ArrayFeed, StreamFeed
from adamlab.training.optimizers import traced
from adamlab.training.parallel import Devices
from adamlab.training.step import Arrays


class Diverged(Exception):
    """The training stopped being a matter of finite numbers. That is a result of a study, not a fault of the program.

    Args:
      epoch: The epoch, counted from 1, in which it happened.
      step: The step, counted from 1 over the whole run, whose loss was the first not to be finite; where the losses
        are finite and what the steps made of the parameters and moments is not, the last step before that was noticed,
        or, where the test loss alone is not, the epoch's last.
    """

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__(f"not all numbers are finite from step {step} (epoch {epoch}) on")
        self.epoch, self.step = epoch, step


class Evaluation(NamedTuple):
    """Means over the images that a run is evaluated on.

    Args:
      loss: Nats.
      accuracy: In [0, 1].
      scaled_losses: The loss at each of `adamlab.analysis.calibration.TEMPERATURES`, nats, (65,).
    """

    loss: float
    accuracy: float
    scaled_losses: np.ndarray


class Group:
    """Runs that one program trains, one or several.

    Args:
      configs: They differ in hyperparameters and seed alone.
      checkpoints: Those of each run, which is restored where it has one; all stand at one position then.
      program: What trains them, compiled for as many.
      devices: What it runs on.

    Raises:
      ValueError: The checkpoints stand at several positions.
    """

    def __init__(
        self,
        configs: Sequence[RunConfig],
        checkpoints: Sequence[Checkpoints | None],
        program: Program,
        devices: Devices,
    ) -> None:
        self.configs, self.checkpoints, self.program = configs, checkpoints, program
        arguments = [(np.int32(config.seed), traced(config)) for config in configs]
        abstract = devices.abstract(jax.eval_shape(program.init, *arguments[0]))
        self.positions: list[Position] = []
        states: list[Any] = []
        for config, saved, given in zip(configs, checkpoints, arguments, strict=True):
            restored = saved.restore(config, abstract) if saved else None
            position, state = restored or (Position(), program.init(*given))
            self.positions.append(position)
            states.append(state)
        if len({(position.epochs, len(position.losses)) for position in self.positions}) > 1:
            raise ValueError(f"runs that are trained together must stand at one position, got {self.positions}")
        self.state = states[0] if len(states) == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        self.running = set(range(len(configs)))

    @property
    def epochs(self) -> int:
        """Those that are finished."""
        return self.positions[0].epochs

    def state_of(self, place: int) -> Any:
        """One run's state; the state of several has a leading axis."""
        return self.state if len(self.configs) == 1 else jax.tree.map(lambda x: x[place], self.state)

    def due(self, epoch_ended: bool) -> bool:
        """Whether it is time to save a run that goes on."""
        going = [saved for place in self.running if (saved := self.checkpoints[place])]
        return any(saved.due(epoch_ended) for saved in going)

    def save(self) -> None:
        """Saves each run that goes on, where it stands."""
        for place in self.running:
            if saved := self.checkpoints[place]:
                saved.save(self.configs[place], self.positions[place], self.state_of(place))

    def drop(self, place: int, step: int) -> tuple[int, Diverged]:
        """Takes a run out that diverged at a step of this epoch."""
        self.running.remove(place)
        return place, Diverged(self.epochs + 1, self.epochs * self.configs[place].protocol.steps_per_epoch + step)

    def train_epoch(
        self, feed: ArrayFeed | StreamFeed, after_chunk: Callable[[int, float], None]
    ) -> Iterator[tuple[int, Diverged]]:
        """Does the steps that the epoch still has, until no run is left; yields those that diverge."""
        losses = [list(position.losses) for position in self.positions]
        started = time.perf_counter() - self.positions[0].seconds
        for chunk in feed.chunks(self.epochs + 1, len(losses[0])):
            self.state, chunk_losses = self.program.train_chunk(self.state, *chunk)
            rows = np.asarray(awaited(chunk_losses), np.float64).reshape(len(losses), -1)
            for place, row in enumerate(rows):
                losses[place].extend(row.tolist())
            whole = np.atleast_1d(_all_finite(self.state) if len(losses) == 1 else _each_finite(self.state))
            for place in sorted(self.running):
                finite = np.isfinite(losses[place])
                if not (finite.all() and whole[place]):
                    yield self.drop(place, len(finite) if finite.all() else int(np.argmin(finite)) + 1)
            if not self.running:
                return
            elapsed = time.perf_counter() - started
            self.positions = [Position(self.epochs, tuple(values), elapsed) for values in losses]
            paused = time.perf_counter()
            after_chunk(len(losses[0]), float(np.mean(rows[sorted(self.running)])))
            started += time.perf_counter() - paused  # a checkpoint is not training

    def record(
        self, place: int, evaluation: Evaluation, seconds: float, feed: ArrayFeed | StreamFeed
    ) -> dict[str, Any]:
        """A run's record of the epoch whose steps are done: as `train` yields it.

        Args:
          place: Which.
          evaluation: Its evaluation, of a finite loss.
          seconds: What that took.
          feed: Has what a traced run is measured on.
        """
        config, position = self.configs[place], self.positions[place]
        images = config.protocol.steps_per_epoch * config.protocol.batch_size
        temperature, scaled_loss = best_temperature(evaluation.scaled_losses)
        record = {
            "epoch": position.epochs + 1,
            "train_loss": float(np.mean(position.losses)),
            "test_loss": evaluation.loss,
            "test_accuracy": evaluation.accuracy,
            "temperature": temperature,
            "scaled_test_loss": scaled_loss,
            "seconds": round(position.seconds + seconds, 3),
            "images_per_second": round(images / position.seconds, 1),
        }
        if config.trace_every and record["epoch"] % config.trace_every == 0:
            record |= _trace(self.program.trace, self.state_of(place), feed.probe)
        return record


def awaited(results: Any) -> Any:
    """Arrays once they are there. NumPy would wait for them where no signal is heard, and Ctrl-C not end anything."""
    arrays, pause = [leaf for leaf in jax.tree.leaves(results) if isinstance(leaf, jax.Array)], 1e-4
    while not all(array.is_ready() for array in arrays):  # pyright: ignore[reportAttributeAccessIssue]
        time.sleep(pause)
        pause = min(1.02 * pause, 0.01)  # a fiftieth of the time so far at most
    return results


@jax.jit
def _all_finite(state: Any) -> jax.Array:
    """Whether no parameter, statistic or moment is infinite or NaN; a loss can be finite beside those."""
    floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in floats]).all()


_each_finite = jax.jit(jax.vmap(_all_finite))


def _trace(trace: Callable, state: Any, probe: Arrays) -> dict[str, Any]:
    """What loss flattening shows at a state, as numbers that JSON can hold, and how long that took.

    The loss may be finite where its derivatives are not: None then.
    """
    started = time.perf_counter()
    measured = jax.device_get(awaited(trace(state, probe)))
    numbers = jax.tree.map(lambda x: float(x) if np.isfinite(x) else None, measured)
    return numbers | {"trace_seconds": round(time.perf_counter() - started, 3)}
