"""Writing a run's folder, as `adamlab.records` describes it: whole files and whole lines, or nothing."""

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from adamlab.config import RunConfig, difference
from adamlab.files import RecordsError, make_folder, seal, set_aside, unwritable, write_whole
from adamlab.hyperparameters import Hyperparameters
from adamlab.records import SCHEMA, Damaged, Run, check_config, read_config, read_lines, read_run, study_name


def check_comparable(out: Path, configs: Iterable[RunConfig], data: str, matmul_precision: str | None = None) -> None:
    """Raises RecordsError where a study holds runs that differ in more than a study varies: a curve would mix both.

    Runs of another network are drawn beside, and must be of the same data alone.

    Args:
      out: The results folder.
      configs: What is asked.
      data: The `contents` of the data set, with which the provenance of runs is compared where it has an entry `data`.
      matmul_precision: JAX's setting, which decides what float32 is on a GPU or TPU; None for its default.
    """

    def common(config: RunConfig) -> RunConfig:
        varied = {"hyperparameters": Hyperparameters(), "optimizer": "adam", "seed": 0, "trace_every": 0}
        return replace(config, protocol=config.protocol.shared, **varied, microbatch=None, norm_group=None)

    studies: dict[Path, dict[int, RunConfig]] = {}
    for config in configs:
        studies.setdefault(out / study_name(config) / config.model, {})[config.protocol.batch_size] = config
    for folder, by_batch in studies.items():
        ours = common(next(iter(by_batch.values())))
        for path in sorted(folder.parent.glob("*/*/*/config.json")):
            with suppress(Damaged):  # its own study repairs it
                content = read_config(path.parent)
                theirs, theirs_of = content["config"], content["provenance"].get("data", data)
                precision = content["provenance"].get("matmul_precision")
                if theirs_of != data:
                    said = f"{data} here, {theirs_of} there"
                elif precision != matmul_precision:
                    said = f"JAX_DEFAULT_MATMUL_PRECISION {matmul_precision} here, {precision} there"
                elif theirs.model != ours.model:
                    continue
                else:
                    said = difference(ours, common(theirs))
                # How a batch is cut decides numbers, too; a larger one may be cut where a smaller one stays whole.
                if like := by_batch.get(theirs.protocol.batch_size):
                    cut = {"microbatch": like.microbatch, "norm_group": like.norm_group}
                    said = said or difference(replace(theirs, **cut), theirs)
                if said:
                    raise RecordsError(f"{path.parents[2]} holds other runs ({said}); choose another --out")


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
            check_config(folder, config)
        except Damaged as damaged:
            if (folder / "config.json").exists() or (metrics.exists() and metrics.stat().st_size):
                warn(f"{damaged.path} is damaged ({damaged.reason}): this run starts anew")
            set_aside(folder / "config.json")
            set_aside(metrics)
            write_whole(metrics, "")  # before the configuration: where that is, lost metrics are noticed
            _write_config(folder, config, provenance)
        lines, reason, torn = read_lines(metrics, read_config(folder)["schema"])
        if reason:
            warn(f"{metrics} is damaged ({reason}): {len(lines)} lines of it are used")
        if reason and not torn:
            set_aside(metrics)
            _write_lines(metrics, lines)
    except OSError as error:
        raise unwritable(folder, error) from None
    return read_run(folder)


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


def _write_config(folder: Path, config: RunConfig, provenance: dict[str, Any], *continued: dict[str, Any]) -> None:
    content = {"schema": SCHEMA, "config": config.to_dict(), "provenance": provenance}
    content |= {"continued": continued} if continued else {}
    write_whole(folder / "config.json", json.dumps(seal(content), indent=2) + "\n")


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    write_whole(path, "".join(json.dumps(seal(line)) + "\n" for line in lines))
