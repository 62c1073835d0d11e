"""A study that is killed, stopped or shared, as real processes: continued, it is the uninterrupted one."""

import os
import shutil
import signal
import subprocess
import sys
from functools import partial

import pytest

from adamlab import recording, records
from adamlab.command import Terminated, postponed, run_main
from adamlab.files import hold
from tests.experiments import processes
from tests.experiments.processes import LONGER, wait_for_lines
from tests.faults.study import recorded

start, finish = partial(processes.start, small=True), partial(processes.finish, small=True)


@pytest.fixture
def ctrl_c():
    """A suite that was started in the background ignores Ctrl-C; here it arrives."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_run_that_another_process_is_at_is_left_to_it(longer, tmp_path):
    """This process holds one of two; nobody ever trains one twice."""
    theirs = tmp_path / "digits-smoke" / "plain20" / "default" / "seed=0"
    theirs.mkdir(parents=True)
    shorter = [*LONGER, "--epochs=5", f"--out={tmp_path}"]
    with hold(theirs):
        status, output, errors = finish(shorter)
    assert status == 0, errors
    assert f"is being worked on by process {os.getpid()} on " in output
    assert "1 of 2 runs are left to other processes" in output
    finish(shorter)
    assert recorded(tmp_path) == {name: [*lines[:5], lines[-1]] for name, lines in longer.items()}
    assert list(tmp_path.rglob("lock")) == []


def test_preemption_leaves_a_checkpoint_and_says_how_to_continue(longer, tmp_path):
    """`tests.faults` kills at any time."""
    process = start([*LONGER, f"--out={tmp_path}"])
    wait_for_lines(tmp_path, 3, process)
    process.terminate()
    _, errors = process.communicate()
    assert process.returncode == 143
    assert f"python -m experiments.sensitivity {' '.join(LONGER)} --out={tmp_path}" in errors
    assert "Traceback" not in errors
    stopped = next(run for run in records.read_runs(tmp_path) if not run.outcome)
    elsewhere = {"device": "8 x elsewhere"}
    recording.resume(stopped.folder, len(stopped.epochs), elsewhere, anew=True)
    status, output, _ = finish([*LONGER, f"--out={tmp_path}"])
    assert status == 0
    assert "continued after" in output
    assert recorded(tmp_path) == longer
    run = records.read_run(stopped.folder)
    assert (run.provenance, [origin["device"] for origin in run.continued]) == (elsewhere, ["1 x cpu"])


def test_ctrl_c_waits_for_the_end_of_a_block_and_a_second_one_does_not(ctrl_c, capsys):
    def main():
        with postponed() as stop:
            assert not stop()
            signal.raise_signal(signal.SIGINT)
            assert stop()  # and here we still are
            assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL  # the system ends the program, at once
        pytest.fail("what was held back arrives")

    with pytest.raises(SystemExit) as end:
        run_main(main, "experiments.sensitivity")
    assert end.value.code == 130
    assert "Interrupted. What is finished is kept; continue with:" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_who_reads_the_output_need_not_be_there_any_more(ctrl_c):
    """Ctrl-C ends `tee`, too, and the block must still be told."""
    reader, writer = os.pipe()
    os.close(reader)
    kept = os.dup(2)
    os.dup2(writer, 2)
    stopped = []

    def block():
        with postponed() as stop:
            signal.raise_signal(signal.SIGINT)
            stopped.append(stop())

    try:
        with pytest.raises(KeyboardInterrupt):
            block()
    finally:
        os.dup2(kept, 2)
        for descriptor in (kept, writer):
            os.close(descriptor)
    assert stopped == [True]


@pytest.mark.parametrize("signals", [1, 2])
def test_signals_are_heard_while_a_computation_is_awaited(signals):
    """A long computation: the first one waits for it, the second one does not."""
    code = (
        "import jax, jax.numpy as jnp\n"
        "from adamlab.command import postponed, run_main\n"
        "from adamlab.training.group import awaited\n"
        "def main():\n"
        "    grow = jax.jit(lambda x: jax.lax.fori_loop(0, 10**9 if SIGNALS == 2 else 10**5, lambda i, x: x + 1, x))\n"
        "    with postponed() as stop:\n"
        "        print('begun', flush=True)\n"
        "        awaited(grow(jnp.zeros(1000)))\n"
        "        while not stop(): pass\n"  # where the computation was shorter than the signal's way
        "        print('ended', flush=True)\n"
        "run_main(main, 'it')\n"
    ).replace("SIGNALS", str(signals))
    restore = signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a process inherits where it is ignored
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, restore)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    assert (
        process.stderr.readline() + process.stderr.readline() == "\nStopping after these steps; Ctrl-C ends at once.\n"
    )
    if signals == 2:
        process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert (process.returncode, output) == ((130, "ended\n") if signals == 1 else (-signal.SIGINT, ""))


def test_a_defect_shows_where_it_is(capsys):
    with pytest.raises(SystemExit) as end:
        run_main(lambda: 1 / 0, "experiments.sensitivity")
    assert end.value.code == 1
    assert "Traceback" in (error := capsys.readouterr().err)
    assert "test_interruptions.py" in error


def test_a_launchers_handler_stays_and_so_does_a_signal_that_is_ignored(ctrl_c):
    """submitit lets SIGTERM pass: SLURM queues the job again by another signal."""
    passed = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: passed.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with postponed() as stop:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert not stop()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert passed == [signal.SIGTERM]


def test_a_launchers_preemption_waits_for_the_end_of_a_block():
    """submitit's handler ends the process: before, there must be a checkpoint."""

    def train():
        with postponed() as stop:
            assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL  # nobody's
            signal.raise_signal(signal.SIGUSR2)
            assert stop()
            assert handled == []

    handled = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: handled.append(number))
    try:
        with pytest.raises(Terminated):
            train()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert handled == [signal.SIGUSR2]


def test_a_finished_run_leaves_nothing_behind_and_is_not_trained_again(finished, tmp_path):
    """A kill between a run's outcome and its clearing up left a lock and a checkpoint; another process is at one."""
    out = shutil.copytree(finished, tmp_path / "out")
    assert [*out.rglob("lock"), *out.rglob("checkpoint")] == []
    before = {path: path.read_bytes() for path in out.rglob("*") if path.suffix in {".json", ".jsonl"}}
    killed, busy = sorted(path.parent for path in out.rglob("metrics.jsonl"))
    for folder in (killed, busy):
        (folder / "checkpoint").mkdir()
        (folder / "lock").touch()
    with hold(busy):
        status, output, _ = finish([*LONGER, f"--out={out}"])
        assert {*out.rglob("lock"), *out.rglob("checkpoint")} == {busy / "lock", busy / "checkpoint"}
    (busy / "checkpoint").rmdir()
    assert status == 0
    assert "2 of 2 runs were finished before" in output
    assert {path: path.read_bytes() for path in before} == before


def test_runs_trained_together_and_killed_are_those_trained_alone(longer, tmp_path):
    """Two groups of two runs. The kill leaves the second group unfinished, its runs at most an epoch apart."""
    epochs = 30
    arguments = [*LONGER, f"--epochs={epochs}", "--values=1e-4,1e-1,1e-3,1e-2", "--vmap=2", f"--out={tmp_path}"]
    process = start(arguments)
    wait_for_lines(tmp_path, 2 * (epochs + 1) + 4, process)  # the epochs and the outcome of each of the first two
    process.kill()
    process.communicate()
    status, output, errors = finish(arguments)
    assert (status, errors) == (0, "")
    assert "2 of 4 runs were finished before" in output
    assert [*tmp_path.rglob("lock"), *tmp_path.rglob("checkpoint")] == []
    together = recorded(tmp_path)
    assert len(together) == 4
    assert all(lines[-1]["outcome"] == "finished" and len(lines) == epochs + 1 for lines in together.values())
    for name, alone in longer.items():
        alike = 3 if "alpha=0.01" in name else 25  # at so large an alpha rounding soon parts the runs
        for mine, other in zip(together[name][:alike], alone[:alike], strict=True):
            assert mine["train_loss"] == pytest.approx(other["train_loss"], rel=5e-3)
    assert all(run.provenance["vmap"] == 2 for run in records.read_runs(tmp_path))
