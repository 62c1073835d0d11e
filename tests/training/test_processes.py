"""Two real processes with two CPU devices each, on loopback: the numbers of one process; no hang when one is killed."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from adamlab import data, models, recording, records
from adamlab.config import RunConfig
from adamlab.hyperparameters import ConfigError
from adamlab.protocol import PROTOCOLS
from adamlab.training import train
from adamlab.training.cluster import ends_together, join
from tests.data import photos
from tests.training import small

ROOT = Path(__file__).parents[2]
# The study's command line, with a net that is quick to compile and smooth.
PROGRAM = "from tests.training import small; small.run_command()"
# A file server that one of two machines does not reach.
BLIND = """
import errno, os
from adamlab.training import checkpoint
def fail(file): raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(file))
checkpoint._digest = fail
"""
STUDY = [
    "experiments.large_batch",
    "--dataset=digits",
    "--protocol=smoke",
    "--optimizer=adam_lawn",
    "--batch-size=40",
    "--seeds=1",
]


def free_port():
    """One below those that the system gives out, as to Ray in another test, until process 0 binds it."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def start(out, *arguments, slurm=False, second=(), before=""):
    """Both processes of a job, told of each other by options or as srun does it; the second has more options, and runs
    other code before."""
    port = free_port()
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2", "XDG_CACHE_HOME": f"{out}-cache"}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    del environment["JAX_COMPILATION_CACHE_DIR"]  # the suite's, with which one might be ready before the other
    processes = []
    for number in range(2):
        if slurm:
            job = []
            tasks = {name: "2" for name in ("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS")}
            ids = {name: str(number) for name in ("SLURM_PROCID", "SLURM_LOCALID")}
            environment |= tasks | ids | {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "127.0.0.1"}
            environment["JAX_COORDINATOR_PORT"] = str(port)
        else:
            job = [f"--coordinator=127.0.0.1:{port}", "--num-processes=2", f"--process-id={number}"]
        options = [*arguments, *(second if number else ())]
        command = [sys.executable, "-c", (before if number else "") + PROGRAM, *STUDY, f"--out={out}", *job, *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, **pipes))
    return processes


def finish(processes):
    """What each of them printed on its two streams."""
    try:
        return [process.communicate(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()


def run_to_the_end(processes):
    """What process 0 printed; the other one has nothing to say."""
    outputs = finish(processes)
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert [errors for _, errors in outputs] == ["", ""]
    # The CPU's own transport greets on standard output, from several threads: two greetings may share a line.
    lines = [line for line in outputs[1][0].splitlines() if "Gloo" not in line and "connected" not in line]
    assert "".join(lines) == ""
    return outputs[0][0]


def assert_trained_as_by_one_process(out, monkeypatch, data_dir=None):
    monkeypatch.setitem(models.MODELS, "plain20", small.Net)
    (run,) = records.read_runs(out)
    expected = list(train(run.config, data.load(run.config.dataset, data_dir, workers=0)))
    assert [record["epoch"] for record in run.epochs] == [record["epoch"] for record in expected]
    for record, by_one in zip(run.epochs, expected, strict=True):
        for name in ("train_loss", "test_loss", "test_accuracy"):
            assert record[name] == pytest.approx(by_one[name], abs=1e-5)
    assert run.ending == "finished"
    assert run.provenance["device"] == "4 x cpu in 2 processes"


@pytest.mark.slow
def test_two_processes_train_as_one_and_one_of_them_talks(tmp_path, monkeypatch):
    run_to_the_end(start(tmp_path, "--epochs=4", "--microbatch=20", "--trace=2"))
    assert_trained_as_by_one_process(tmp_path, monkeypatch)


def test_two_processes_read_photographs_from_a_disk_as_one_does(snapshots, tmp_path, monkeypatch):
    """Augmented, each its half of every batch; `tests/data/test_stream.py` looks at what each of them reads."""
    run_to_the_end(
        start(tmp_path, f"--dataset={photos.NAME}", f"--data-dir={snapshots}", "--workers=0", "--batch-size=16")
    )
    assert_trained_as_by_one_process(tmp_path, monkeypatch, snapshots)
    assert records.read_runs(tmp_path)[0].config.protocol.augment
    assert list(Path(f"{tmp_path}-cache").rglob("xla")) == []  # of which they would be ready at different times


def epochs_recorded(out):
    # Not `rglob`: it would walk into the checkpoint, whose folders come and go.
    return sum(path.read_text().count("train_loss") for path in out.glob("*/*/*/*/metrics.jsonl"))


@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_killed_process_ends_the_job_and_the_next_one_continues(tmp_path, monkeypatch, victim):
    study = ("--epochs=12", "--spmd=shard_map", "--checkpoint-minutes=0.01")
    processes = start(tmp_path, *study)
    while epochs_recorded(tmp_path) < 3:
        assert all(process.poll() is None for process in processes), finish(processes)
        time.sleep(0.05)
    processes[victim].kill()
    survivor = processes[1 - victim]
    _, errors = finish(processes)[1 - victim]
    assert survivor.returncode not in (0, -9)  # -9 would be ours, after waiting in vain
    # Ours, JAX's, or that of Gloo, which at times aborts the process from a thread of its own (once in 68 kills).
    endings = "cannot go on with the others", "JAX distributed service detected fatal errors", "gloo::EnforceNotMet"
    assert any(ending in errors for ending in endings), errors
    assert 3 <= epochs_recorded(tmp_path) < 12

    if victim == 1:  # a process does not begin anew alone, nor take from the others what it cannot read
        left = sorted(path for path in tmp_path.rglob("checkpoint/*"))
        outputs = finish(processes := start(tmp_path, *study, before=BLIND))
        assert processes[0].returncode not in (0, -9), outputs
        assert (processes[1].returncode, outputs[1][1].count("\n")) == (2, 1), outputs
        assert "Stale file handle; try again" in outputs[1][1]
        assert sorted(path for path in tmp_path.rglob("checkpoint/*")) == left != []

    assert "continued after epoch" in run_to_the_end(start(tmp_path, *study, slurm=True))
    assert_trained_as_by_one_process(tmp_path, monkeypatch)


def test_a_process_that_alone_refuses_ends_the_job(tmp_path):
    """Process 0, which keeps the records, finds those of another study; the other one waits for it to begin."""
    config = RunConfig("digits", "plain20", replace(PROTOCOLS["lawn-smoke"], epochs=9), optimizer="adam_lawn")
    recording.open_run(tmp_path / "digits-lawn-smoke" / "plain20" / "another" / "seed=0", config, {})
    outputs = finish(processes := start(tmp_path))
    assert processes[0].returncode == 2, outputs
    assert re.fullmatch(r"error: .* holds other runs \(.*\); choose another --out\n", outputs[0][1])
    assert processes[1].returncode not in (0, -9), outputs  # -9 would be ours, after waiting in vain


def test_a_full_device_is_said_in_one_line():
    message = r"a device's memory is full: needs .*--microbatch=M .*\(RESOURCE_EXHAUSTED: "
    with pytest.raises(ConfigError, match=message), ends_together():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte.")
    with pytest.raises(ConfigError, match=r"this machine's memory is full: .* \(Unable to allocate 1"), ends_together():
        np.empty(2**57)
    with pytest.raises(jax.errors.JaxRuntimeError), ends_together():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_processes_that_were_asked_for_different_runs_train_nothing(tmp_path):
    """Hyperparameters are arrays: of two learning rates the program is the same, and would mix the numbers."""
    processes = start(tmp_path, second=["--free-epochs=1.5"])
    outputs = finish(processes)
    assert [process.returncode for process in processes] == [2, 2], outputs
    assert all("all processes of a job must have the same options and data" in errors for _, errors in outputs)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_at_the_same_step(tmp_path, monkeypatch):
    processes = start(tmp_path, "--epochs=60")
    while epochs_recorded(tmp_path) < 3:
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    outputs = finish(processes)
    assert [process.returncode for process in processes] == [143, 143], outputs
    assert all("Terminated. What is finished is kept" in errors for _, errors in outputs)
    assert "continued after" in run_to_the_end(start(tmp_path, "--epochs=60"))
    assert_trained_as_by_one_process(tmp_path, monkeypatch)


def test_sigterm_ends_a_process_that_has_joined_and_not_begun_to_train():
    """JAX would take the signal to itself, and only note that it came."""
    code = (
        "import os, signal, sys, time\n"
        "from adamlab.command import run_main\n"
        "from adamlab.training.cluster import join\n"
        "def main():\n"
        "    join(f'localhost:{sys.argv[1]}', 1, 0)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
        "run_main(main, 'it')\n"
    )
    process = subprocess.run([sys.executable, "-c", code, str(free_port())], capture_output=True, text=True)
    assert process.returncode == 143, process.stderr
    assert process.stderr.startswith("Terminated. ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host:1", 2, None), "counted from 0, got --num-processes=2 and --process-id=None"),
        (("host:1", 2, 2), "counted from 0, got --num-processes=2 and --process-id=2"),
        (("host", 2, 0), "--coordinator must be auto or host:port, a port from 1 to 65535, got 'host'"),
        (("host:port", 2, 0), "a port from 1 to 65535, got 'host:port'"),
        (("host:99999", 2, 0), "a port from 1 to 65535, got 'host:99999'"),
        ((None, 2, 0), "need each other and --coordinator=host:port, got --num-processes=2 --process-id=0"),
        (("auto", None, 1), "need each other and --coordinator=host:port, got --process-id=1 --coordinator=auto"),
    ],
)
def test_half_a_job_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        join(*arguments)


@pytest.fixture
def joined(monkeypatch):
    """What JAX is asked to join, in an environment that shows no job."""
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *where, **options: calls.append((where, options)))
    return calls


@pytest.mark.parametrize(
    "environment",
    [{}, {"SLURM_STEP_NUM_TASKS": "1"}, {"OMPI_COMM_WORLD_SIZE": "1"}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}],
)
def test_a_process_on_its_own_joins_nobody(joined, monkeypatch, environment):
    """Every pod of a Kubernetes cluster knows the service's host; those of an indexed job have a number, too."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    join()
    assert joined == []


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_STEP_NUM_TASKS": "2"},
        {"OMPI_COMM_WORLD_SIZE": "2"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"},
    ],
)
def test_a_process_of_a_job_joins_the_others_and_misses_a_dead_one_after_half_a_minute(
    joined, monkeypatch, environment
):
    """JAX's own patience is 100 seconds."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    join()
    assert joined == [((None, None, None), {"heartbeat_timeout_seconds": 30})]
