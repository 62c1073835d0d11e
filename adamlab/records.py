"""A run's folder: what was asked, where it ran, one line per epoch, how it ended.

    results/cifar10-laptop/plain20/alpha=0.01/seed=0/
        config.json     the configuration and its provenance, written whole or not at all
        metrics.jsonl   one line per epoch, appended; the last line says how the run ended
        checkpoint/     only while the run is unfinished
        lock            only while a process works on the run; says which
        *.damaged       what was found damaged and is not used

`config.json` and every line of `metrics.jsonl` hold a checksum: damaged numbers are never used. Schema 1 had none.

Nothing here knows JAX: figures and tables are made on machines that never train.
"""

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adamlab.config import RunConfig, difference, flatten
from adamlab.files import RecordsError, make_folder, seal, set_aside, unseal, unwritable, write_whole
from adamlab.hyperparameters import ConfigError, Hyperparameters

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 2
READABLE = (1, 2)


class Damaged(RecordsError):
    """A file of a run that is not what was written.

    Args:
      path: The file.
      reason: What is wrong with it.
    """

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"{path} is damaged ({reason}); its study's command repairs it")
        self.path, self.reason = path, reason


@dataclass(frozen=True)
class Run:
    """What a run's folder holds.

    Args:
      folder: Its path.
      config: What was asked.
      provenance: Commit, versions and device that produced it; where others continued it, those that began it.
      epochs: One record per finished epoch, in order.
      outcome: The last line, with `outcome` `finished` or `diverged`; None while the run is unfinished.
      continued: The provenance of what continued it, in order.
    """

    folder: Path
    config: RunConfig
    provenance: dict[str, Any]
    epochs: list[dict[str, Any]]
    outcome: dict[str, Any] | None
    continued: list[dict[str, Any]] = field(default_factory=list)

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


def find_run(folder: Path, config: RunConfig) -> Run | None:
    """The run in `folder`; None where `open_run` has to make or repair it first.

    Raises:
      RecordsError: The folder holds another configuration, or another schema.
    """
    try:
        _check_config(folder, config)
        return read_run(folder)
    except Damaged:
        return None


def check_comparable(out: Path, configs: Iterable[RunConfig]) -> None:
    """Raises RecordsError where a study holds runs that differ in more than a study varies: a curve would mix both."""

    def common(config: RunConfig) -> RunConfig:
        varied = {"hyperparameters": Hyperparameters(), "optimizer": "adam", "seed": 0, "trace_every": 0}
        return replace(config, protocol=config.protocol.shared, **varied, microbatch=None, norm_group=None)

    studies: dict[Path, dict[int, RunConfig]] = {}
    for config in configs:
        studies.setdefault(out / study_name(config) / config.model, {})[config.protocol.batch_size] = config
    for folder, by_batch in studies.items():
        ours = common(next(iter(by_batch.values())))
        for path in sorted(folder.glob("*/*/config.json")):
            with suppress(Damaged):  # its own study repairs it
                theirs = _read_config(path.parent)["config"]
                said = difference(ours, common(theirs))
                # How a batch is cut decides numbers, too; a larger one may be cut where a smaller one stays whole.
                if like := by_batch.get(theirs.protocol.batch_size):
                    cut = {"microbatch": like.microbatch, "norm_group": like.norm_group}
                    said = said or difference(replace(theirs, **cut), theirs)
                if said:
                    raise RecordsError(f"{folder} holds other runs ({said}); choose another --out")


def open_run(
    folder: Path, config: RunConfig, provenance: dict[str, Any], warn: Callable[[str], None] = lambda message: None
) -> Run:
    """The run in `folder`, made if it is not there yet, without what is damaged. Call it while holding the run.

    Args:
      folder: Its path.
      config: What is asked.
      provenance: What will have produced it.
      warn: Told of each damaged or missing file, by its name.

    Raises:
      RecordsError: The folder holds another configuration or schema, there can be no such folder, or it cannot be
        written.
    """
    make_folder(folder)
    metrics = folder / "metrics.jsonl"
    try:
        for unfinished in folder.glob("*.tmp"):  # of a process that was killed
            unfinished.unlink()
        try:
            _check_config(folder, config)
        except Damaged as damaged:
            if (folder / "config.json").exists() or (metrics.exists() and metrics.stat().st_size):
                warn(f"{damaged.path} is damaged ({damaged.reason}): this run starts anew")
            set_aside(folder / "config.json")
            set_aside(metrics)
            write_whole(metrics, "")  # before the configuration: where that is, lost metrics are noticed
            _write_config(folder, config, provenance)
        lines, reason, torn = _read_lines(metrics, _read_config(folder)["schema"])
        if reason:
            warn(f"{metrics} is damaged ({reason}): {len(lines)} lines of it are used")
        if reason and not torn:
            set_aside(metrics)
            _write_lines(metrics, lines)
    except OSError as error:
        raise unwritable(folder, error) from None
    return read_run(folder)


def read_run(folder: Path) -> Run:
    """The run in `folder`. A last line that was not written to its end is left out: a crash leaves such.

    Raises:
      RecordsError: A file is missing or damaged, or of another schema.
    """
    content = _read_config(folder)
    lines, reason, torn = _read_lines(folder / "metrics.jsonl", content["schema"])
    if reason and not torn:
        raise Damaged(folder / "metrics.jsonl", reason)
    epochs = [line for line in lines if "outcome" not in line]
    outcomes = [line for line in lines if "outcome" in line]
    outcome = outcomes[-1] if outcomes else None
    return Run(folder, content["config"], content["provenance"], epochs, outcome, content["continued"])


def append(folder: Path, record: dict[str, Any]) -> None:
    """Adds one line to the run's metrics and waits until the disk has it.

    Raises:
      WriteError: The line cannot be written.
    """
    try:
        # Not "a", which would make the file anew where somebody has deleted the folder of a run that goes on.
        with open(folder / "metrics.jsonl", "r+") as file:
            file.seek(0, os.SEEK_END)
            file.write(json.dumps(seal(record), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritable(folder, error) from None


def resume(folder: Path, epochs: int, provenance: dict[str, Any], anew: bool) -> None:
    """Prepares a run to go on: drops all but its first epochs' lines, and notes what trains it from here.

    Args:
      folder: Its path.
      epochs: How many are kept; what comes after them will be trained again.
      provenance: What will produce the rest.
      anew: Whether nothing that was trained before is kept.

    Raises:
      WriteError: A file cannot be written.
    """
    run = read_run(folder)
    origins = [] if anew else [run.provenance, *run.continued]
    if not origins or origins[-1] != provenance:
        origins.append(provenance)
    try:
        _write_lines(folder / "metrics.jsonl", run.epochs[:epochs])
        if origins != [run.provenance, *run.continued]:
            _write_config(folder, run.config, *origins)
    except OSError as error:
        raise unwritable(folder, error) from None


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


def _read_config(folder: Path) -> dict[str, Any]:
    """What `config.json` holds: `schema`, `config`, `provenance` and `continued`."""
    path = folder / "config.json"
    try:
        content = unseal(path.read_bytes(), required=False)
        if content["schema"] not in READABLE:
            readable = " and ".join(map(str, READABLE))
            raise RecordsError(f"{path} has schema {content['schema']}, this version reads {readable}")
        origins = {"provenance": content["provenance"], "continued": content.get("continued", [])}
        return content | origins | {"config": RunConfig.from_dict(content["config"])}
    except FileNotFoundError:
        raise Damaged(path, "it is missing") from None
    except OSError as error:
        raise RecordsError(f"cannot read {path}: {error.strerror}") from None
    except ConfigError as error:
        # The checksum is right, so this is what was written. Schema 1 has none to tell.
        if content["schema"] > 1:
            raise RecordsError(f"{path} is of another version of this program ({error})") from None
        raise Damaged(path, error) from None
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(path, error) from None


def _write_config(folder: Path, config: RunConfig, provenance: dict[str, Any], *continued: dict[str, Any]) -> None:
    content = {"schema": SCHEMA, "config": config.to_dict(), "provenance": provenance}
    content |= {"continued": continued} if continued else {}
    write_whole(folder / "config.json", json.dumps(seal(content), indent=2) + "\n")


def _check_config(folder: Path, config: RunConfig) -> None:
    found = _read_config(folder)["config"]
    if found != config:
        raise RecordsError(f"{folder} holds another configuration ({difference(config, found)}); choose another --out")


def _read_lines(path: Path, schema: int) -> tuple[list[dict[str, Any]], str, bool]:
    """A run's metrics up to the first damaged line, what is wrong with that, and whether it is a torn last one."""
    if not path.exists():
        return [], "it is missing" if schema > 1 else "", False
    try:
        *whole, rest = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RecordsError(f"cannot read {path}: {error.strerror}") from None
    lines = []
    for number, text in enumerate([*whole, rest] if rest else whole, start=1):
        try:
            line = unseal(text, required=schema > 1)
            if "outcome" not in line and line["epoch"] != len(lines) + 1:
                raise ValueError(f"epoch {line['epoch']} follows {len(lines)} lines")
            lines.append(line)
        except (ValueError, KeyError) as error:
            torn = number > len(whole)  # a line without an end: what a crash leaves
            return lines, f"line {number} was not written to its end" if torn else f"line {number}: {error}", torn
    return lines, "", False


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    write_whole(path, "".join(json.dumps(seal(line)) + "\n" for line in lines))
