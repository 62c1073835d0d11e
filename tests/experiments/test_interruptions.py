"""A study that is killed, stopped or shared, as real processes: continued, it is the uninterrupted one."""

import signal
import time

import pytest

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


@pytest.mark.parametrize("lines", [1, 15])  # tests/faults kills at any other time
def test_killed_and_continued_is_the_same_as_uninterrupted(longer, tmp_path, lines):
    process = start([*LONGER, f"--out={tmp_path}"])
    wait_for_lines(tmp_path, lines, process)
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
