"""How sensitive is training to Adam's alpha, beta1, beta2 and epsilon?

Reproduces figures 1-4 of Madan and Wu, "Hyperparameter Sensitivity Analysis for Adam Optimization on Deep CNNs":
one hyperparameter at a time, the others at their defaults, on a plain CNN and on ResNet-34.

  python -m experiments.sensitivity --param=alpha                      figures 1, 3, 4, panel alpha
  python -m experiments.sensitivity --param=all                        figures 1, 3, 4, all panels
  python -m experiments.sensitivity --param=all --study=perturbation   figure 2

On a CPU the first one takes 12 minutes on two cores of a 2.8 GHz Xeon (protocol laptop) and ends with plain20 best at
the default alpha, ResNet-34 fitting fastest at 1e-4 and classifying best at the default.

The paper's text gives the defaults; five alphas in steps of ten, 1e-5, 1e-4 and 1e-3 among them; beta1 from 0.1 over
0.9 to one that is too high; epsilon up to 1; batch 100, 15 epochs. Inferred: the other values of the grids, the
sizes of the perturbations, and that a decay rate is perturbed in its distance from 1.

Trained settings are kept under --out: the same command continues where it was stopped, and the default setting is
trained once for all parameters.
"""

import argparse
import os
from dataclasses import replace

from adamlab.command import Parser, run_main
from adamlab.config import MAGNITUDE, PERTURBATION, ConfigError, Hyperparameters, Protocol, RunConfig, choose
from experiments.options import add_common_options, choose_protocol

MODELS = ("plain20", "resnet34")
# Training throughput on two cores of a 2.8 GHz Xeon, 32x32 images/s at batch 100, for the estimate of a study's time.
IMAGES_PER_SECOND = {"plain20": 260.0, "resnet34": 260.0}


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
    add("--model", default=",".join(MODELS), help="networks, separated by commas (default: plain20,resnet34)")
    add("--stem", choices=("imagenet", "cifar"), help="ResNet-34's first layers (default: imagenet)")
    add("--downsample", choices=("last", "first"), help="plain20's strided layer of each set (default: last)")
    add(
        "--epsilon-placement",
        choices=("outside", "inside"),
        default="outside",
        help="of the root: outside as in PyTorch (default), inside as in the paper's Algorithm 1",
    )
    add_common_options(parser)
    return parser.parse_args(argv)


def make_grid(arguments: argparse.Namespace) -> dict[str, tuple[float, ...]]:
    """The values of each varied parameter.

    Raises:
      ConfigError: `--values` is not a list of numbers, or goes with several parameters; no perturbation of epsilon.
    """
    if arguments.values is not None:
        if arguments.param == "all":
            raise ConfigError(f"--values needs one --param ({', '.join(MAGNITUDE)}), got all")
        try:
            return {arguments.param: tuple(float(value) for value in arguments.values.split(","))}
        except ValueError:
            raise ConfigError(f"--values must be numbers separated by commas, got {arguments.values!r}") from None
    grids = MAGNITUDE if arguments.study == "magnitude" else PERTURBATION
    if arguments.param == "all":
        return grids
    if arguments.param not in grids:
        raise ConfigError(f"--study={arguments.study} varies {', '.join(grids)}, got {arguments.param!r}")
    return {arguments.param: grids[arguments.param]}


def make_configs(
    arguments: argparse.Namespace, grid: dict[str, tuple[float, ...]], dataset: str, protocol: Protocol
) -> list[RunConfig]:
    """Every run of the study, each once, the default setting of each network first."""
    models = tuple(arguments.model.split(","))
    for model in models:
        choose("--model", model, MODELS)
    if arguments.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {arguments.seeds}")
    settings = [Hyperparameters()] if arguments.values is None else []
    settings += [replace(Hyperparameters(), **{name: value}) for name, values in grid.items() for value in values]
    runs = [
        RunConfig(
            dataset,
            model,
            protocol,
            setting,
            seed,
            stem=arguments.stem if model.startswith("resnet") else None,
            downsample=arguments.downsample if model.startswith("plain") else None,
            precision=arguments.precision,
            epsilon_placement=arguments.epsilon_placement,
        )
        for model in models
        for setting in settings
        for seed in range(arguments.seeds)
    ]
    return list(dict.fromkeys(runs))


def introduction(arguments: argparse.Namespace, configs: list[RunConfig], pixels: int, accelerator: str | None) -> str:
    """The first line: what will be trained on what, and how long that takes on a CPU."""
    protocol = configs[0].protocol
    chosen = "" if arguments.protocol != "auto" else f" (chosen for {accelerator or 'a CPU'})"
    text = (
        f"{len(configs)} runs of {protocol.epochs} epochs on {configs[0].dataset}: protocol {protocol.name}{chosen}, "
        f"{protocol.train_images:,} training and {protocol.test_images:,} test images, batch {protocol.batch_size}; "
    )
    if accelerator:
        return text + "the time left is shown after the first epoch."
    # An evaluation pass costs about a third of a training pass per image.
    images = protocol.epochs * (protocol.train_images + protocol.test_images / 3) * pixels / 32**2
    minutes = sum(images / IMAGES_PER_SECOND[config.model] for config in configs) / 60
    estimate = f"about {minutes:.0f} min" if minutes > 1 else "about a minute"
    return text + f"{estimate} on two CPU cores (here: {os.cpu_count()})."


def main() -> None:
    """Trains the study, prints its tables, draws its figures."""
    arguments = parse_arguments()
    grid = make_grid(arguments)
    # Everything that can be refused is refused before the heavy imports; from here on it takes seconds.
    make_configs(arguments, grid, arguments.dataset, Protocol("unknown", 1, 1, 1, 1))

    from rich.console import Console

    from adamlab import data
    from adamlab.training.parallel import accelerator, keep_compilations
    from experiments.display import Display
    from experiments.grid import run_grid
    from experiments.tables import print_tables
    from plots.sensitivity import draw

    console = Console(highlight=False, soft_wrap=True)
    dataset = data.load(arguments.dataset, arguments.data_dir)
    keep_compilations()
    protocol = choose_protocol(arguments, dataset, accelerator() is not None)
    configs = make_configs(arguments, grid, dataset.name, protocol)
    height, width = dataset.train["image"].shape[1:3]
    console.print(introduction(arguments, configs, height * width, accelerator()))
    if dataset.note:
        console.print(f"[bold yellow]{dataset.note}[/]")
    run_grid(configs, dataset, arguments.out, Display(console))
    print_tables(console, arguments.out, configs, grid)
    study = arguments.out / f"{dataset.name}-{protocol.name}"
    for path in draw(study):
        if path.suffix == ".png":
            console.print(f"figure: {path}")


if __name__ == "__main__":
    run_main(main, "experiments.sensitivity")
