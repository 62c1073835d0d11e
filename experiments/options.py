"""What the studies' command lines share: data, protocol and results."""

import argparse
from pathlib import Path

from adamlab.command import Parser
from adamlab.config import PROTOCOLS, Protocol, override
from adamlab.data import NAMES, Dataset
from adamlab.hyperparameters import ConfigError, choose
from experiments.launch import LAUNCHERS, SLURM_PARAMETERS


def add_common_options(parser: Parser, seeds: int = 1) -> None:
    """Adds the options that every study has.

    Args:
      parser: The study's.
      seeds: How many it takes where nothing else is said.
    """
    add = parser.add_argument_group("data, protocol and results").add_argument
    add("--dataset", choices=NAMES, default="auto", help="auto: cifar10 if it is there or can be fetched, else digits")
    add("--data-dir", type=Path, metavar="DIR", help="tensorflow-datasets' folder (default: $TFDS_DATA_DIR or its own)")
    add(
        "--protocol",
        choices=("auto", "paper", "laptop", "smoke"),
        default="auto",
        help="how much is trained (default: paper on an accelerator, laptop on a CPU); the next options change it",
    )
    add("--train-images", type=int, metavar="N", help="size of the training set")
    add("--test-images", type=int, metavar="N", help="size of the test set")
    add("--epochs", type=int, metavar="N", help="passes over the training set")
    add("--seeds", type=int, metavar="N", default=seeds, help=f"number of seeds, counted from 0 (default: {seeds})")
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
        help="a checkpoint within an epoch every so often, 0 for every few steps (default: 10)",
    )
    add("--deterministic", action="store_true", help="the same bits at every start on a GPU, too; slower there")
    add("--out", type=Path, metavar="DIR", default=Path("results"), help="results folder (default: results)")


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


def seeds(arguments: argparse.Namespace) -> range:
    """The seeds that were asked for.

    Raises:
      ConfigError: Their number is below 1.
    """
    if arguments.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {arguments.seeds}")
    return range(arguments.seeds)


def choose_protocol(
    arguments: argparse.Namespace, dataset: Dataset, on_accelerator: bool, prefix: str = ""
) -> Protocol:
    """The protocol that was asked for, cut to the data set's size where the user gave no number.

    Raises:
      ConfigError: A number that the user gave does not fit the data set.
    """
    name = arguments.protocol
    if name == "auto":
        name = "paper" if on_accelerator else "laptop"
    available = {"train_images": len(dataset.train["label"]), "test_images": len(dataset.test["label"])}
    for key, count in available.items():
        asked = getattr(arguments, key)
        if asked is not None and asked > count:
            raise ConfigError(f"{key} must be at most {count} for {dataset.name}, got {asked}")
    protocol = PROTOCOLS[f"{prefix}{name}"]
    protocol = override(protocol, **{key: min(getattr(protocol, key), count) for key, count in available.items()})
    return override(protocol, **{key: getattr(arguments, key) for key in ("train_images", "test_images", "epochs")})
