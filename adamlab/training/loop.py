"""Trains one configuration, epoch by epoch."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamlab.config import RunConfig
from adamlab.data import DataError, Dataset
from adamlab.training.build import Program, build_program
from adamlab.training.checkpoint import Checkpoints, Position
from adamlab.training.cluster import agree
from adamlab.training.feed import ArrayFeed, StreamFeed, make_feed
from adamlab.training.optimizers import traced
from adamlab.training.parallel import Devices
from adamlab.training.step import Arrays


class Diverged(Exception):
    """The training stopped being a matter of finite numbers. That is a result of a study, not a fault of the program.

    Args:
      epoch: The epoch, counted from 1, in which it happened.
      step: The step, counted from 1 over the whole run, whose loss was the first not to be finite; where the losses
        are finite and what the steps made of the parameters and moments is not, the last step before that was noticed.
    """

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__(f"not all numbers are finite from step {step} (epoch {epoch}) on")
        self.epoch, self.step = epoch, step


class Interrupted(Exception):
    """The training ended where it was asked to, before its end; the checkpoint is there to continue from."""


def train(
    config: RunConfig,
    dataset: Dataset,
    checkpoints: Checkpoints | None = None,
    report: Callable[[int, int, float], None] = lambda epoch, step, loss: None,
    stop: Callable[[], bool] = lambda: False,
    devices: Devices | None = None,
) -> Iterator[dict[str, Any]]:
    """Trains `config` and yields one record per epoch.

    The order of the images depends on the seed and the epoch alone, and a checkpoint falls between two chunks of steps:
    a resumed run executes the same programs on the same arrays as an uninterrupted one, to the same bits.

    Args:
      config: What to train.
      dataset: The data set that it names.
      checkpoints: Where the state is saved after each epoch but the last, within an epoch when that is due, and when
        the run is stopped; and where an interrupted run is resumed from. None for neither.
      report: Called after every chunk of steps with the epoch, the steps done in it, and the chunk's mean loss.
      stop: Asked after every chunk of steps and every epoch whether to end there.
      devices: What it is trained on; None for the first one. Their number does not change the numbers.

    Yields:
      `epoch` (from 1), `train_loss` (mean over the epoch's steps, nats), `test_loss`, `test_accuracy` (in [0, 1], every
      test image once), `seconds` (training and evaluation) and `images_per_second` (training alone); on traced epochs
      those of `adamlab.analysis.flattening.trace` on the first training images, and `trace_seconds`. A resumed run
      starts with the first epoch that the checkpoint does not hold.

    Raises:
      Diverged: The training or test loss, a parameter or a moment became infinite or NaN.
      Interrupted: `stop` said so.
      DataError: An image cannot be decoded, or, where such are left out, none to evaluate on.
    """
    for _, result in train_together([config], dataset, [checkpoints], report, stop, devices):
        if isinstance(result, Diverged):
            raise result
        yield result


def train_together(
    configs: Sequence[RunConfig],
    dataset: Dataset,
    checkpoints: Sequence[Checkpoints | None],
    report: Callable[[int, int, float], None] = lambda epoch, step, loss: None,
    stop: Callable[[], bool] = lambda: False,
    devices: Devices | None = None,
) -> Iterator[tuple[int, dict[str, Any] | Diverged]]:
    """Trains runs that differ in hyperparameters and seed alone, all in one program, as `train` does one.

    Several are vmapped: rounding is another than one by one. One that diverges is computed to the end with the others,
    but not recorded.

    Args:
      configs: What to train.
      dataset: The data set that they name.
      checkpoints: Those of each run. The runs start together: all from the beginning, or from one position.
      report: As for `train`; the loss is the mean over the runs.
      stop: As for `train`.
      devices: One device for several runs.

    Yields:
      A run's place in `configs` and a record as `train`'s, or how the run diverged. `seconds` are those of all runs.

    Raises:
      Interrupted, DataError: As for `train`.
      ConfigError: The images are not in memory, for several runs.
      ValueError: The runs' checkpoints stand at several positions.
    """
    protocol, devices = configs[0].protocol, devices or Devices()
    feed = make_feed(dataset, configs, devices)
    facts = dataset.num_classes, feed.image_shape, dataset.mean, dataset.std
    group = _Group(configs, checkpoints, build_program(configs[0], *facts, devices, len(configs)), devices)

    def after_chunk(done: int, loss: float) -> None:
        report(group.epochs + 1, done, loss)
        stopping, due = agree(stop(), any(saved is not None and saved.due() for saved in checkpoints))
        if stopping or (due and done < protocol.steps_per_epoch):
            group.save()
        if stopping:
            raise Interrupted

    while group.running and group.epochs < protocol.epochs:
        yield from group.train_epoch(feed, after_chunk)
        if not group.running:
            return
        started = time.perf_counter()
        losses, accuracies = _evaluate(group.program.evaluate, group.state, feed)
        seconds = time.perf_counter() - started
        for place in sorted(group.running):
            if np.isfinite(losses[place]):
                yield place, group.record(place, losses[place], accuracies[place], seconds, feed.probe)
            else:
                yield group.drop(place, protocol.steps_per_epoch)
        group.positions = [Position(group.epochs + 1)] * len(configs)
        # After the yield: a record is on disk before the checkpoint that makes it final.
        if group.running and group.epochs < protocol.epochs:
            group.save()
            if agree(stop())[0]:
                raise Interrupted


class _Group:
    """Runs that one program trains: where they stand, and which of them go on."""

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
            rows = np.asarray(chunk_losses, np.float64).reshape(len(losses), -1)
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
            after_chunk(len(losses[0]), float(np.mean(rows[sorted(self.running)])))

    def record(self, place: int, loss: float, accuracy: float, seconds: float, probe: Arrays) -> dict[str, Any]:
        """A run's record of the epoch whose steps are done: as `train` yields it.

        Args:
          place: Which.
          loss, accuracy: Of its evaluation.
          seconds: That it took.
          probe: What a traced run is measured on.
        """
        config, position = self.configs[place], self.positions[place]
        images = config.protocol.steps_per_epoch * config.protocol.batch_size
        record = {
            "epoch": position.epochs + 1,
            "train_loss": float(np.mean(position.losses)),
            "test_loss": float(loss),
            "test_accuracy": float(accuracy),
            "seconds": round(position.seconds + seconds, 3),
            "images_per_second": round(images / position.seconds, 1),
        }
        if config.trace_every and record["epoch"] % config.trace_every == 0:
            record |= _trace(self.program.trace, self.state_of(place), probe)
        return record


@jax.jit
def _all_finite(state: Any) -> jax.Array:
    """Whether no parameter, statistic or moment is infinite or NaN; a loss can be finite beside those."""
    floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in floats]).all()


_each_finite = jax.jit(jax.vmap(_all_finite))


def _evaluate(evaluate: Callable, state: Any, feed: ArrayFeed | StreamFeed) -> tuple[np.ndarray, np.ndarray]:
    """Each run's mean loss and accuracy over the images that the masks count."""
    loss, correct, count = np.zeros(1), np.zeros(1), np.zeros(1)
    for batches in feed.evaluation():
        sums = {name: np.atleast_1d(np.asarray(value, np.float64)) for name, value in evaluate(state, batches).items()}
        loss, correct, count = loss + sums["loss"], correct + sums["correct"], count + sums["count"]
    if count[0] == 0:
        raise DataError("none of the images to evaluate on can be decoded")
    return loss / count, correct / count


def _trace(trace: Callable, state: Any, probe: Arrays) -> dict[str, Any]:
    """What loss flattening shows at a state, as numbers that JSON can hold, and how long that took.

    The loss may be finite where its derivatives are not: None then.
    """
    started = time.perf_counter()
    measured = jax.device_get(trace(state, probe))
    numbers = jax.tree.map(lambda x: float(x) if np.isfinite(x) else None, measured)
    return numbers | {"trace_seconds": round(time.perf_counter() - started, 3)}
