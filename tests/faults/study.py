"""A small study as a real process, and what it recorded: two epochs of 101 steps, a chunk for each step.

Of a small net in plain20's place, and of ResNet-34.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMES = {"seconds", "images_per_second", "trace_seconds", "crc"}
# 101 is prime: a chunk is one step, and a run can be stopped between any two.
STEPS, EPOCHS = 101, 2
SMALL = ["--param=alpha", "--dataset=digits", "--protocol=smoke", f"--train-images={4 * STEPS}", "--batch-size=4"]
# Checkpoints within an epoch, too: every few steps, as fast as each net is.
ONE_NET = [*SMALL, "--model=plain20", "--values=1e-3,1e-2", "--checkpoint-minutes=0.005"]
BOTH_NETS = [*SMALL, "--model=plain20,resnet34", "--values=1e-3", "--checkpoint-minutes=0.03"]


def command(arguments: list[str], out: Path) -> list[str]:
    return [sys.executable, "-m", "tests.training.small", "experiments.sensitivity", *arguments, f"--out={out}"]


def environment(cache: Path | None) -> dict[str, str]:
    """The environment of a study that keeps its compiled programs in `cache`; None to compile everything anew.

    Programs that are compiled once and run by many processes, ResNet-34's among them, are worth optimising.
    """
    settings = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "MPLBACKEND": "Agg"}
    settings["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0"
    settings |= {"JAX_COMPILATION_CACHE_DIR": str(cache)} if cache else {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    return os.environ | settings


def run(arguments: list[str], out: Path, cache: Path, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(arguments, out), cwd=ROOT, env=environment(cache), capture_output=True, text=True, **options
    )


def without_times(lines: list[dict]) -> list[dict]:
    """What of records the clock does not decide."""
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def recorded(out: Path) -> dict[str, list[dict]]:
    """Every line of every run, without times. Raises ValueError for a line that is torn."""
    lines = {}
    for path in sorted(out.rglob("metrics.jsonl")):
        parsed = [json.loads(line) for line in path.read_text().splitlines()]
        lines[path.parent.relative_to(out).as_posix()] = without_times(parsed)
    return lines


def leftovers(out: Path) -> list[str]:
    """What should not be there when all runs have ended."""
    names = ("checkpoint", "lock", "*.tmp", "*.damaged")
    return [path.relative_to(out).as_posix() for name in names for path in out.rglob(name)]
