"""A study that is killed, stopped or shared, as real processes: continued, it is the uninterrupted one."""

import signal
import time

import pytest

from adamlab import records
from adamlab.files import hold
from tests.experiments.processes import SMALL, finish, start, wait_for_lines
from tests.faults.study import recorded

LONGER = ["--param=alpha", "--values=1e-3,1e-2", *SMALL, "--epochs=12"]


@pytest.fixture(autouse=True, scope="module")
def ctrl_c_is_not_ignored():
    """A suite that was started in the background ignores Ctrl-C, and its processes would inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    """Two settings of 12 epochs, uninterrupted: long enough to be killed in the middle."""
    out = tmp_path_factory.mktemp("longer")
    status, _, errors = finish([*LONGER, f"--out={out}"])
    assert status == 0, errors
    return recorded(out)


def test_killed_and_continued_is_the_same_as_uninterrupted(longer, tmp_path):
    """In the second run, after its second epoch; `tests.faults` kills at any other time."""
    process = start([*LONGER, f"--out={tmp_path}"])
    wait_for_lines(tmp_path, 15, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    status, _, errors = finish([*LONGER, f"--out={tmp_path}"])
    assert status == 0, errors
    assert recorded(tmp_path) == longer


def test_two_processes_share_a_study_and_never_a_run(longer, tmp_path):
    first = start([*LONGER, f"--out={tmp_path}"])
    wait_for_lines(tmp_path, 2, first)
    status, output, errors = finish([*LONGER, f"--out={tmp_path}"])
    assert status == 0, errors
    assert f"is being worked on by process {first.pid} on " in output
    assert "1 of 2 runs are left to other processes" in output
    _, errors = first.communicate()
    assert first.returncode == 0, errors
    finish([*LONGER, f"--out={tmp_path}"])  # what each left to the other
    assert recorded(tmp_path) == longer
    assert list(tmp_path.rglob("lock")) == []


@pytest.mark.parametrize(("sent", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_preemption_leave_a_checkpoint_and_say_how_to_continue(longer, tmp_path, sent, expected):
    process = start([*LONGER, f"--out={tmp_path}"])
    wait_for_lines(tmp_path, 3, process)
    process.send_signal(sent)
    _, errors = process.communicate()
    assert process.returncode == expected
    assert f"python -m experiments.sensitivity {' '.join(LONGER)} --out={tmp_path}" in errors
    assert "Traceback" not in errors
    status, output, _ = finish([*LONGER, f"--out={tmp_path}"])
    assert status == 0
    assert "continued after" in output
    assert recorded(tmp_path) == longer


def test_a_second_ctrl_c_ends_at_once(longer, tmp_path):
    process = start([*LONGER, f"--out={tmp_path}"])
    wait_for_lines(tmp_path, 3, process)
    for _ in range(1_000):  # the first ones may be one to the process: pending signals do not add up
        process.send_signal(signal.SIGINT)
        time.sleep(0.001)
    assert process.wait() in (-signal.SIGINT, 130)
    process.communicate()
    finish([*LONGER, f"--out={tmp_path}"])
    assert recorded(tmp_path) == longer


def test_a_finished_run_leaves_nothing_behind_and_is_not_trained_again(study):
    """A kill between a run's outcome and its clearing up left a lock and a checkpoint; another process is at one."""
    out, _, _ = study
    assert [*out.rglob("lock"), *out.rglob("checkpoint")] == []
    before = {path: path.read_bytes() for path in out.rglob("*") if path.suffix in {".json", ".jsonl"}}
    killed, busy = sorted(path.parent for path in out.rglob("metrics.jsonl"))[:2]
    for folder in (killed, busy):
        (folder / "checkpoint").mkdir()
        (folder / "lock").touch()
    with hold(busy):
        status, output, _ = finish(["--param=alpha", *SMALL, f"--out={out}"])
        assert {*out.rglob("lock"), *out.rglob("checkpoint")} == {busy / "lock", busy / "checkpoint"}
    (busy / "checkpoint").rmdir()
    assert status == 0
    assert "5 of 5 runs were finished before" in output
    assert {path: path.read_bytes() for path in before} == before


def test_runs_trained_together_and_killed_are_those_trained_alone(study, tmp_path):
    """Groups of two of five runs. The kill leaves two unfinished, at most an epoch apart."""
    arguments = ["--param=alpha", *SMALL, "--vmap=2", f"--out={tmp_path}"]
    process = start(arguments)
    wait_for_lines(tmp_path, 7, process)
    process.kill()
    process.communicate()
    status, output, errors = finish(arguments)
    assert (status, errors) == (0, "")
    assert "2 of 5 runs were finished before" in output
    assert [*tmp_path.rglob("lock"), *tmp_path.rglob("checkpoint")] == []
    together, alone = recorded(tmp_path), recorded(study[0])
    assert together.keys() == alone.keys()
    for name, lines in alone.items():
        assert [line.get("outcome") for line in together[name]] == [line.get("outcome") for line in lines]
        for mine, other in zip(together[name][:-1], lines[:-1], strict=True):
            assert mine["train_loss"] == pytest.approx(other["train_loss"], rel=5e-2)  # after rounding, ReLUs part
    assert all(run.provenance["vmap"] == 2 for run in records.read_runs(tmp_path))
