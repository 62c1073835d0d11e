"""Grids on Ray and on submitit, with real processes: killed and preempted, to the records of the local launcher."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from adamlab import records
from adamlab.config import RunConfig
from adamlab.hyperparameters import ConfigError
from adamlab.protocol import PROTOCOLS
from experiments import grid, large_batch, launch, sensitivity, study
from experiments.execution import Execution
from tests.experiments import processes
from tests.experiments.processes import EPOCHS, LONGER, ROOT
from tests.faults.study import recorded


def start(*arguments, **environment):
    return processes.start(arguments, small=True, env=os.environ | environment)


def finish(process):
    output, errors = process.communicate()
    return process.returncode, output, errors


def send(signals, out, process, epochs=3):
    """Sends each setting's signal to the process that trains it, as soon as some epochs of it are recorded."""
    signals = dict(signals)
    while signals:
        assert process.poll() is None, process.communicate()
        for lock in out.glob("*/*/*/*/lock"):
            setting, metrics = lock.parts[-3], lock.with_name("metrics.jsonl")
            holder = re.match(r"process (\d+) on ", lock.read_text())
            if setting in signals and holder and metrics.exists() and len(metrics.read_text().splitlines()) >= epochs:
                os.kill(int(holder[1]), signals.pop(setting))
        time.sleep(0.005)


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory):
    """The process of a Ray cluster of two nodes, started outside of the checkout, and the cluster's address."""
    if not find_spec("ray"):
        pytest.skip("needs ray")
    command = [sys.executable, "-m", "tests.experiments.ray_cluster"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command,
        cwd=tmp_path_factory.mktemp("nodes"),
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # Ray's log
        text=True,
    ) as process:
        yield process, process.stdout.readline().strip()
        process.communicate()


def test_ray_goes_on_with_a_run_whose_worker_was_killed(two_nodes, longer, tmp_path):
    # A driver that started JAX would fail: it knows no such platform. The workers have the environment of their nodes.
    _, address = two_nodes
    arguments = ["--launcher=ray", "--checkpoint-minutes=0.01", f"--out={tmp_path}"]
    # What float32 is decides numbers: that they have from the driver.
    driver = {"JAX_PLATFORMS": "none", "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    process = start(*LONGER, *arguments, RAY_ADDRESS=address, **driver)
    send({"default": signal.SIGKILL}, tmp_path, process)
    status, output, errors = finish(process)
    assert (status, errors) == (0, "")
    assert recorded(tmp_path) == longer
    assert list(tmp_path.rglob("lock")) == list(tmp_path.rglob("checkpoint")) == []
    assert f"2 runs go to Ray ({address}), num_cpus=1 for each; nodes: 2" in output
    assert sum(f"epoch {EPOCHS}/{EPOCHS}" in line for line in output.splitlines()) == 2  # each once, at its end
    for run in records.read_runs(tmp_path):
        names = ("launcher", "device", "matmul_precision")
        assert [run.provenance[name] for name in names] == ["ray", "1 x cpu", "highest"]


@pytest.mark.slow
def test_ray_gives_up_on_a_run_that_is_killed_for_memory(tmp_path):
    """Each of its processes is, where all memory counts as used."""
    code = "import time; from functools import partial; from pathlib import Path; from experiments.launch import Ray; "
    code += "print(dict(Ray().run([partial(time.sleep, 60)], Path(), print)))"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_memory_usage_threshold": "0.01"}
    environment["RAY_memory_monitor_refresh_ms"] = "100"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert "{0: 'OutOfMemoryError: " in done.stdout


def test_ray_leaves_sigterm_to_the_study(two_nodes, tmp_path):
    """It would end the process with a dump, and without the command that continues."""
    _, address = two_nodes
    process = start(*LONGER, "--launcher=ray", f"--out={tmp_path}", RAY_ADDRESS=address, JAX_PLATFORMS="none")
    while "runs go to Ray" not in (line := process.stdout.readline()):
        assert line, process.communicate()
    process.terminate()
    status, _, errors = finish(process)
    assert status == 143, errors
    assert errors.startswith("Terminated. What is finished is kept; continue with:\n")


def test_ray_says_which_job_failed_and_gives_each_a_gpu_of_its_own(two_nodes, tmp_path, monkeypatch, capsys):
    cluster, address = two_nodes
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert launch.choose_engine("ray", None).accelerator() is None
    cluster.stdin.write("a node with GPUs\n")  # Ray does not ask for a driver
    cluster.stdin.flush()
    assert cluster.stdout.readline() == "added\n"
    engine = launch.choose_engine("ray", None)
    assert engine.accelerator() == "a GPU of the Ray cluster"
    jobs = [os.abort, partial(int, "x"), partial(os.getenv, "CUDA_VISIBLE_DEVICES"), os.getpid, os.getpid]
    ended = dict(engine.run(jobs, tmp_path, print))
    assert "num_gpus=1 for each; nodes: 3" in capsys.readouterr().out
    assert ended[0].startswith("WorkerCrashedError: The worker died unexpectedly")
    assert ended[1] == "ValueError: invalid literal for int() with base 10: 'x'"
    assert ended[2] in ("0", "1")
    with pytest.raises(ConfigError, match=r"--devices must be at most 2, the GPUs of a node of the Ray cluster, got 3"):
        next(launch.choose_engine("ray", None, 3).run(jobs, tmp_path, print))
    assert ended[3] != ended[4]  # a process that has started JAX on one GPU cannot move to another


def test_submitit_queues_what_was_preempted_and_says_what_was_killed(longer, tmp_path):
    """SIGUSR2 is what SLURM sends, as submitit asks it to, before it takes a node or a job's time is up."""
    pytest.importorskip("submitit")
    arguments = ["--launcher=slurm", "--slurm=cluster=local,timeout_min=10", f"--out={tmp_path}"]
    process = start(*LONGER, *arguments)
    send({"default": signal.SIGUSR2, "alpha=0.01": signal.SIGKILL}, tmp_path, process)
    status, output, errors = finish(process)
    assert status == 1
    assert errors == "error: 1 of 2 runs failed; the same command tries them again\n"
    assert re.search(r"plain20, alpha=0.01, seed 0: failed: UncompletedJobError: .* see .*\.err\n", output)
    assert re.search(rf"plain20, default, seed 0: epoch {EPOCHS}/{EPOCHS}, training loss", output)
    logs = [path.read_text() for path in (tmp_path / "slurm").glob("*/*.out")]
    assert sum("continued after" in log for log in logs) == 1  # from the checkpoint that the signal had it save
    assert {run.provenance["launcher"] for run in records.read_runs(tmp_path)} == {"submitit local"}
    # Whoever goes on: everything that it takes is in the folder.
    status, output, errors = finish(start(*LONGER, f"--out={tmp_path}"))
    assert (status, errors) == (0, "")
    assert "1 of 2 runs were finished before" in output
    assert recorded(tmp_path) == longer


@pytest.fixture
def blocked(tmp_path):
    """A run's folder that cannot be made."""
    (tmp_path / "file").write_text("in the way")
    return tmp_path / "file" / "seed=0"


def test_a_run_gets_as_many_gpus_as_its_batch_is_split_over():
    pytest.importorskip("ray")
    pytest.importorskip("submitit")
    assert launch.choose_engine("ray", None, 2).gpus == 2
    with pytest.raises(ConfigError, match=r"--devices must be at most gpus_per_node=1 of --slurm, got 2"):
        launch.choose_engine("slurm", "cluster=local,timeout_min=9,gpus_per_node=1", 2)
    slurm = launch.choose_engine("slurm", "cluster=local,timeout_min=9,gpus_per_node=8")
    arguments = large_batch.parse_arguments(["--launcher=slurm"])
    assert study.join_devices(arguments, Execution(), slurm) == 8
    # On a node that has more than the engine knows of, here four: two of them divide a batch of 50.
    assert Execution().find_devices(50).count == 2
    assert Execution(devices=1).find_devices(50).count == 1


def test_a_task_returns_what_went_wrong(blocked, capsys):
    """One line for the study's display; the traceback goes to the engine's log."""
    task = grid.Task(RunConfig("digits", "plain20", PROTOCOLS["smoke"]), blocked, Execution(), "ray", "", None)
    message = task()
    assert message.startswith("cannot ")
    assert "\n" not in message
    assert f"{blocked}" in message
    assert message.endswith("Not a directory")
    assert "Traceback" in capsys.readouterr().err
    # Also what only the node can find out.
    task = replace(task, config=replace(task.config, dataset="cifar10"), execution=Execution(Path("/proc/data")))
    assert "cifar10" in task()


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """The script that SLURM's `sbatch` got, which refuses it: there is no SLURM here."""
    script = tmp_path / "script"
    for name, text in (
        ("srun", "exit 1"),
        ("sbatch", f"cp $1 {script}; echo sbatch: error: no such partition >&2; exit 1"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return script


def test_slurm_gets_an_array_with_what_was_asked_for(sbatch, tmp_path):
    pytest.importorskip("submitit")
    node = "gpus_per_node=1,mem_gb=7,cpus_per_task=3"
    engine = launch.choose_engine("slurm", f"partition=gpu,exclude=a1,a2,timeout_min=240,{node},array_parallelism=2")
    with pytest.raises(ConfigError, match=r"SLURM refuses the jobs: .*no such partition"):
        list(engine.run([str, str, str], tmp_path / "out", print))
    script = sbatch.read_text()
    asked = ("partition=gpu", "exclude=a1,a2", "time=240", "gpus-per-node=1", "mem=7GB", "cpus-per-task=3")
    for line in (*asked, "array=0-2%2", "signal=USR2@90"):
        assert f"#SBATCH --{line}\n" in script
    assert engine.accelerator() is not None  # so that the protocol is the paper's
    assert launch.choose_engine("slurm", "timeout_min=240").accelerator() is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--launcher=dask"], "invalid choice: 'dask' (choose from 'local', 'ray', 'slurm')"),
        (["--slurm=timeout_min=9"], "--slurm is for --launcher=slurm, got --launcher=local"),
        (["--launcher=slurm"], "needs the minutes that a job may take, such as --slurm=timeout_min=240"),
        (["--launcher=slurm", "--slurm=timeout=9"], "must be one of partition, account, qos"),
        (["--launcher=slurm", "--slurm=timeout_min=long"], "timeout_min must be a whole number, got 'long'"),
        (["--launcher=slurm", "--slurm=timeout_min=0"], "--slurm: timeout_min must be at least 1, got 0"),
        (
            ["--launcher=slurm", "--slurm=timeout_min=1"],
            "must be longer than signal_delay_s, 90 seconds, got 1",
        ),
        (["--launcher=slurm", "--slurm=timeout_min=9,gpus_per_node=-1"], "gpus_per_node must be at least 0, got -1"),
        (["--launcher=slurm", "--slurm=timeout_min=9,partition="], "partition must be a name, got none"),
        (["--launcher=slurm", "--slurm=timeout_min=9,cluster=pbs"], "cluster must be one of slurm, local, got 'pbs'"),
        (["--launcher=slurm", "--slurm=timeout_min=9"], "needs sbatch and srun; --slurm=cluster=local"),
        (["--launcher=ray", "--devices=0"], "--devices must be at least 1, got 0"),
        (["--launcher=ray", "--num-processes=2"], "--num-processes is for --launcher=local, got --launcher=ray"),
        (["--launcher=ray", "--dataset=digits"], "RAY_ADDRESS must be HOST:PORT of a Ray cluster, or auto"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(arguments, message, refusal, monkeypatch):
    if not (find_spec("ray") and find_spec("submitit")):
        pytest.skip("needs ray and submitit")
    monkeypatch.setenv("PATH", "")  # no SLURM
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")  # where nothing listens
    assert message in refusal(sensitivity.main, arguments)
    assert message in refusal(large_batch.main, arguments)


@pytest.mark.parametrize(("launcher", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_package_that_is_missing_is_named(launcher, package, monkeypatch):
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"needs the package {package}: uv sync --extra {launcher}"):
        launch.choose_engine(launcher, None)
