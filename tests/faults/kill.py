"""Kills a study again and again, lets it end, and compares what it recorded with an uninterrupted one, bit for bit.

  python -m tests.faults.kill --count=500 --seed=0

A kill is SIGKILL, from outside: at a random time of the whole study, of a compilation, or of a checkpoint's writing; or
from within (`tests.faults.crash`): at a call which makes a file durable, with what a crash may leave of that file.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.faults import study

KINDS = ("anywhere", "compiling", "checkpoint", "file")
WEIGHTS = (0.4, 0.05, 0.25, 0.3)
PER_STUDY = 8  # kills before a study is left to end: a few of them always strike its beginning


@dataclass
class Harness:
    """The state of a series of kills.

    Args:
      scratch: Where everything is written.
      seed: Of the kills.
    """

    scratch: Path
    seed: int
    kills: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    studies: int = 0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.cache = self.scratch / "cache"
        self.expected: dict[str, tuple[dict, float]] = {}

    def uninterrupted(self, arguments: list[str]) -> tuple[dict, float]:
        """The records of the study, and the seconds that it takes when nothing has to be compiled."""
        key = " ".join(arguments)
        if key not in self.expected:
            for attempt in ("first", "second"):  # the second finds everything compiled: its time counts
                out, started = self.scratch / f"whole-{len(self.expected)}-{attempt}", time.monotonic()
                result = study.run(arguments, out, self.cache)
                assert result.returncode == 0, result.stderr
                found = study.recorded(out)
                if found != self.expected.setdefault(key, (found, 0.0))[0]:
                    self.faults.append(f"the same study in two processes recorded {self.expected[key][0]} and {found}")
            self.expected[key] = found, time.monotonic() - started
        return self.expected[key]

    def run(self, count: int, arguments: list[str]) -> None:
        """One study, killed up to `count` times."""
        expected, duration = self.uninterrupted(arguments)
        self.studies += 1
        out, killed = self.scratch / f"study-{self.studies}", 0
        while killed < count:
            kind = str(self.random.choice(KINDS, p=WEIGHTS))
            status, errors = self.attempt(kind, arguments, out, duration)
            killed += status == -signal.SIGKILL
            self.kills[kind] += status == -signal.SIGKILL
            if status not in (0, -signal.SIGKILL) or "Traceback" in errors:
                self.faults.append(f"study {self.studies}: status {status} after {kind}: {errors[-2000:]}")
                return
            if status == 0:
                break
        result = study.run(arguments, out, self.cache)
        if result.returncode != 0:
            self.faults.append(f"study {self.studies} ended with {result.returncode}: {result.stderr[-2000:]}")
        elif study.recorded(out) != expected:
            self.faults.append(f"study {self.studies} recorded {study.recorded(out)}, expected {expected}")
        elif left := study.leftovers(out):
            self.faults.append(f"study {self.studies} left {left}")

    def attempt(self, kind: str, arguments: list[str], out: Path, duration: float) -> tuple[int, str]:
        """Starts or continues the study, kills it, and returns its exit status and what it wrote on standard error."""
        command = study.command(arguments, out)
        if kind == "file":
            before, torn = self.random.integers(2), self.random.integers(2) * self.random.integers(1, 60)
            crash = ["-m", "tests.faults.crash", str(self.random.integers(1, 16)), str(before), str(torn)]
            command = [command[0], *crash, *command[2:]]
        environment = study.environment(None if kind == "compiling" else self.cache)
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                command, cwd=study.ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=errors
            )
            if kind == "checkpoint":
                self.wait_for_checkpoint(process, out)
                time.sleep(self.random.uniform(0, 0.25))
            elif kind != "file":
                time.sleep(self.random.uniform(0, duration))  # where it has to compile, most of it passes so
            if kind != "file":
                process.kill()
            status = process.wait()
            errors.seek(0)
            return status, errors.read()

    def wait_for_checkpoint(self, process: subprocess.Popen, out: Path) -> None:
        """Until Orbax begins to write one, or the process has ended."""

        def writing() -> set[Path]:
            return set(out.glob("*/*/*/*/checkpoint/*tmp*"))

        before = writing()
        while not writing() - before and process.poll() is None:
            time.sleep(0.002)


def strike(scratch: Path, count: int, seed: int, say=lambda line: None) -> Harness:
    """Kills studies `count` times in all; every eighth one trains both nets."""
    harness = Harness(scratch, seed)
    while harness.kills.total() < count and not harness.faults:
        arguments = study.BOTH_NETS if harness.studies % 8 == 7 else study.ONE_NET
        harness.run(min(PER_STUDY, count - harness.kills.total()), arguments)
        say(f"{harness.studies} studies, {harness.kills.total()} kills: {dict(harness.kills)}")
    return harness


def main() -> None:
    """Prints the progress, and exits with 1 at the first difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="kills (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the kills (default: 0)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        harness = strike(Path(scratch), arguments.count, arguments.seed, lambda line: print(line, flush=True))
    for fault in harness.faults:
        print(fault)
    print(f"{harness.kills.total()} kills of {harness.studies} studies: {len(harness.faults)} faults")
    sys.exit(bool(harness.faults))


if __name__ == "__main__":
    os.chdir(study.ROOT)
    main()
