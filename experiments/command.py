"""What the studies' command lines share: common options, one-line errors, a quiet terminal."""

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from adamlab.config import PROTOCOLS, ConfigError, Protocol, override
from adamlab.data import NAMES, DataError, Dataset
from adamlab.records import RecordsError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, as all errors of adamlab are."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit status 2."""
        self.exit(2, f"error: {message}\n")


def make_parser(docstring: str | None, module: str) -> Parser:
    """A parser whose help is the module's docstring."""
    return Parser(
        prog=f"python -m {module}",
        description=docstring,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


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


def run(main: Callable[[], None], module: str) -> NoReturn:
    """Runs a study's `main` and ends the program: bad input and unusable files in one line, Ctrl-C with what to do."""
    silence()
    try:
        main()
    except (ConfigError, DataError, RecordsError) as error:
        sys.exit(_fail(f"error: {error}", 2))
    except KeyboardInterrupt:
        command = shlex.join(["python", "-m", module, *sys.argv[1:]])
        sys.exit(_fail(f"Interrupted. What is finished is kept; continue with:\n  {command}", 130))
    sys.exit(0)


def _fail(message: str, status: int) -> int:
    print(message, file=sys.stderr)
    return status


def silence() -> None:
    """Quietens the chatter of the libraries, which says nothing that a user of a study can act on."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA's and TensorFlow's C++ side
    for name in ("absl", "jax", "orbax", "etils"):
        logging.getLogger(name).setLevel(logging.ERROR)


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
