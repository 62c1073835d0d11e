"""Saves and restores the state of a run with Orbax: two checkpoints, each with a manifest that proves it whole.

    checkpoint/93/
        manifest.json   where the run stood, of which configuration, every other file's SHA-256; written last, at once
        ...             Orbax's

Orbax gives a checkpoint its name when all of it is on the disk; what happens to its files after that it cannot tell.
"""

import hashlib
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from adamlab.config import RunConfig, difference
from adamlab.files import RecordsError, WriteError, one_line, seal, unseal, write_whole
from adamlab.hyperparameters import ConfigError
from adamlab.training.cluster import announce, leads

if TYPE_CHECKING:  # Orbax takes a moment to import, and a run that ends before its first checkpoint does without
    import orbax.checkpoint as ocp

SCHEMA = 1
MANIFEST = "manifest.json"
KEPT = 2
# Seconds between two checkpoints at the ends of epochs: short epochs take less than a checkpoint each.
APART = 30


class Position(NamedTuple):
    """Where a run stands.

    Args:
      epochs: Those finished and recorded.
      losses: Of the steps done in the epoch after them, in nats, float64.
      seconds: What these steps took.
    """

    epochs: int = 0
    losses: tuple[float, ...] = ()
    seconds: float = 0.0


class Checkpoints:
    """The checkpoints of one run.

    Saving is synchronous: the training step donates its buffers, and on a CPU Orbax may still be reading them.

    Args:
      folder: Where they are kept; made at the first save.
      minutes: How long training goes on without one, and so what a kill costs at most. At an epoch's end the last one
        need not be older than half a minute.
      warn: Told of each checkpoint that cannot be used, by the name of the damaged file.

    Raises:
      RecordsError: The path holds one of []*?.
    """

    def __init__(self, folder: Path, minutes: float = 10.0, warn: Callable[[str], Any] = warnings.warn) -> None:
        self.folder = folder.absolute()
        if set("[]*?") & set(str(self.folder)):  # Orbax looks for the parts of a checkpoint by a pattern
            raise RecordsError(f"a results folder's path must not hold any of []*?, got {self.folder.parent}")
        self._seconds, self._warn = 60 * minutes, warn
        self._saved = time.monotonic()
        self._manager: ocp.CheckpointManager | None = None

    def due(self, epoch_ended: bool) -> bool:
        """Whether it is time for one; at an epoch's end, where nothing is done twice then, it is time sooner."""
        return time.monotonic() - self._saved >= (min(APART, self._seconds) if epoch_ended else self._seconds)

    def find(self, config: RunConfig, recorded: int | None = None) -> Position:
        """Where the newest usable checkpoint stands, the beginning if there is none.

        Every one that is damaged, or after more epochs than are recorded, is removed, older ones, too: Orbax reads
        something of each, and restores none while one is damaged.

        Args:
          config: The run's configuration.
          recorded: How many epochs' records there are; a checkpoint after more of them is of no use. None for any.

        Raises:
          RecordsError: A checkpoint is of another configuration or schema, which is not ours to remove; or cannot be
            read, which may pass.
        """
        numbers = [int(path.name) for path in self.folder.glob("[0-9]*") if path.name.isdecimal()]
        found = None
        for number in sorted(numbers, reverse=True):
            path = self.folder / str(number)
            try:
                position = _verify(path, config)
                if recorded is None or position.epochs <= recorded:
                    found = found or position
                    continue
                problem = f"{path} is of epoch {position.epochs}, and metrics.jsonl has only {recorded}"
            except ValueError as error:
                problem = str(error)
            self._warn(f"{problem}: this checkpoint is not used")
            self.close()
            shutil.rmtree(path, ignore_errors=True)
        return found or Position()

    def restore(self, config: RunConfig, abstract_state: Any) -> tuple[Position, Any] | None:
        """The newest usable position and its state, shaped and placed like `abstract_state`; None where there is none.

        In a job of several processes process 0 says which, and removes what is damaged; all call this together.

        Raises:
          RecordsError: A checkpoint is of another configuration, its state of another program, or it cannot be read.
        """
        position = self.find(config) if leads() else Position()
        number = announce(_number(config, position))
        if number == 0:
            return None
        import orbax.checkpoint as ocp

        path = self.folder / str(number)
        if not leads():
            try:
                position = _verify(path, config)
            except ValueError as error:
                raise RecordsError(f"{error}, and process 0 goes on from this checkpoint") from None
        saved, expected = unseal((path / MANIFEST).read_bytes())["leaves"], _leaves(abstract_state)
        if saved != expected:
            name = next(name for name in saved | expected if saved.get(name) != expected.get(name))
            what = f"{name} is {saved.get(name)} there, {expected.get(name)} here"
            raise RecordsError(f"{path} is of another version of this program ({what}); delete {self.folder}")
        try:
            return position, self._open().restore(number, args=ocp.args.StandardRestore(abstract_state))
        except MemoryError:
            raise
        except Exception as error:  # the files are what was saved, and what is here is too: another Orbax, perhaps
            advice = f"delete {self.folder}" if _error_code(error) is None else "it is kept: try again"
            raise RecordsError(f"{path} cannot be restored ({_reason(error)}); {advice}") from error

    def save(self, config: RunConfig, position: Position, state: Any) -> None:
        """Saves the state at a position, whole or not at all, and drops the oldest.

        Raises:
          WriteError: It cannot be written. The one before it is as it was.
        """
        import orbax.checkpoint as ocp

        number = _number(config, position)
        path = self.folder / str(number)
        try:
            self.folder.mkdir(exist_ok=True)  # not its parents: where somebody deleted them, they stay away
            self._open().save(number, args=ocp.args.StandardSave(state))
            if jax.process_index() == 0:
                content = {"schema": SCHEMA, "config": config.to_dict(), **position._asdict()}
                content |= {"leaves": _leaves(state), "files": _digests(path)}
                write_whole(path / MANIFEST, json.dumps(seal(content)))
        except MemoryError:
            raise
        except Exception as error:
            raise WriteError(f"cannot write {path} ({_reason(error)}); the checkpoint before it is kept") from error
        self._saved = time.monotonic()

    def delete(self) -> None:
        """Removes the folder: a finished run needs no checkpoint."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Lets go of the folder."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def _open(self) -> "ocp.CheckpointManager":
        if self._manager is None:
            import orbax.checkpoint as ocp

            options = ocp.CheckpointManagerOptions(
                max_to_keep=KEPT, enable_async_checkpointing=False, cleanup_tmp_directories=True
            )
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        return self._manager


def _number(config: RunConfig, position: Position) -> int:
    """A checkpoint's number, which grows as the run does. An epoch's last step and its end are two positions."""
    return position.epochs * (config.protocol.steps_per_epoch + 1) + len(position.losses)


def _leaves(state: Any) -> dict[str, str]:
    """The type and shape of every array of a state, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def _digests(path: Path) -> dict[str, str]:
    """The SHA-256 of every file of a checkpoint but the manifest, by its path."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith(MANIFEST))
    return {file.relative_to(path).as_posix(): _digest(file) for file in files}


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _verify(path: Path, config: RunConfig) -> Position:
    """A checkpoint's position, if all of it is what was saved.

    Raises:
      ValueError: A file is missing or damaged; the error names it.
      RecordsError: The checkpoint is another run's, or the system does not let a file be read.
    """
    try:
        return _position(path, config)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ValueError(f"{error.filename} cannot be read ({error.strerror})") from None
    except OSError as error:  # such as a server that does not answer: the file may be as whole as it was
        raise RecordsError(f"cannot read {error.filename or path}: {error.strerror}; try again, or delete it") from None
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path / MANIFEST} is damaged ({error!r})") from None


def _position(path: Path, config: RunConfig) -> Position:
    """As `_verify`, with the errors as they come."""
    try:
        content = unseal((path / MANIFEST).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path / MANIFEST} is damaged ({error})") from None
    if content["schema"] != SCHEMA:
        raise RecordsError(f"{path} has schema {content['schema']}, this version reads {SCHEMA}; delete it")
    try:
        theirs = RunConfig.from_dict(content["config"])
    except ConfigError as error:  # the checksum is right, so this is what was written
        raise RecordsError(f"{path} is of another version of this program ({error}); delete {path.parent}") from None
    if theirs != config:
        raise RecordsError(f"{path} is of another configuration ({difference(config, theirs)}); delete it")
    for name, digest in content["files"].items():
        if _digest(path / name) != digest:
            raise ValueError(f"{path / name} is damaged (its SHA-256 is another)")
    return Position(content["epochs"], tuple(content["losses"]), content["seconds"])


def _reason(error: Exception) -> str:
    """What the system says of a failed read or write, which Orbax and TensorStore wrap in errors of their own."""
    code = _error_code(error)
    return os.strerror(code) if code else one_line(error)[:200]


def _error_code(error: Exception) -> int | None:
    """The system's number of an error; None where it is not the system's."""
    found = re.search(r"os_error_code='(\d+)'", str(error))
    return error.errno if isinstance(error, OSError) else int(found[1]) if found else None
