"""Where a grid's runs go instead of training here: to Ray, or to SLURM through submitit.

An engine decides where and when. It gets jobs, functions that return what went wrong or None, and says of each when it
has ended. What they do lies in files: a job that is started again, on whatever node, goes on from its own checkpoint.
The nodes share the checkout, its environment and the results folder.
"""

import logging
import os
import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from adamlab.hyperparameters import ConfigError, choose

LAUNCHERS = ("local", "ray", "slurm")
Job = Callable[[], str | None]

# What `--slurm` takes. SLURM's own SBATCH_* variables of the environment can say the rest.
SLURM_PARAMETERS: dict[str, type] = {
    "partition": str,
    "account": str,
    "qos": str,
    "constraint": str,
    "exclude": str,
    "timeout_min": int,
    "mem_gb": int,
    "cpus_per_task": int,
    "gpus_per_node": int,
    "array_parallelism": int,
    "signal_delay_s": int,
    "cluster": str,
}
# Those that submitit knows by these names on any cluster; the others are SLURM's and want a prefix.
SHARED_PARAMETERS = ("timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node")

# How often Ray starts a run again whose process or node died. Not endless: a run may be what kills it.
RETRIES = 3


class Engine(Protocol):
    """Ray or SLURM, as a grid sees it."""

    name: str
    gpus: int  # that a run gets, where there are any

    def accelerator(self) -> str | None:
        """What the runs will train on; None where that is CPUs."""
        ...

    def run(self, jobs: Sequence[Job], out: Path, say: Callable[[str], None]) -> Iterator[tuple[int, str | None]]:
        """Runs all jobs, as many at a time as there is room for.

        Args:
          jobs: Functions that can be pickled.
          out: The results folder, for what the engine writes.
          say: Tells a person where the jobs went.

        Yields:
          A job's index when it has ended, and one line that says what went wrong, or None.
        """
        ...


def choose_engine(launcher: str, slurm: str | None, devices: int | None = None) -> Engine | None:
    """The engine of `--launcher`, `--slurm` and `--devices`; None for `local`: this process trains.

    Raises:
      ConfigError: The engine is not installed or not here, or `--slurm` says nothing that it knows, or has fewer GPUs.
    """
    if slurm is not None and launcher != "slurm":
        raise ConfigError(f"--slurm is for --launcher=slurm, got --launcher={launcher}")
    if launcher == "local":
        return None
    package = {"ray": "ray", "slurm": "submitit"}[launcher]
    if find_spec(package) is None:
        raise ConfigError(f"--launcher={launcher} needs the package {package}: uv sync --extra {launcher}")
    return Ray(devices or 1) if launcher == "ray" else Slurm(slurm, devices)


class Ray:
    """Ray at the address in RAY_ADDRESS, or one that is started on this machine for the study.

    One task per run: on GPUs of its own where there are any, else on as many CPU cores as the smallest node has.
    """

    name = "ray"

    def __init__(self, gpus: int = 1) -> None:
        self.gpus = gpus
        self.address = os.environ.get("RAY_ADDRESS", "local")

    def accelerator(self) -> str | None:
        """A GPU if any node that is there has one."""
        return "a GPU of the Ray cluster" if any("GPU" in node for node in self._nodes()) else None

    def run(self, jobs: Sequence[Job], out: Path, say: Callable[[str], None]) -> Iterator[tuple[int, str | None]]:
        """Runs the jobs as tasks; they end with this process."""
        import ray
        from ray.exceptions import RayError

        nodes = self._nodes()
        try:
            cores = int(min((node["CPU"] for node in nodes if "CPU" in node), default=1))
            most = max(node.get("GPU", 0) for node in nodes)
            if 0 < most < self.gpus:  # Ray would wait for a node that has them
                expected = f"at most {most:g}, the GPUs of a node of the Ray cluster"
                raise ConfigError(f"--devices must be {expected}, got {self.gpus}")
            need: dict[str, Any] = {"num_gpus": self.gpus} if most else {"num_cpus": cores}
            takes = ", ".join(f"{name}={count}" for name, count in need.items())
            say(f"{len(jobs)} runs go to Ray ({self.address}), {takes} for each; nodes: {len(nodes)}")
            # Retried when a process or node dies. An error of Python is not: a job returns it.
            task = ray.remote(max_retries=RETRIES, **need)(_call)
            waiting = {task.remote(job): index for index, job in enumerate(jobs)}
            while waiting:
                (ended, *_), _ = ray.wait(list(waiting))
                try:
                    error = ray.get(ended)
                except RayError as failure:  # the process died too often, or never came to the job
                    error = first_line(getattr(failure, "cause", None) or failure)
                yield waiting.pop(ended), error
        finally:
            ray.shutdown()

    def _nodes(self) -> list[dict[str, float]]:
        """The resources of each node that is there, after connecting to it."""
        # Ray would copy the checkout and its environment to every worker when it is started by uv, and report its use.
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # It counts the kills of its memory monitor by themselves, and would start such a run again without end.
        os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))
        import ray

        if not ray.is_initialized():
            # Nothing but small results goes through the object store, and a cluster has its own.
            mine = {"include_dashboard": False, "object_store_memory": 10**8} if self.address == "local" else {}
            host, _, port = self.address.rpartition(":")
            handler = signal.getsignal(signal.SIGTERM)  # Ray takes it, and would end this process with a dump
            try:
                if host:  # Ray itself would try for minutes
                    socket.create_connection((host, int(port)), timeout=10).close()
                ray.init(self.address, logging_level=logging.ERROR, log_to_driver=False, **mine)
            except Exception as error:  # a bare one where it does not start in half a minute
                expected = f"HOST:PORT of a Ray cluster, or auto on a node of one, got {self.address!r}"
                problem = "Ray does not start here" if mine else f"RAY_ADDRESS must be {expected}"
                raise ConfigError(f"{problem}: {first_line(error)}") from None
            finally:
                signal.signal(signal.SIGTERM, handler)
        return [node["Resources"] for node in ray.nodes() if node["Alive"]]


class Slurm:
    """A SLURM job array through submitit: one job per run, put back into the queue when its time or node is taken.

    Args:
      text: `name=value,...` with names of `SLURM_PARAMETERS`. `cluster=local` takes processes of this machine, all at
        once, instead of SLURM: to try it out.
      devices: How many a run asks for; None for all that its node has.

    Raises:
      ConfigError: A name or value is none that submitit takes, there are fewer GPUs than devices, or SLURM is not here.
    """

    def __init__(self, text: str | None, devices: int | None = None) -> None:
        self.parameters = _parse_slurm(text or "")
        self.cluster = self.parameters.pop("cluster", "slurm")
        choose("--slurm: cluster", self.cluster, ("slurm", "local"))
        self.gpus = self.parameters.get("gpus_per_node") or 1
        if self.parameters.get("gpus_per_node") and devices and devices > self.gpus:
            raise ConfigError(f"--devices must be at most gpus_per_node={self.gpus} of --slurm, got {devices}")
        self.name = "slurm" if self.cluster == "slurm" else "submitit local"
        if "timeout_min" not in self.parameters:
            raise ConfigError("--launcher=slurm needs the minutes that a job may take, such as --slurm=timeout_min=240")
        if self.cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise ConfigError("--launcher=slurm needs sbatch and srun; --slurm=cluster=local,... tries it without them")

    def accelerator(self) -> str | None:
        """A GPU if the jobs ask for one."""
        return "a GPU of the SLURM cluster" if self.parameters.get("gpus_per_node") else None

    def run(self, jobs: Sequence[Job], out: Path, say: Callable[[str], None]) -> Iterator[tuple[int, str | None]]:
        """Submits the jobs as one array and waits for them; they go on without this process."""
        from submitit import AutoExecutor
        from submitit.core.utils import FailedJobError, UncompletedJobError
        from submitit.helpers import as_completed

        executor = AutoExecutor(out / "slurm" / "%j", cluster=self.cluster)
        executor.update_parameters(
            name="adamlab",
            **{key if key in SHARED_PARAMETERS else f"slurm_{key}": value for key, value in self.parameters.items()},
        )
        try:
            submitted = executor.map_array(_Requeued(), jobs)
        except FailedJobError as error:
            raise ConfigError(f"SLURM refuses the jobs: {first_line(error)}") from None
        index = {job.job_id: number for number, job in enumerate(submitted)}
        name = submitted[0].job_id.partition("_")[0]
        where = f"SLURM as job {name}" if self.cluster == "slurm" else "processes of this machine"
        say(f"{len(jobs)} runs go to {where}, and on without this command; logs in {out / 'slurm'}")
        for job in as_completed(submitted, poll_frequency=1):
            try:
                error = job.result()
            except (FailedJobError, UncompletedJobError) as failure:
                error = f"{first_line(failure)}: see {job.paths.stderr}"
            yield index[job.job_id], error


class _Requeued:
    """Calls a job; submitit asks it what to submit when the job's time is up or its node is taken: the same again."""

    def __call__(self, job: Job) -> str | None:
        return job()

    def checkpoint(self, job: Job) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)


def _call(job: Job) -> str | None:
    return job()


def first_line(error: BaseException) -> str:
    """An error's first line; with its kind where it is not one that adamlab wrote for a person."""
    line = next(iter(str(error).splitlines()), "")
    return line if type(error).__module__.startswith("adamlab") else f"{type(error).__name__}: {line}"


def _parse_slurm(text: str) -> dict[str, Any]:
    """The names and values of `--slurm`; a comma separates where a name follows: `exclude=node1,node2,qos=low`."""
    parameters = {}
    for part in re.split(r",(?=\w+=)", text) if text else []:
        name, _, value = part.partition("=")
        choose("--slurm: a name", name, tuple(SLURM_PARAMETERS))
        try:
            parameters[name] = SLURM_PARAMETERS[name](value)
        except ValueError:
            raise ConfigError(f"--slurm: {name} must be a whole number, got {value!r}") from None
        least = 0 if name in ("gpus_per_node", "signal_delay_s") else 1
        if isinstance(parameters[name], int) and parameters[name] < least:
            raise ConfigError(f"--slurm: {name} must be at least {least}, got {value}")
        if not value:
            raise ConfigError(f"--slurm: {name} must be a name, got none")
    minutes, delay = parameters.get("timeout_min"), parameters.get("signal_delay_s", 90)  # which is submitit's
    if minutes is not None and 60 * minutes <= delay:  # a job would be told to stop as it starts
        raise ConfigError(f"--slurm: timeout_min must be longer than signal_delay_s, {delay} seconds, got {minutes}")
    return parameters
