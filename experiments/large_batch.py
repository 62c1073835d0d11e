"""Does Adam-LAWN generalise as SGD does, at any batch size?

Reproduces tables 1 and 2 and figure 1 of Gupta et al., "Adam vs. SGD: Closing the generalization gap on image
classification" (the LAWN paper): VGG-19 on CIFAR-10 and CIFAR-100 at batch 256, 4,000 and 10,000.

  python -m experiments.large_batch --table=1                          AdamP and Adam-LAWN
  python -m experiments.large_batch --table=2 --dataset=cifar100       SGD, Adam and their LAWN variants
  python -m experiments.large_batch --optimizer=adam_lawn --free-epochs=0,1,2,5,10
  python -m experiments.large_batch --optimizer=adam_three_phase        LAWN's learning rate without its constraint
  python -m experiments.large_batch --tune                             finds alphas, without looking at test images

A table at the protocol `paper` takes 300 epochs a cell and wants a GPU. On a CPU the protocol is `laptop`: Adam and
Adam-LAWN, plain20, 2,000 images, batch 50 and 250, 20 epochs; 12 runs, with `--trace=4` (loss flattening, section 2)
45 minutes on two busy cores of a 2.6 GHz EPYC. docs/results/cifar10-lawn-laptop/README.md says what came out.

The paper gives the epochs, the batch sizes and what was tuned, but not the values that tuning chose;
experiments/cells.py says where each number is from. Trained cells are kept under --out: the same command continues
where it was stopped.
"""

import argparse
from dataclasses import replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

from adamlab.claims.published import LAWN, set_name
from adamlab.command import Parser, run_main
from adamlab.config import RunConfig
from adamlab.data import Dataset
from adamlab.hyperparameters import OPTIMIZERS, ConfigError, Hyperparameters
from adamlab.protocol import Protocol, tuning
from adamlab.records import study_name
from experiments.cells import TABLES, cell, starting_point
from experiments.options import (
    add_common_options,
    choose_protocol,
    cut_batch,
    seeds,
    split_choices,
    split_numbers,
)
from experiments.study import Plan, run_study

if TYPE_CHECKING:
    from rich.console import Console

PREFIX = "lawn-"
# The network and the batch sizes of each protocol where nothing else is said; the paper's batches are in its tables.
MODELS = {"paper": "vgg19", "laptop": "plain20", "smoke": "plain20"}
SMALL_BATCH_SIZES = {"laptop": (50, 250), "smoke": (50, 100)}
# Relative to the alpha that a cell starts from.
TUNING_FACTORS = (1 / 3, 1.0, 3.0)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked as far as that is possible without data."""
    parser = Parser("experiments.large_batch", __doc__)
    add = parser.add_argument
    add("--table", type=int, choices=tuple(TABLES), help="the paper's optimizers of that table")
    add("--optimizer", help=f"separated by commas: {', '.join(OPTIMIZERS)} (default: adam,adam_lawn)")
    add("--batch-size", metavar="N,...", help="images per step (default: the table's; of a small protocol two of ours)")
    add("--alpha", metavar="A,...", help="peak of the learning rate (default: each cell's own); several with --tune")
    add("--free-epochs", metavar="E,...", help="lengths of LAWN's free phase, separated by commas")
    add("--warmup-epochs", metavar="E,...", help="lengths of the warm-up, separated by commas")
    add("--weight-decay", metavar="W,...", help="factors, separated by commas, for the optimizers with weight decay")
    add(
        "--model",
        choices=("plain20", "resnet34", "resnet50", "vgg19"),
        help="network (default: vgg19, resnet50 for ImageNet; plain20 if not paper)",
    )
    add("--tune", action="store_true", help="try a grid of alphas, and what else is listed, on held-out images")
    add_common_options(parser, seeds="3, with --tune 1")
    arguments = parser.parse_args(argv)
    if arguments.table is not None and arguments.optimizer is not None:
        raise ConfigError(f"give --table or --optimizer, got {arguments.table} and {arguments.optimizer}")
    if arguments.alpha is not None and "," in arguments.alpha and not arguments.tune:  # a table's line is all alphas'
        raise ConfigError(f"--alpha must be one number, but with --tune, got {arguments.alpha!r}")
    return arguments


def make_configs(arguments: argparse.Namespace, dataset: str, protocol: Protocol, devices: int = 1) -> list[RunConfig]:
    """Every run of the study, each once, a cell's seeds one after the other.

    Raises:
      ConfigError: Something on the command line is none of what is accepted.
    """
    scale = protocol.name.removeprefix(PREFIX)
    model = arguments.model or choose_model(scale, protocol)
    find = partial(starting_point, protocol) if arguments.tune else partial(cell, dataset, model, protocol)
    settings = [
        (optimizer, batch_size, hyperparameters)
        for optimizer in optimizers(arguments)
        for batch_size in batch_sizes(arguments, dataset, scale)
        for hyperparameters in variants(arguments, optimizer, find(optimizer, batch_size).hyperparameters)
    ]
    runs = [
        RunConfig(
            dataset,
            model,
            replace(protocol, batch_size=batch_size),
            hyperparameters,
            seed,
            precision=arguments.precision,
            optimizer=optimizer,
            trace_every=arguments.trace,
            **cut_batch(arguments, batch_size, devices),
        )
        for optimizer, batch_size, hyperparameters in settings
        for seed in seeds(arguments, 1 if arguments.tune else 3)
    ]
    return list(dict.fromkeys(runs))


def choose_model(scale: str, protocol: Protocol) -> str:
    """The network where nothing else is said: at the paper's scale VGG-19, for photographs ResNet-50."""
    return "resnet50" if scale == "paper" and protocol.image_size else MODELS.get(scale, "vgg19")


def variants(arguments: argparse.Namespace, optimizer: str, own: Hyperparameters) -> list[Hyperparameters]:
    """The settings of a cell: its own, with the numbers that were asked for; or the grid to tune it on."""
    tuned = [float(f"{own.alpha * factor:.3g}") for factor in TUNING_FACTORS]
    grid = {"alpha": tuned if arguments.tune else [own.alpha]}
    for name in ("alpha", "free_epochs", "warmup_epochs", "weight_decay"):
        asked = getattr(arguments, name)
        if asked is not None and name in (*OPTIMIZERS[optimizer].names, "warmup_epochs"):
            grid[name] = list(split_numbers(f"--{name.replace('_', '-')}", asked))
    return [replace(own, **dict(zip(grid, values, strict=True))) for values in product(*grid.values())]


def optimizers(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The optimizers that were asked for, by name or by table.

    Raises:
      ConfigError: One is unknown, or none has what `--free-epochs` or `--weight-decay` is to vary.
    """
    if arguments.table is not None:
        names = TABLES[arguments.table]
    else:
        asked = "adam,adam_lawn" if arguments.optimizer is None else arguments.optimizer
        names = split_choices("--optimizer", asked, tuple(OPTIMIZERS))
    for varied in ("free_epochs", "weight_decay"):
        if getattr(arguments, varied) is not None and not any(varied in OPTIMIZERS[name].names for name in names):
            having = ", ".join(name for name in OPTIMIZERS if varied in OPTIMIZERS[name].names)
            raise ConfigError(f"--{varied.replace('_', '-')} is for {having}, got {', '.join(names)}")
    return names


def batch_sizes(arguments: argparse.Namespace, dataset: str, scale: str) -> tuple[int, ...]:
    """The batch sizes that were asked for, by number, by protocol or by table."""
    if arguments.batch_size is None:
        names = (set_name(dataset), "cifar10")
        rows = [(name, optimizer) for name in names for optimizer in TABLES[arguments.table or 2]]
        return SMALL_BATCH_SIZES.get(scale) or tuple(LAWN[next(row for row in rows if row in LAWN)])
    numbers = split_numbers("--batch-size", arguments.batch_size)
    if not all(number.is_integer() and number >= 1 for number in numbers):
        raise ConfigError(f"--batch-size must be whole numbers >= 1, got {arguments.batch_size!r}")
    return tuple(int(number) for number in numbers)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raises ConfigError for what is wrong whatever the data set turns out to be."""
    # Which batches a microbatch must divide is known where they are given.
    known = arguments if arguments.batch_size else argparse.Namespace(**(vars(arguments) | {"microbatch": None}))
    make_configs(known, arguments.dataset, Protocol("unknown", 10**9, 1, epochs=10**6, schedule="phases"))


def plan(arguments: argparse.Namespace, dataset: Dataset, on_accelerator: bool) -> Plan:
    """The study's batch sizes and runs, for `run_study`."""
    smallest = min(batch_sizes(arguments, dataset.name, "")) if arguments.batch_size else None
    protocol = choose_protocol(arguments, dataset, on_accelerator, PREFIX, smallest)
    if arguments.tune:
        protocol = tuning(protocol, dataset.train_size)
        for name in ("train_images", "test_images"):
            asked, most = getattr(arguments, name), getattr(protocol, name)
            if asked is not None and asked > most:
                raise ConfigError(f"{name} must be at most {most} for --tune on {dataset.name}, got {asked}")
    sizes = batch_sizes(arguments, dataset.name, protocol.name.removeprefix(PREFIX))
    return sizes, partial(make_configs, arguments, dataset.name, protocol)


def show(console: "Console", arguments: argparse.Namespace, configs: list[RunConfig]) -> None:
    """Prints the paper's table beside ours, or the ranking of a grid, and draws the figures."""
    from experiments.cell_tables import print_cells, print_tuning
    from experiments.display import print_figures
    from plots.large_batch import draw

    (print_tuning if arguments.tune else print_cells)(console, arguments.out, configs)
    print_figures(console, draw(arguments.out / study_name(configs[0]), configs=configs))


def main() -> None:
    """Trains the cells, prints the paper's table beside ours, draws the figures."""
    run_study(parse_arguments(), check_arguments, plan, show)


if __name__ == "__main__":
    run_main(main, "experiments.large_batch")
