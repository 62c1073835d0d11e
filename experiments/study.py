"""The course of a study: what can be refused is refused, runs are trained, and what they recorded is shown."""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import gcd
from typing import TYPE_CHECKING

from adamlab.config import RunConfig
from adamlab.data import Dataset
from adamlab.data.order import largest_divisor
from adamlab.hyperparameters import ConfigError
from experiments.execution import Execution
from experiments.launch import Engine, choose_engine
from experiments.options import make_execution

# Imported where it is needed: what a study refuses, it refuses before that.
if TYPE_CHECKING:
    from rich.console import Console

# The batch sizes of a study, and from the number of devices that share a batch to its runs.
Plan = tuple[Iterable[int], Callable[[int], list[RunConfig]]]


def run_study(
    arguments: argparse.Namespace,
    check: Callable[[argparse.Namespace], None],
    plan: Callable[[argparse.Namespace, Dataset, bool], Plan],
    show: Callable[["Console", argparse.Namespace, list[RunConfig]], None],
) -> None:
    """Trains what a command line asks for, and shows what is recorded.

    Args:
      arguments: The command line: the common options and the study's own.
      check: Raises ConfigError for what is wrong whatever the data set turns out to be.
      plan: From the command line, the data set, and whether runs have an accelerator, to the study's runs.
      show: Prints the tables of these runs, and draws their figures.

    Raises:
      ConfigError: Something on the command line, or in the environment of JAX, is none of what is accepted.
      DataError: The data set is missing or damaged.
      RecordsError: The results folder holds something else, or cannot be written.
    """
    engine = choose_engine(arguments.launcher, arguments.slurm, arguments.devices)
    execution = make_execution(arguments)
    execution.prepare()
    # Everything that can be refused is refused before the heavy imports; from here on it takes seconds.
    check(arguments)
    try:
        import jax  # noqa: F401
    except ValueError as error:  # such as JAX_NUM_CPU_DEVICES=two
        raise ConfigError(f"JAX cannot start: {error}") from None

    from rich.console import Console

    from adamlab.training.cluster import leads
    from adamlab.training.parallel import accelerator, keep_compilations
    from experiments.display import Display, introduce
    from experiments.grid import run_grid

    available = join_devices(arguments, execution, engine)
    console = Console(highlight=False, soft_wrap=True, quiet=not leads())
    dataset = execution.load(arguments.dataset)
    keep_compilations()
    # An engine's runs have their devices elsewhere; asking for ours would start JAX here, which takes a GPU.
    device = engine.accelerator() if engine else accelerator()
    batch_sizes, make_configs = plan(arguments, dataset, device is not None)
    devices = fit_devices(arguments, engine, available, batch_sizes, console.print)
    if devices < available:  # else an engine's node takes all that it has
        execution = replace(execution, devices=devices)
    configs = make_configs(devices)
    introduce(console, configs, dataset, arguments.protocol == "auto", device)
    run_grid(configs, dataset, arguments.out, Display(console), execution, engine)
    if leads():
        show(console, arguments, configs)


def join_devices(arguments: argparse.Namespace, execution: Execution, engine: Engine | None) -> int:
    """How many devices there are for a run; this process joins the job's others first, where there are any.

    With an engine they are elsewhere, and JAX is not started here.

    Raises:
      ConfigError: There are no such devices, or the other processes cannot be joined.
    """
    if engine is not None:
        return arguments.devices or engine.gpus
    from adamlab.training.cluster import join

    join(arguments.coordinator, arguments.num_processes, arguments.process_id)
    return execution.find_devices().count


def fit_devices(
    arguments: argparse.Namespace,
    engine: Engine | None,
    available: int,
    batch_sizes: Iterable[int],
    say: Callable[[str], None],
) -> int:
    """How many devices a run has: all that there are, or the most of them that every batch divides among.

    What `--devices` asks for stays as it is, and so does a job of several processes, which needs the devices of all.
    """
    from jax import process_count

    if arguments.devices is not None or (engine is None and process_count() > 1):
        return available
    share = gcd(*(min(size, arguments.microbatch or size) for size in batch_sizes))
    count = largest_divisor(share, available)
    if count < available:
        say(f"{count} of {available} devices are used, since every batch must divide among them")
    return count
