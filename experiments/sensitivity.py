"""How sensitive is training to Adam's alpha, beta1, beta2 and epsilon?

Reproduces figures 1-4 of Madan and Wu, "Hyperparameter Sensitivity Analysis for Adam Optimization on Deep CNNs":
one hyperparameter at a time, the others at their defaults, on a plain CNN and on ResNet-34.

  python -m experiments.sensitivity --param=alpha                      figures 1, 3, 4, panel alpha
  python -m experiments.sensitivity --param=all                        figures 1, 3, 4, all panels
  python -m experiments.sensitivity --param=all --study=perturbation   figure 2
  python -m experiments.sensitivity --optimizer=adam,adam_lawn         is Adam-LAWN less sensitive? (ours alone)
  python -m experiments.sensitivity --report                           sensitivity indices of what was trained

On a CPU the first one takes 4 to 27 minutes on two cores (protocol laptop) and ends with plain20 best at
the default alpha, ResNet-34 fitting fastest at 1e-4 and classifying best at the default.

The paper's text gives the defaults of alpha and beta1; five alphas, 1e-5, 1e-4 and 1e-3 among them;
beta1 from 0.1 over 0.9 to one that is too high; epsilon up to 1; batch 100, 15 epochs. Inferred: the other defaults,
Kingma and Ba's; the other values of the grids; the sizes of the perturbations, and that a decay rate is perturbed in
its distance from 1.

Other optimizers have the grids of Adam around their own defaults, alphas in steps of ten; LAWN's have free_epochs, too.
The learning rate is constant, as in the paper's Algorithm 1, also under LAWN. Free phases longer than the training are
left out.

Trained settings are kept under --out: the same command continues where it was stopped, and the default setting is
trained once for all parameters.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from adamlab.command import Parser, run_main
from adamlab.config import VARIANTS, RunConfig
from adamlab.data import Dataset
from adamlab.hyperparameters import ABLATIONS, MAGNITUDE, OPTIMIZERS, ConfigError, grid_of, varied
from adamlab.protocol import Protocol
from adamlab.records import study_name
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

MODELS = ("plain20", "resnet34")
# The optimizers that mean something at a constant learning rate.
CONSTANT = tuple(name for name in OPTIMIZERS if name not in ABLATIONS)
# The values of each hyperparameter that is varied of an optimizer.
Grid = dict[tuple[str, str], tuple[float, ...]]


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked as far as that is possible without data."""
    parser = Parser("experiments.sensitivity", __doc__)
    add = parser.add_argument
    add("--param", choices=(*MAGNITUDE, "all"), default="all", help="what is varied (default: all)")
    add(
        "--study",
        choices=("magnitude", "perturbation"),
        default="magnitude",
        help="orders of magnitude (default), or small perturbations of the default",
    )
    add("--values", help="your own grid for --param, instead of the study's: --values=1e-4,3e-4,1e-3")
    add("--optimizer", default="adam", help=f"separated by commas: {', '.join(CONSTANT)} (default: adam)")
    add("--model", default="plain20,resnet34", help=f"separated by commas: {', '.join(MODELS)} (default: %(default)s)")
    add("--batch-size", type=int, metavar="N", help="images per step")
    add("--stem", choices=VARIANTS["stem"], help="ResNet-34's first layers (default: imagenet)")
    add("--downsample", choices=VARIANTS["downsample"], help="plain20's strided layer of each set (default: last)")
    add(
        "--epsilon-placement",
        choices=("outside", "inside"),
        default="outside",
        help="of the root: outside as in PyTorch (default), inside as in the paper's Algorithm 1",
    )
    add("--report", action="store_true", help="train nothing: print the sensitivity indices of the records in --out")
    add_common_options(parser)
    arguments = parser.parse_args(argv)
    given = [name for name, value in vars(arguments).items() if value != parser.get_default(name)]
    if arguments.report and (other := sorted(set(given) - {"report", "out"})):
        option = other[0].replace("_", "-")
        parser.error(f"--report is of all that is recorded in --out, the only option that it takes; got --{option}")
    return arguments


def make_grid(arguments: argparse.Namespace, protocol: Protocol) -> Grid:
    """The values of each varied hyperparameter of each optimizer.

    Raises:
      ConfigError: `--values` is not a list of numbers, or goes with several parameters; an optimizer is unknown, or
        has no such hyperparameter in this study.
    """
    grid: Grid = {}
    parameters = tuple(MAGNITUDE) if arguments.param == "all" else (arguments.param,)
    if arguments.values is not None and arguments.param == "all":
        raise ConfigError(f"--values needs one --param ({', '.join(MAGNITUDE)}), got all")
    for optimizer in split_choices("--optimizer", arguments.optimizer, CONSTANT):
        found = {name: grid_of(optimizer, name, arguments.study) for name in MAGNITUDE}
        # A perturbation of an epsilon there is none, but a user's own values of it can be tried.
        if arguments.values is not None and arguments.param in OPTIMIZERS[optimizer].names:
            found[arguments.param] = split_numbers("--values", arguments.values)
        elif found.get("free_epochs"):
            found["free_epochs"] = tuple(value for value in found["free_epochs"] if value <= protocol.epochs)
        chosen = {(optimizer, name): found[name] for name in parameters if found[name]}
        if not chosen:
            accepted = ", ".join(name for name in found if found[name])
            raise ConfigError(f"--study={arguments.study} of {optimizer} varies {accepted}, got {arguments.param!r}")
        grid |= chosen
    return grid


def make_configs(
    arguments: argparse.Namespace, grid: Grid, dataset: str, protocol: Protocol, devices: int = 1
) -> list[RunConfig]:
    """Every run of the study, each once, the default setting of each network and optimizer first."""
    models = split_choices("--model", arguments.model, MODELS)
    for option, model in (("stem", "resnet34"), ("downsample", "plain20")):
        if getattr(arguments, option) and model not in models:
            raise ConfigError(f"--{option} is for {model}, got --model={arguments.model}")
    settings = []
    for (optimizer, name), values in grid.items():
        defaults = OPTIMIZERS[optimizer].defaults
        settings += [] if arguments.values else [(optimizer, defaults)]
        settings += [(optimizer, varied(optimizer, name, value)) for value in values]
    runs = [
        RunConfig(
            dataset,
            model,
            protocol,
            hyperparameters,
            seed,
            stem=arguments.stem if model == "resnet34" else None,
            downsample=arguments.downsample if model == "plain20" else None,
            precision=arguments.precision,
            epsilon_placement=arguments.epsilon_placement,
            optimizer=optimizer,
            trace_every=arguments.trace,
            **cut_batch(arguments, protocol.batch_size, devices),
        )
        for model in models
        for optimizer, hyperparameters in settings
        for seed in seeds(arguments)
    ]
    return list(dict.fromkeys(runs))


def report(results: Path) -> None:
    """Prints the indices of every study below `results`, and draws its figures."""
    from rich.console import Console

    from experiments.display import print_figures
    from experiments.report import print_report
    from plots.sensitivity import draw

    console = Console(highlight=False, soft_wrap=True)
    print_report(console, results)
    print_figures(console, draw(results))


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raises ConfigError for what is wrong whatever the data set turns out to be."""
    unknown = Protocol("unknown", 1, 1, batch_size=1, epochs=10**6)
    make_configs(arguments, make_grid(arguments, unknown), arguments.dataset, unknown)


def plan(arguments: argparse.Namespace, dataset: Dataset, on_accelerator: bool) -> Plan:
    """The study's batch size and runs, for `run_study`."""
    protocol = choose_protocol(arguments, dataset, on_accelerator, batch_size=arguments.batch_size)
    grid = make_grid(arguments, protocol)
    return [protocol.batch_size], partial(make_configs, arguments, grid, dataset.name, protocol)


def show(console: "Console", arguments: argparse.Namespace, configs: list[RunConfig]) -> None:
    """Prints the tables, draws the figures."""
    from experiments.display import print_figures
    from experiments.tables import print_tables
    from plots.sensitivity import draw

    print_tables(console, arguments.out, configs, make_grid(arguments, configs[0].protocol))
    print_figures(console, draw(arguments.out / study_name(configs[0])))


def main() -> None:
    """Trains the study, prints its tables, draws its figures."""
    arguments = parse_arguments()
    if arguments.report:
        report(arguments.out)
    else:
        run_study(arguments, check_arguments, plan, show)


if __name__ == "__main__":
    run_main(main, "experiments.sensitivity")
