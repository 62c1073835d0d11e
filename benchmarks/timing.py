"""What the benchmarks share: programs that take turns, a table of what they took, and the machine that they ran on."""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adamlab.files import RecordsError, WriteError, make_folder, write_whole
from adamlab.provenance import provenance

# The programs of a benchmark share a GPU, of which JAX would take three quarters at its start.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def names_of(choices: Collection[str]) -> Callable[[str], list[str]]:
    """The type of an option that is a list of names, separated by commas."""

    def names(text: str) -> list[str]:
        if unknown := [name for name in text.split(",") if name not in choices]:
            raise argparse.ArgumentTypeError(f"unknown {', '.join(map(repr, unknown))}; there is {', '.join(choices)}")
        return text.split(",")

    return names


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that is a whole number, this one or a larger one."""

    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        return int(text)

    return number


def numbers_from(least: int) -> Callable[[str], list[int]]:
    """The type of an option that is a list of such numbers, separated by commas."""

    def numbers(text: str) -> list[int]:
        return [at_least(least)(part) for part in text.split(",")]

    return numbers


def new_file(text: str) -> Path:
    """The type of an option that is a file to write, refused now and not when all is measured."""
    path = Path(text)
    if os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"must be a file, got {text}, which is a folder")
    try:
        make_folder(path.parent)
    except (RecordsError, WriteError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path


def interleave(programs: dict[str, Callable[[], Any]], turns: int) -> dict[str, np.ndarray]:
    """Seconds of each program in each turn. The first turn, which compiles and warms up, is not counted.

    The programs take turns, so that a machine which slows down slows them all. What they return is waited for.
    """
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(turns + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program())
            times[name].append(time.perf_counter() - start)
    return {name: np.array(values[1:]) for name, values in times.items()}


def summary(times: dict[str, np.ndarray], reference: str) -> dict[str, dict[str, float]]:
    """Median and quartiles of each program in milliseconds, and the median within a turn of its ratio to another one.

    >>> summary({"a": np.array([0.001, 0.003]), "b": np.array([0.002, 0.006])}, "b")["a"]["ratio"]
    0.5
    """
    rows = {}
    for name, seconds in times.items():
        low, median, high = 1e3 * np.percentile(seconds, [25, 50, 75])
        row = {"ms": median, "low": low, "high": high, "ratio": np.median(seconds / times[reference])}
        rows[name] = {key: round(float(value), 4) for key, value in row.items()}
    return rows


def require_torch(parser: argparse.ArgumentParser) -> None:
    """Ends the command where PyTorch, which adamlab does without, is to be its peer and is not there, or on another
    device."""
    if find_spec("torch") is None:
        parser.error("--peer=torch needs PyTorch, which is not installed here")
    import torch

    if torch.cuda.is_available() != (jax.default_backend() == "gpu"):
        theirs = "gpu" if torch.cuda.is_available() else "cpu"
        parser.error(f"--peer=torch must be on JAX's device, {jax.default_backend()}, got {theirs}")


def machine() -> dict[str, Any]:
    """Commit, versions, device and processor of a measurement; PyTorch's version if it is there."""
    found = provenance(f"{len(jax.devices())} x {jax.devices()[0].device_kind}") | {"processor": _processor()}
    with suppress(metadata.PackageNotFoundError):
        found["versions"]["torch"] = metadata.version("torch")
    return found


def write(path: Path | None, results: dict[str, Any]) -> None:
    """Writes a benchmark's results, with the machine, as JSON; nothing where no path was given."""
    if path:
        write_whole(path, json.dumps({"machine": machine()} | results, indent=2) + "\n")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []  # Linux has it
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"
