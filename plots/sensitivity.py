"""Draws figures 1-4 of the sensitivity paper from records.

  python -m plots.sensitivity results                          every study below results/
  python -m plots.sensitivity results/cifar10-laptop           one study
  python -m plots.sensitivity results --out=docs/figures       somewhere else

Each study (data set and protocol) gets its figures, as PNG and SVG: training loss over orders of magnitude (figure 1)
and over small perturbations (figure 2), test loss (figure 3) and test accuracy (figure 4). Only what was trained is
drawn: one panel per network and hyperparameter that was varied.

Source: Madan and Wu, "Hyperparameter Sensitivity Analysis for Adam Optimization on Deep CNNs".
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from adamlab.command import Parser, run_main
from adamlab.hyperparameters import PERTURBATION, Hyperparameters
from adamlab.records import RecordsError, Run, read_runs

# matplotlib is imported where it is needed: --help does not wait for it.
if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

DEFAULTS = asdict(Hyperparameters())
SYMBOLS = {"alpha": r"$\alpha$", "beta1": r"$\beta_1$", "beta2": r"$\beta_2$", "epsilon": r"$\epsilon$"}
# Choices which change what is trained, in the words of a heading. The paper's own go without saying.
VARIANTS = {
    ("stem", "cifar"): "CIFAR stem",
    ("downsample", "first"): "first layer of a set downsamples",
    ("precision", "bf16"): "bf16",
    ("epsilon_placement", "inside"): r"$\epsilon$ inside the root",
}


class Kind(NamedTuple):
    """One of the paper's figures: its file's name, what it draws of the records, and at which values."""

    name: str
    metric: str
    study: str


KINDS = (
    Kind("figure1-training-loss", "train_loss", "magnitude"),
    Kind("figure2-perturbation", "train_loss", "perturbation"),
    Kind("figure3-test-loss", "test_loss", "magnitude"),
    Kind("figure4-test-accuracy", "test_accuracy", "magnitude"),
)


def select(runs: list[Run], model: str, parameter: str, study: str) -> list[Run]:
    """The runs of one panel: those that vary `parameter` alone, and the default setting, which all panels share.

    Args:
      runs: One study's runs.
      model: The panel's network.
      parameter: The hyperparameter that the panel varies.
      study: `perturbation` for the values in that grid; `magnitude` for all others, a user's own among them.

    Returns:
      The runs of which there is something to draw; none if the default setting is all there is.
    """
    default, perturbed = DEFAULTS[parameter], PERTURBATION.get(parameter, ())
    panel = []
    for run in runs:
        value = getattr(run.config.hyperparameters, parameter)
        alone = replace(run.config.hyperparameters, **{parameter: default}) == Hyperparameters()
        in_study = value == default or (value in perturbed) == (study == "perturbation")
        if run.config.model == model and alone and in_study and (run.epochs or run.outcome):
            panel.append(run)
    return panel if any(run.config.hyperparameters != Hyperparameters() for run in panel) else []


def group(runs: list[Run], parameter: str) -> "dict[float, list[Run]]":
    """The runs of each value of a hyperparameter, from low to high."""
    values = defaultdict(list)
    for run in runs:
        values[getattr(run.config.hyperparameters, parameter)].append(run)
    return dict(sorted(values.items()))


def compose(runs: list[Run], kind: Kind) -> "Figure | None":
    """The figure of one study: a row of panels per varied hyperparameter, a column per network.

    Args:
      runs: One study's runs.
      kind: Which figure.

    Returns:
      The figure; None if it would not have a panel.
    """
    from plots import style

    models = sorted({run.config.model for run in runs})
    panels = {(name, model): select(runs, model, name, kind.study) for name in DEFAULTS for model in models}
    names = [name for name in DEFAULTS if any(panels[name, model] for model in models)]
    models = [model for model in models if any(panels[name, model] for name in names)]
    if not names:
        return None
    shown = {run.folder: run for panel in panels.values() for run in panel}
    figure = style.new_figure(_heading(list(shown.values()), kind), len(names))
    grid = figure.add_gridspec(len(names), len(models))
    for row, name in enumerate(names):
        places = {grid[row, column]: panels[name, model] for column, model in enumerate(models)}
        _draw_row(figure, {place: panel for place, panel in places.items() if panel}, name, kind.metric)
    figure.supxlabel("epoch", size="medium")
    return figure


def _draw_row(figure: "Figure", panels: "dict[SubplotSpec, list[Run]]", parameter: str, metric: str) -> None:
    """Draws the panels of one hyperparameter, one per network, on common axes and with one legend."""
    from plots import style

    together = [run for panel in panels.values() for run in panel]
    values = group(together, parameter)
    styles = style.curve_styles(values, DEFAULTS[parameter])
    row = style.new_row(figure, list(panels), metric)
    for axes, panel in zip(row, panels.values(), strict=True):
        axes.set_title(f"{panel[0].config.model}, {SYMBOLS[parameter]}")
        style.draw_curves(axes, group(panel, parameter), metric, styles)
    style.finish_axes(row[0], together, metric)
    labels = {value: _legend_label(value, seeds, parameter) for value, seeds in values.items()}
    style.add_legend(figure, row[0], styles, labels, SYMBOLS[parameter])


def _legend_label(value: float, runs: list[Run], parameter: str) -> str:
    """The value, whether it is the default, and which networks did not finish it, on how many of their seeds."""
    from plots.style import format_value, outcome

    label = format_value(value) + (", default" if value == DEFAULTS[parameter] else "")
    seeds = Counter(run.config.model for run in runs)
    for ending in ("diverged", "unfinished"):
        ended = Counter(run.config.model for run in runs if outcome(run) == ending)
        if ended == seeds:
            return f"{label} ({ending})"
        for model, count in ended.items():
            label += f"\n({model}{'' if count == seeds[model] else f' {count}/{seeds[model]}'} {ending})"
    return label


def _heading(runs: list[Run], kind: Kind) -> list[tuple[str, dict[str, Any]]]:
    """The lines above the panels: what is shown, on what it was trained, how to read it."""
    from plots import style

    metric, config, protocols = style.METRICS[kind.metric], runs[0].config, {run.config.protocol for run in runs}
    seeds = Counter((run.config.model, run.config.hyperparameters) for run in runs).values()
    trained = (
        f"{'CIFAR-10' if config.dataset == 'cifar10' else f'{config.dataset}, NOT CIFAR-10'}: "
        f"protocol {config.protocol.name}, {_span(p.train_images for p in protocols)} training and "
        f"{_span(p.test_images for p in protocols)} test images, batch {_span(p.batch_size for p in protocols)}, "
        f"{_span((p.epochs for p in protocols), 'epoch')}, {_span(seeds, 'seed')}"
    )
    outcomes = Counter(style.outcome(run) for run in runs)
    notes = [VARIANTS[choice] for choice in VARIANTS if any(getattr(r.config, choice[0]) == choice[1] for r in runs)]
    notes += ["line: mean of seeds, band: smallest to largest"] if max(seeds) > 1 else []
    notes += [r"$\times$: diverged"] if outcomes["diverged"] else []
    notes += [f"triangles at the upper edge: above {metric.ceiling}"] if style.exceeds_axis(runs, kind.metric) else []
    notes += [f"{outcomes['unfinished']} of {len(runs)} runs unfinished"] if outcomes["unfinished"] else []
    change = "varies" if kind.study == "magnitude" else "is perturbed"
    title = f"{metric.label.capitalize()} when one of Adam's hyperparameters {change}"
    lines = [(title, style.TITLE), (trained, style.DETAIL if config.dataset == "cifar10" else style.WARNING)]
    return lines + ([("; ".join(notes), style.DETAIL)] if notes else [])


def _span(numbers: "Iterable[int]", unit: str = "") -> str:
    """The one number, or the smallest and the largest: `8 epochs`, `1 to 3 seeds`."""
    ordered = sorted(numbers)
    text = " to ".join(f"{number:,}" for number in dict.fromkeys([ordered[0], ordered[-1]]))
    return f"{text} {unit}{'' if text == '1' else 's'}" if unit else text


def find_studies(results: Path) -> "dict[Path, list[Run]]":
    """The runs of each study below `results`, by its path relative to `results`, which may be a study itself.

    Raises:
      RecordsError: There is no run, a run is damaged, or `results` is a part of a study.
    """
    base = results.resolve()
    studies = defaultdict(list)
    for run in read_runs(results):
        study = run.folder.resolve().parents[2]  # <study>/<model>/<setting>/<seed>, as adamlab.records lays them out
        if not study.is_relative_to(base):
            raise RecordsError(f"{results} is a part of the study {study}; give that folder or one above it")
        studies[study.relative_to(base)].append(run)
    return dict(studies)


def draw(results: Path, out: Path | None = None) -> list[Path]:
    """Draws the figures of every study below `results`.

    Args:
      results: A study's folder, or any folder above.
      out: Where figures go, each study's where the study lies below `results`; by default into a folder `figures` of
        the study itself.

    Returns:
      The files written, a PNG and an SVG per figure; none if no run varies a hyperparameter.

    Raises:
      RecordsError: There is no run, a run is damaged, or a figure cannot be written.
    """
    from matplotlib import rc_context

    from plots import style

    paths = []
    for study, runs in find_studies(results).items():
        folder = out / study if out else results / study / "figures"
        with rc_context(style.RC):
            figures = {kind.name: figure for kind in KINDS if (figure := compose(runs, kind))}
            try:
                for name, figure in figures.items():
                    folder.mkdir(parents=True, exist_ok=True)
                    paths += style.save(figure, folder / name)
            except OSError as error:
                raise RecordsError(f"cannot write figures to {folder}: {error.strerror}") from None
    return paths


def main() -> None:
    """Draws what the command line names, and prints the files."""
    parser = Parser("plots.sensitivity", __doc__)
    parser.add_argument("results", type=Path, metavar="RESULTS", help="a results folder: one study's, or any above")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where figures go (default: each study's own figures/)")
    arguments = parser.parse_args()
    paths = draw(arguments.results, arguments.out)
    if not paths:
        raise RecordsError(f"nothing to draw: no run below {arguments.results} varies one hyperparameter alone")
    print(*paths, sep="\n")


if __name__ == "__main__":
    run_main(main, "plots.sensitivity")
