"""The main command as a real process, of plain20 or of a small net in its place."""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = ["--dataset=digits", "--protocol=smoke", "--model=plain20"]
# One shape for the studies of several tests: it is compiled once. An epoch is one step.
SHAPE = ["--batch-size=10", "--train-images=10", "--test-images=10"]
TINY = [*SMALL, *SHAPE]
# Two runs of so many steps that a signal meets one in the middle, however busy the machine is, and not so many epochs
# that their lines fill a pipe which nobody reads meanwhile.
EPOCHS = 60
LONGER = ["--param=alpha", "--values=1e-3,1e-2", *TINY, "--train-images=100", f"--epochs={EPOCHS}"]


def start(arguments, small=False, **options):
    """The study in a process that runs on."""
    command = ["tests.training.small", "experiments.sensitivity"] if small else ["experiments.sensitivity"]
    return subprocess.Popen(
        [sys.executable, "-m", *command, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(arguments, small=False):
    """Its status, output and errors, at its end."""
    process = start(arguments, small)
    output, errors = process.communicate()
    return process.returncode, output, errors


def wait_for_lines(out, count, process):
    """Returns when the records have so many lines, epochs and outcomes."""
    while sum(len(path.read_text().splitlines()) for path in out.glob("*/*/*/*/metrics.jsonl")) < count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
