"""Several processes that train together: a job on several hosts, each with devices of its own.

All of them run the same program on the same configurations. Process 0 alone keeps the records and talks; what only one
of them can know, such as that a file is there or that it is time to stop, is agreed on before the others act on it.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils

from adamlab.files import one_line
from adamlab.hyperparameters import ConfigError

# Where srun and mpirun say how many processes they started, and where Kubernetes numbers those of an indexed job.
COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
KUBERNETES = ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX")
# Seconds without a sign of life after which a process counts as dead, and the others end. They are given by threads
# that neither Python nor a long step holds up.
SILENCE = 30


def join(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Makes this process one of a job, before JAX is used for anything else; alone it does nothing.

    Args:
      coordinator: `host:port` of process 0; or `auto`, for JAX to find out all from SLURM, Open MPI, Kubernetes or a
        TPU's host; None for that if the environment shows more than one process.
      processes: How many there are.
      process: Which one this is, from 0.

    Raises:
      ConfigError: An address is none, or given without the numbers, or the numbers without it; or nobody answers there.
    """
    if coordinator not in (None, "auto"):
        if processes is None or process is None or not 0 <= process < processes:
            got = f"--num-processes={processes} and --process-id={process}"
            raise ConfigError(f"--coordinator needs --num-processes and --process-id, counted from 0, got {got}")
        if not re.fullmatch(r".+:\d{1,5}", coordinator) or not 0 < int(coordinator.rpartition(":")[2]) < 2**16:
            raise ConfigError(f"--coordinator must be auto or host:port, a port from 1 to 65535, got {coordinator!r}")
    elif processes is not None or process is not None:
        given = {"--num-processes": processes, "--process-id": process, "--coordinator": coordinator}
        got = " ".join(f"{name}={value}" for name, value in given.items() if value is not None)
        raise ConfigError(f"--num-processes and --process-id need each other and --coordinator=host:port, got {got}")
    elif coordinator is None and not _in_cluster():
        return
    address = None if coordinator == "auto" else coordinator
    # JAX's own handler of SIGTERM would replace ours, and only note that one came.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        # At the end the others wait for process 0, which draws figures, as long as JAX has it.
        jax.distributed.initialize(address, processes, process, heartbeat_timeout_seconds=SILENCE)
    except (ValueError, RuntimeError) as error:
        reason = one_line(error)
        given = "--coordinator=host:port, --num-processes and --process-id need no detection"
        raise ConfigError(f"cannot join the job's other processes: {reason:.300} ({given})") from error


def _in_cluster() -> bool:
    """Whether the environment shows a job of several processes that JAX can find the others of."""
    counts = {name: os.environ.get(name, "1") for name in COUNTS}
    for name, count in counts.items():
        if not count.isdigit():
            raise ConfigError(f"{name} must be a number of processes, got {count!r}")
    return max(map(int, counts.values())) > 1 or all(name in os.environ for name in KUBERNETES)


def leads() -> bool:
    """Whether this is process 0, which keeps the records, or alone. JAX need not have been started."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def agree(*flags: bool) -> tuple[bool, ...]:
    """Which of the flags are set in any process. All processes call it, with as many flags."""
    if jax.process_count() == 1:
        return flags
    return tuple(multihost_utils.process_allgather(np.array(flags)).any(axis=0).tolist())


def announce(number: int = 0) -> int:
    """Process 0's number, in all processes, which call it together."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


@contextmanager
def ends_together() -> Iterator[None]:
    """Ends this process with one line and status 1, at once, when it has lost another one that it was working with.

    JAX's own ending would first wait for the other one to say goodbye. Where nothing breaks the connection, as between
    GPUs, it is JAX that ends this process, after `SILENCE`.

    Raises:
      ConfigError: In place of JAX's or NumPy's error, where a device's memory is full, or this machine's.
    """
    try:
        yield
    except MemoryError as error:
        raise ConfigError(
            f"this machine's memory is full: needs smaller or fewer images at a time ({error})"
        ) from error
    except Exception as error:
        link: BaseException | None = error
        while link is not None and not isinstance(link, jax.errors.JaxRuntimeError):
            link = link.__cause__ or link.__context__
        if link is not None and str(link).startswith("RESOURCE_EXHAUSTED"):
            wanted = "a smaller batch, or a microbatch: --microbatch=M keeps M images in memory at a time"
            raise ConfigError(f"a device's memory is full: needs {wanted} ({one_line(link):.200})") from error
        if link is None or jax.process_count() == 1:
            raise
        message = f"process {jax.process_index()} of {jax.process_count()} cannot go on with the others"
        advice = "one of them has ended, and may say why; started again, they continue from the last checkpoint"
        sys.stdout.flush()
        print(f"error: {message} ({one_line(link):.200}): {advice}", file=sys.stderr, flush=True)
        os._exit(1)
