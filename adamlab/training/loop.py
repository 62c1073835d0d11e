"""Trains one configuration, epoch by epoch."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamlab.config import RunConfig
from adamlab.data import DataError, Dataset
from adamlab.training.build import build_program
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
    protocol, steps = configs[0].protocol, configs[0].protocol.steps_per_epoch
    devices = devices or Devices()
    feed = make_feed(dataset, configs, devices)
    program = build_program(
        configs[0], dataset.num_classes, feed.image_shape, dataset.mean, dataset.std, devices, len(configs)
    )
    arguments = [(np.int32(config.seed), traced(config)) for config in configs]
    abstract = devices.abstract(jax.eval_shape(program.init, *arguments[0]))
    starts = [
        (saved and saved.restore(config, abstract)) or (Position(), program.init(*given))
        for config, saved, given in zip(configs, checkpoints, arguments, strict=True)
    ]
    positions, state = [position for position, _ in starts], _stack([state for _, state in starts])
    del starts  # the states of several runs would stay in memory beside their stack
    if len({(position.epochs, len(position.losses)) for position in positions}) > 1:
        raise ValueError(f"runs that are trained together must stand at one position, got {positions}")
    running = set(range(len(configs)))

    def save(positions: list[Position], state: Any) -> None:
        for place, one in enumerate(_unstack(state, len(configs))):
            if place in running and (saved := checkpoints[place]):
                saved.save(configs[place], positions[place], one)

    def after_chunk(positions: list[Position], state: Any, loss: float) -> None:
        done = len(positions[0].losses)
        report(positions[0].epochs + 1, done, loss)
        stopping, due = agree(stop(), any(saved is not None and saved.due() for saved in checkpoints))
        if stopping or (due and done < steps):
            save(positions, state)
        if stopping:
            raise Interrupted

    while positions[0].epochs < protocol.epochs:
        epoch = positions[0].epochs + 1
        positions, state, diverged = _train_epoch(
            program.train_chunk, positions, state, feed, steps, running, after_chunk
        )
        started = time.perf_counter()
        if running:
            test_loss, test_accuracy = _evaluate(program.evaluate, state, feed)
            for place in [place for place in running if not np.isfinite(test_loss[place])]:
                running.remove(place)
                diverged[place] = Diverged(epoch, epoch * steps)
        yield from diverged.items()
        if not running:
            return
        seconds = round(positions[0].seconds + time.perf_counter() - started, 3)
        for place in sorted(running):
            record = {
                "epoch": epoch,
                "train_loss": float(np.mean(positions[place].losses)),
                "test_loss": float(test_loss[place]),
                "test_accuracy": float(test_accuracy[place]),
                "seconds": seconds,
                "images_per_second": round(steps * protocol.batch_size / positions[place].seconds, 1),
            }
            if configs[place].trace_every and epoch % configs[place].trace_every == 0:
                record |= _trace(program.trace, _unstack(state, len(configs))[place], feed.probe)
            yield place, record
        positions = [Position(epoch)] * len(configs)
        # After the yield: a record is on disk before the checkpoint that makes it final.
        if epoch < protocol.epochs:
            save(positions, state)
            if agree(stop())[0]:
                raise Interrupted


def _train_epoch(
    train_chunk: Callable,
    positions: list[Position],
    state: Any,
    feed: ArrayFeed | StreamFeed,
    steps: int,
    running: set[int],
    after_chunk: Callable,
) -> tuple[list[Position], Any, dict[int, Diverged]]:
    """The positions after the steps that an epoch still has, the state there, and which runs diverged on the way.

    Those are taken out of `running`, and nothing is trained where none is left.
    """
    epoch, losses, diverged = positions[0].epochs + 1, [list(position.losses) for position in positions], {}
    started = time.perf_counter() - positions[0].seconds
    for chunk in feed.chunks(epoch, len(losses[0])):
        state, chunk_losses = train_chunk(state, *chunk)
        done = len(losses[0])
        rows = np.asarray(chunk_losses, np.float64).reshape(len(losses), -1)
        for place, row in enumerate(rows):
            losses[place].extend(row.tolist())
        state_finite = _all_finite(state) if len(losses) == 1 else _each_finite(state)
        finite = np.column_stack([np.isfinite(rows), np.atleast_1d(state_finite)])
        for place in [place for place in running if not finite[place].all()]:
            first = min(done + int(np.argmin(finite[place])) + 1, len(losses[place]))
            running.remove(place)
            diverged[place] = Diverged(epoch, (epoch - 1) * steps + first)
        if not running:
            break
        elapsed = time.perf_counter() - started
        positions = [Position(epoch - 1, tuple(values), elapsed) for values in losses]
        after_chunk(positions, state, float(np.mean(rows[sorted(running)])))
    return positions, state, diverged


def _stack(states: list[Any]) -> Any:
    """The states of several runs as one with a leading axis; that of one run as it is."""
    return states[0] if len(states) == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def _unstack(state: Any, count: int) -> list[Any]:
    """The states of `count` runs."""
    return [state] if count == 1 else [jax.tree.map(lambda x, i=i: x[i], state) for i in range(count)]


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
