"""A run's folder: what was asked, where it ran, one line per epoch, how it ended.

    results/cifar10-laptop/plain20/alpha=0.01/seed=0/
        config.json     the configuration and its provenance, written whole or not at all
        metrics.jsonl   one line per epoch, appended; the last line says how the run ended
        checkpoint/     only while the run is unfinished
        lock            only while a process works on the run; says which
        *.damaged       what was found damaged and is not used

`config.json` and every line of `metrics.jsonl` hold a checksum: damaged numbers are never used. Schema 1 had none.
Here they are read; `adamlab.recording` writes them.

Nothing here knows JAX: figures and tables are made on machines that never train.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adamlab.config import RunConfig, difference, flatten
from adamlab.files import RecordsError, unseal
from adamlab.hyperparameters import ConfigError

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

    @property
    def without_seed(self) -> RunConfig:
        """What the seeds of one setting have in common: the configuration without the seed, measured or not."""
        return replace(self.config, seed=0, trace_every=0)


def run_folder(out: Path, config: RunConfig) -> Path:
    """Where a run lives: data set and protocol, model, what differs from the default setting, seed.

    >>> from adamlab.protocol import PROTOCOLS
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
        check_config(folder, config)
        return read_run(folder)
    except Damaged:
        return None


def read_run(folder: Path) -> Run:
    """The run in `folder`. A last line that was not written to its end is left out: a crash leaves such.

    Raises:
      RecordsError: A file is missing or damaged, or of another schema.
    """
    content = read_config(folder)
    lines, reason, torn = read_lines(folder / "metrics.jsonl", content["schema"])
    if reason and not torn:
        raise Damaged(folder / "metrics.jsonl", reason)
    epochs = [line for line in lines if "outcome" not in line]
    outcomes = [line for line in lines if "outcome" in line]
    outcome = outcomes[-1] if outcomes else None
    return Run(folder, content["config"], content["provenance"], epochs, outcome, content["continued"])


def read_runs(results: Path) -> list[Run]:
    """Every run below `results`, in the order of their paths.

    Raises:
      RecordsError: There is no run, or one of them is damaged.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):  # as of a folder that was just removed
            raise RecordsError(f"cannot read {error.filename}: {error.strerror}")

    folders, seen = [], set()
    for folder, subfolders, files in os.walk(results, onerror=refuse, followlinks=True):  # a study may lie elsewhere
        if (real := os.path.realpath(folder)) in seen:
            subfolders.clear()  # a link to a folder around it
            continue
        seen.add(real)
        if "config.json" in files:
            folders.append(Path(folder))
            subfolders.clear()  # a run may be going on: its checkpoints come and go
    if not folders:
        expected = "it is a file" if results.is_file() else "expected folders with a config.json"
        raise RecordsError(f"no runs below {results}: {expected}")
    return [read_run(folder) for folder in sorted(folders)]


def load(results: str | Path) -> "pd.DataFrame":
    """Every epoch of every run below `results`, as one table.

    Args:
      results: A results folder, or any folder above or below it that holds runs.

    Returns:
      One row per run and epoch. Columns: the configuration (`dataset`, `model`, `alpha`, `seed`, ...); `setting`, what
      of it differs from the default; the epoch's record: `epoch`, `train_loss` (nats, the mean over the epoch's steps),
      `test_loss` (nats, after it), `test_accuracy` (in [0, 1], after it), `temperature` and `scaled_test_loss` (of
      `adamlab.analysis.calibration`; older records lack them), `seconds`, `images_per_second`, and where loss
      flattening was traced, what `adamlab.analysis.flattening.trace` measures and `trace_seconds`; and `outcome`:
      `finished`, `diverged` or `unfinished`. A run without a finished epoch has one row, of epoch 0 and without
      metrics: one that diverged is a result, too.

    Raises:
      RecordsError: There is no run, or one of them is damaged.
    """
    import pandas as pd  # here, since it takes a second that `--help` should not wait for

    rows = []
    for run in read_runs(Path(results)):
        shared = flatten(run.config.to_dict()) | {"setting": run.config.setting, "outcome": run.ending}
        rows += [shared | record for record in run.epochs or [{"epoch": 0}]]
    return pd.DataFrame(rows)


def read_config(folder: Path) -> dict[str, Any]:
    """What `config.json` holds: `schema`, `config`, `provenance` and `continued`."""
    path = folder / "config.json"
    try:
        text = path.read_bytes()
        content = unseal(text, required=False)
        if content["schema"] not in READABLE:
            readable = " and ".join(map(str, READABLE))
            raise RecordsError(f"{path} has schema {content['schema']}, this version reads {readable}")
        if content["schema"] > 1:
            unseal(text)  # the first alone has no checksum
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


def check_config(folder: Path, config: RunConfig) -> None:
    """Raises RecordsError where the folder holds another configuration, `Damaged` where it holds none that is whole."""
    found = read_config(folder)["config"]
    if found != config:
        raise RecordsError(f"{folder} holds another configuration ({difference(config, found)}); choose another --out")


def read_lines(path: Path, schema: int) -> tuple[list[dict[str, Any]], str, bool]:
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
