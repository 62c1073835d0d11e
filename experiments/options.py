"""What the studies' command lines share: data, protocol and results."""

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from adamlab.command import Parser, path
from adamlab.config import check_division
from adamlab.data import NAMES, Dataset, StreamDataset
from adamlab.data.batches import check_size
from adamlab.hyperparameters import ConfigError, choose
from adamlab.protocol import PHOTOGRAPHS, PROTOCOLS, Protocol
from experiments.execution import Execution
from experiments.launch import LAUNCHERS, SLURM_PARAMETERS

# Of which a study makes a list: a typing error must not make it endless.
MAX_SEEDS = 1_000


def add_common_options(parser: Parser, seeds: str = "1") -> None:
    """Adds the options that every study has.

    Args:
      parser: The study's.
      seeds: In words, how many it takes where nothing else is said.
    """
    add = parser.add_argument_group("data, protocol and results").add_argument
    add(
        "--dataset",
        metavar="NAME",
        default="auto",
        help=f"{', '.join(NAMES)}, imagenet2012, or another image classification set that tensorflow-datasets prepared "
        "as array_record (default: auto, which is cifar10 if it is there or can be fetched, else digits)",
    )
    add("--data-dir", type=path, metavar="DIR", help="tensorflow-datasets' folder (default: $TFDS_DATA_DIR or its own)")
    add(
        "--protocol",
        choices=("auto", "paper", "laptop", "smoke"),
        default="auto",
        help="how much is trained (default: paper on an accelerator, laptop on a CPU); the next options change it",
    )
    add("--train-images", type=int, metavar="N", help="size of the training set")
    add("--test-images", type=int, metavar="N", help="size of the test set")
    add("--epochs", type=int, metavar="N", help="passes over the training set")
    add("--image-size", type=int, metavar="N", help="side in pixels to which photographs, such as ImageNet's, are cut")
    add("--workers", type=int, metavar="N", help="processes that decode photographs, or 0 (default: one for each core)")
    add("--skip-corrupt", action="store_true", help="leave out photographs that cannot be decoded; else an error")
    add("--seeds", type=int, metavar="N", help=f"number of seeds, counted from 0 (default: {seeds})")
    add("--precision", choices=("float32", "bf16"), default="float32", help="of activations (default: float32)")
    add(
        "--trace",
        type=int,
        metavar="EPOCHS",
        nargs="?",
        const=1,
        default=0,
        help="measure loss flattening every so many epochs (default without a number: 1)",
    )
    add("--launcher", choices=LAUNCHERS, default="local", help="where runs go: this process (default), Ray, SLURM")
    add("--slurm", metavar="NAME=VALUE,...", help=f"what a run asks SLURM for: {', '.join(SLURM_PARAMETERS)}")
    add(
        "--checkpoint-minutes",
        type=float,
        metavar="MINUTES",
        default=10.0,
        help="a checkpoint within an epoch every so often, 0 for every few steps (default: 10); between epochs every "
        "half minute, if that is sooner",
    )
    add("--deterministic", action="store_true", help="the same bits at every start on a GPU, too; slower there")
    add("--out", type=path, metavar="DIR", default=Path("results"), help="results folder (default: results)")
    add_device_options(parser)


def add_device_options(parser: Parser) -> None:
    """Adds the options that say where a study is trained, and how a batch is cut for that."""
    add = parser.add_argument_group("devices").add_argument
    add(
        "--devices",
        type=int,
        metavar="N",
        help="how many a batch is split over (default: all, or the most that divide it; with --launcher=ray 1)",
    )
    add("--spmd", choices=("pmap", "shard_map"), default="pmap", help="what maps a step over devices (default: pmap)")
    add(
        "--batch-norm",
        choices=("global", "local"),
        default="global",
        help="statistics of the whole batch (default), or of each device's share (ghost batch normalisation)",
    )
    add("--microbatch", type=int, metavar="M", help="images of a batch in memory at once; BatchNorm sees so many")
    add("--vmap", type=int, metavar="K", default=1, help="runs that one program trains at once (default: 1)")
    add("--coordinator", metavar="HOST:PORT", help="of process 0, on several hosts; auto: what JAX finds out itself")
    add("--num-processes", type=int, metavar="N", help="processes of the job, where the cluster does not say")
    add("--process-id", type=int, metavar="I", help="which one this is, from 0")


def make_execution(arguments: argparse.Namespace) -> Execution:
    """How the study's runs are carried out.

    Raises:
      ConfigError: A number is too low, or an engine is asked for what only this process can do.
    """
    for name, least in (("workers", 0), ("checkpoint_minutes", 0), ("microbatch", 1), ("vmap", 1)):
        value = getattr(arguments, name)
        if value is not None and not value >= least:  # nor NaN
            raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    if arguments.launcher != "local":
        if arguments.vmap > 1:
            raise ConfigError(f"--vmap is for --launcher=local, got --launcher={arguments.launcher}")
        for name in ("coordinator", "num_processes", "process_id"):
            if getattr(arguments, name) is not None:
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{option} is for --launcher=local, got --launcher={arguments.launcher}")
        if arguments.devices is not None and arguments.devices < 1:
            raise ConfigError(f"--devices must be at least 1, got {arguments.devices}")
        if arguments.batch_norm == "local" and arguments.devices is None:
            raise ConfigError(f"--batch-norm=local with --launcher={arguments.launcher} needs --devices=N, got none")
    names = [field.name for field in fields(Execution)]
    return Execution(**{name: getattr(arguments, name) for name in names})


def cut_batch(arguments: argparse.Namespace, batch_size: int, devices: int) -> dict[str, Any]:
    """How a batch is cut, as entries of `RunConfig`. The number of devices is one only where it decides numbers.

    Raises:
      ConfigError: The batch does not divide.
    """
    piece = min(batch_size, arguments.microbatch or batch_size)
    check_division(batch_size, piece, devices)
    local = arguments.batch_norm == "local" and devices > 1
    return {"microbatch": piece, "norm_group": piece // devices if local else None}


def split_choices(name: str, text: str, choices: tuple[str, ...]) -> tuple[str, ...]:
    """The words of a list separated by commas, each once.

    Raises:
      ConfigError: A word is none of `choices`.
    """
    words = tuple(dict.fromkeys(text.split(",")))
    for word in words:
        choose(name, word, choices)
    return words


def split_numbers(name: str, text: str) -> tuple[float, ...]:
    """The numbers of a list separated by commas.

    Raises:
      ConfigError: Something in it is no number.
    """
    try:
        return tuple(dict.fromkeys(float(number) for number in text.split(",")))
    except ValueError:
        raise ConfigError(f"{name} must be numbers separated by commas, got {text!r}") from None


def seeds(arguments: argparse.Namespace, default: int = 1) -> range:
    """The seeds that were asked for.

    Raises:
      ConfigError: Their number is below 1, or more than anybody trains.
    """
    count = default if arguments.seeds is None else arguments.seeds
    if not 1 <= count <= MAX_SEEDS:
        raise ConfigError(f"--seeds must be from 1 to {MAX_SEEDS}, got {count}")
    return range(count)


def choose_protocol(
    arguments: argparse.Namespace,
    dataset: Dataset,
    on_accelerator: bool,
    prefix: str = "",
    batch_size: int | None = None,
) -> Protocol:
    """The protocol that was asked for, cut to the data set's size where the user gave no number.

    Args:
      arguments: The command line.
      dataset: What it names.
      on_accelerator: Whether `auto` is the paper's.
      prefix: Of the protocol's name in `PROTOCOLS`.
      batch_size: The batch that was asked for, the smallest of several; None for the protocol's.

    Raises:
      ConfigError: A number that the user gave does not fit the data set.
    """
    name = arguments.protocol
    if name == "auto":
        name = "paper" if on_accelerator else "laptop"
    available = {"train_images": dataset.train_size, "test_images": dataset.test_size}
    streamed = isinstance(dataset, StreamDataset)
    for option, default in (("image_size", None), ("workers", None), ("skip_corrupt", False)):
        if getattr(arguments, option) != default and not streamed:
            raise ConfigError(f"--{option.replace('_', '-')} is for photographs, got {dataset.name}")
    protocol = replace(PROTOCOLS[f"{prefix}{name}"], **(PHOTOGRAPHS[f"{prefix}{name}"] if streamed else {}))
    numbers = {key: min(getattr(protocol, key), count) for key, count in available.items()}
    asked = {key: getattr(arguments, key) for key in ("train_images", "test_images", "epochs", "image_size")}
    asked["batch_size"] = batch_size
    # All at once: a batch must fit the images that are asked for with it, not those of the protocol.
    protocol = replace(protocol, **numbers | {key: value for key, value in asked.items() if value is not None})
    check_size(protocol, dataset)
    return protocol
