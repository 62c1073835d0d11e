"""A run's folder: what was asked, where it ran, one line per epoch, how it ended.

    results/cifar10-laptop/plain20/alpha=0.01/seed=0/
        config.json     the configuration and its provenance, written once, whole or not at all
        metrics.jsonl   one line per epoch, appended; the last line says how the run ended
        checkpoint/     only while the run is unfinished
        lock            only while a process works on the run; says which

Nothing here knows JAX: figures and tables are made on machines that never train.
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adamlab.config import RunConfig, difference, flatten
from adamlab.hyperparameters import ConfigError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1


class RecordsError(Exception):
    """A results folder that cannot be used. The message is one line and names the path."""


class Held(RecordsError):
    """A run that another process is working on. The message says which."""


@dataclass(frozen=True)
class Run:
    """What a run's folder holds.

    Args:
      folder: Its path.
      config: What was asked.
      provenance: Commit, versions and device that produced it.
      epochs: One record per finished epoch, in order.
      outcome: The last line, with `outcome` `finished` or `diverged`; None while the run is unfinished.
    """

    folder: Path
    config: RunConfig
    provenance: dict[str, Any]
    epochs: list[dict[str, Any]]
    outcome: dict[str, Any] | None

    @property
    def ending(self) -> str:
        """`finished`, `diverged` or `unfinished`."""
        return self.outcome["outcome"] if self.outcome else "unfinished"


def run_folder(out: Path, config: RunConfig) -> Path:
    """Where a run lives: data set and protocol, model, what differs from the default setting, seed.

    >>> from adamlab.config import PROTOCOLS
    >>> run_folder(Path("results"), RunConfig("cifar10", "plain20", PROTOCOLS["laptop"])).as_posix()
    'results/cifar10-laptop/plain20/default/seed=0'
    """
    return out / study_name(config) / config.model / config.setting / f"seed={config.seed}"


def study_name(config: RunConfig) -> str:
    """The folder of all runs that are compared with each other: `cifar10-laptop`; tuning has one of its own."""
    tuning = "-tuning" if config.protocol.evaluate_on == "validation" else ""
    return f"{config.dataset}-{config.protocol.name}{tuning}"


def open_run(folder: Path, config: RunConfig, provenance: dict[str, Any]) -> Run:
    """The run in `folder`, made if it is not there yet.

    Raises:
      RecordsError: The folder holds another configuration, or cannot be read or written.
    """
    if not (folder / "config.json").exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            content = {"schema": SCHEMA, "config": config.to_dict(), "provenance": provenance}
            write_whole(folder / "config.json", json.dumps(content, indent=2) + "\n")
        except OSError as error:
            raise RecordsError(f"cannot write results to {folder}: {error.strerror}") from None
    run = read_run(folder)
    if run.config != config:
        raise RecordsError(
            f"{folder} holds another configuration ({difference(config, run.config)}); choose another --out"
        )
    return run


def provenance(device: str) -> dict[str, Any]:
    """What a result came from: the commit, with a + if files had changed since; versions; the device."""
    packages = ("adamlab", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {"python": platform.python_version()}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "commit": _commit(),
        "versions": versions,
        "device": device,
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
    }


def _commit() -> str | None:
    """The short hash of the checkout that this file lies in; None for an installed copy."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if git("ls-files", Path(__file__).name) == "":
            return None
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def read_run(folder: Path) -> Run:
    """The run in `folder`.

    Raises:
      RecordsError: `config.json` is missing, damaged, or of another schema.
    """
    try:
        content = json.loads((folder / "config.json").read_text())
        if content["schema"] != SCHEMA:
            raise RecordsError(f"{folder}/config.json has schema {content['schema']}, this version reads {SCHEMA}")
        config, provenance = RunConfig.from_dict(content["config"]), content["provenance"]
    except OSError as error:
        raise RecordsError(f"cannot read {folder}/config.json: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise RecordsError(f"{folder}/config.json is damaged ({error}); delete {folder} to run it again") from None
    lines = _read_lines(folder / "metrics.jsonl")
    epochs = [line for line in lines if "outcome" not in line]
    outcomes = [line for line in lines if "outcome" in line]
    return Run(folder, config, provenance, epochs, outcomes[-1] if outcomes else None)


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keeps a run to this process until the block ends or the process does, however it ends.

    Raises:
      Held: Another process has it.
      RecordsError: The folder cannot be written.
    """
    import fcntl  # here, since Windows lacks it: records can be read and drawn there

    path = folder / "lock"
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RecordsError(f"cannot write results to {folder}: {error.strerror}") from None
        with os.fdopen(descriptor, "r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Held(f"{folder} is being worked on by {file.read() or 'another process'}") from None
            # Its last holder may have removed the file between our opening and our locking it.
            if not path.exists() or path.stat().st_ino != os.fstat(descriptor).st_ino:
                continue
            file.truncate()
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def append(folder: Path, record: dict[str, Any]) -> None:
    """Adds one line to the run's metrics and waits until the disk has it.

    Raises:
      RecordsError: The line cannot be written.
    """
    try:
        with open(folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RecordsError(f"cannot write results to {folder}: {error.strerror}") from None


def keep_epochs(folder: Path, count: int) -> None:
    """Drops all but the first `count` epochs' lines: what comes after them will be trained again."""
    kept = [line for line in _read_lines(folder / "metrics.jsonl") if "outcome" not in line][:count]
    write_whole(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that a reader, or a crash, meets the old content or the new one and nothing between."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_runs(results: Path) -> list[Run]:
    """Every run below `results`, in the order of their paths.

    Raises:
      RecordsError: There is no run, or one of them is damaged.
    """
    folders = []
    for folder, subfolders, files in os.walk(results):
        if "config.json" in files:
            folders.append(Path(folder))
            subfolders.clear()  # a run may be going on: its checkpoints come and go
    if not folders:
        raise RecordsError(f"no runs below {results}: expected folders with a config.json")
    return [read_run(folder) for folder in sorted(folders)]


def load(results: str | Path) -> "pd.DataFrame":
    """Every epoch of every run below `results`, as one table.

    Args:
      results: A results folder, or any folder above or below it that holds runs.

    Returns:
      One row per run and epoch. Columns: the configuration (`dataset`, `model`, `alpha`, `seed`, ...), the epoch's
      record (`epoch`, `train_loss`, `test_loss`, `test_accuracy`, `seconds`, `images_per_second`), and `outcome`
      (`finished`, `diverged` or `unfinished`). A run that diverged in its first epoch has one row, of epoch 0 and
      without metrics: a result, too.

    Raises:
      RecordsError: There is no run, or one of them is damaged.
    """
    import pandas as pd  # here, since it takes a second that `--help` should not wait for

    rows = []
    for run in read_runs(Path(results)):
        shared = flatten(run.config.to_dict()) | {
            "setting": run.config.setting,
            "outcome": run.ending,
        }
        rows += [shared | record for record in run.epochs or [{"epoch": 0}]]
    return pd.DataFrame(rows)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The intact lines of a JSONL file: reading ends at the first torn one, which a crash left behind."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records
