"""What the studies' command lines share: data, protocol and results."""

import argparse
from pathlib import Path

from adamlab.command import Parser
from adamlab.config import PROTOCOLS, ConfigError, Protocol, override
from adamlab.data import NAMES, Dataset


def add_common_options(parser: Parser) -> None:
    """Adds the options that every study has."""
    add = parser.add_argument_group("data, protocol and results").add_argument
    add("--dataset", choices=NAMES, default="auto", help="auto: cifar10 if it is there or can be fetched, else digits")
    add("--data-dir", type=Path, metavar="DIR", help="tensorflow-datasets' folder (default: $TFDS_DATA_DIR or its own)")
    add(
        "--protocol",
        choices=("auto", *PROTOCOLS),
        default="auto",
        help="how much is trained (default: paper on an accelerator, laptop on a CPU); the next four change it",
    )
    add("--train-images", type=int, metavar="N", help="size of the training set")
    add("--test-images", type=int, metavar="N", help="size of the test set")
    add("--batch-size", type=int, metavar="N", help="images per step")
    add("--epochs", type=int, metavar="N", help="passes over the training set")
    add("--seeds", type=int, metavar="N", default=1, help="number of seeds, counted from 0 (default: 1)")
    add("--precision", choices=("float32", "bf16"), default="float32", help="of activations (default: float32)")
    add("--out", type=Path, metavar="DIR", default=Path("results"), help="results folder (default: results)")


def choose_protocol(arguments: argparse.Namespace, dataset: Dataset, on_accelerator: bool) -> Protocol:
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
    protocol = PROTOCOLS[name]
    protocol = override(protocol, **{key: min(getattr(protocol, key), count) for key, count in available.items()})
    asked = {key: getattr(arguments, key) for key in ("train_images", "test_images", "batch_size", "epochs")}
    return override(protocol, **asked)
