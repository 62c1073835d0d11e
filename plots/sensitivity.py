"""Draws figures 1-4 of the sensitivity paper from records, for each optimizer that was studied.

  python -m plots.sensitivity results                          every study below results/
  python -m plots.sensitivity results/cifar10-laptop           one study
  python -m plots.sensitivity results --out=docs/figures       somewhere else

Each study (data set and protocol) gets its figures, as PNG and SVG: training loss over orders of magnitude (figure 1)
and over small perturbations (figure 2), test loss (figure 3) and test accuracy (figure 4). Only what was trained is
drawn: one panel per network and hyperparameter that was varied. The figures of optimizers other than Adam, which the
paper has not, end in their names; where there are several, they are compared in the last epoch, value by value.
Where several hyperparameters were varied, they are ranked by how much they matter (`adamlab.analysis.sensitivity`).

Source: Madan and Wu, "Hyperparameter Sensitivity Analysis for Adam Optimization on Deep CNNs".
"""

from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from adamlab.command import Parser, run_main
from adamlab.hyperparameters import MAGNITUDE, OPTIMIZERS
from adamlab.records import Run
from plots.panels import SYMBOLS, group, lawn_notes, own_scales, select
from plots.studies import draw_command, draw_studies, heading, optimizers_of

# matplotlib is imported where it is needed: --help does not wait for it.
if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec


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


def compose(runs: list[Run], kind: Kind, optimizer: str = "adam") -> "Figure | None":
    """The figure of one study: a row of panels per varied hyperparameter, a column per network.

    Args:
      runs: One study's runs.
      kind: Which figure.
      optimizer: Whose runs.

    Returns:
      The figure; None if it would not have a panel.
    """
    from plots import style

    models = sorted({run.config.model for run in runs})
    panels = {(name, model): select(runs, model, name, kind.study, optimizer) for name in MAGNITUDE for model in models}
    names = [name for name in MAGNITUDE if any(panels[name, model] for model in models)]
    models = [model for model in models if any(panels[name, model] for name in names)]
    if not names:
        return None
    shown = {run.folder: run for panel in panels.values() for run in panel}
    notes = own_scales(kind.metric, len(names), len(models))
    figure = style.new_figure(_heading(list(shown.values()), kind, notes), len(names))
    grid = figure.add_gridspec(len(names), len(models))
    for row, name in enumerate(names):
        places = {grid[row, column]: panels[name, model] for column, model in enumerate(models)}
        _draw_row(figure, {place: panel for place, panel in places.items() if panel}, name, kind.metric)
    figure.supxlabel("epoch", size="medium")
    return figure


def compose_all(runs: list[Run]) -> "dict[str, Figure]":
    """Every figure of one study, by the name of its file; those without a panel are missing."""
    from plots.comparison import compose_comparison
    from plots.ranking import compose_ranking

    if runs[0].config.protocol.schedule != "constant":
        return {}  # a study of batch sizes, which these figures would take for one
    figures = {
        kind.name + ("" if optimizer == "adam" else f"-{optimizer}"): compose(runs, kind, optimizer)
        for optimizer in optimizers_of(runs)
        for kind in KINDS
    }
    figures |= {"figure-ranking": compose_ranking(runs)}
    figures |= {f"figure-optimizers-{name}": compose_comparison(runs, name) for name in ("train_loss", "test_accuracy")}
    return {name: figure for name, figure in figures.items() if figure is not None}


def _draw_row(figure: "Figure", panels: "dict[SubplotSpec, list[Run]]", parameter: str, metric: str) -> None:
    """Draws the panels of one hyperparameter, one per network, on common epochs and with one legend.

    Accuracies have one scale for all networks; losses, which differ by a decade and more, one for each.
    """
    from plots import curves, style

    together = [run for panel in panels.values() for run in panel]
    values = group(together, parameter)
    styles = style.curve_styles(values, _default(together, parameter))
    axes = style.new_row(figure, list(panels), metric, share_y=metric == "test_accuracy")
    row = dict(zip(axes, panels.values(), strict=True))
    for axes, panel in row.items():
        axes.set_title(f"{panel[0].config.model}, {SYMBOLS[parameter]}")
        curves.draw(axes, group(panel, parameter), metric, styles)
    curves.finish_row(row, metric)
    # Beside lines with a band, one of a single seed would pass for one whose seeds agree.
    banded = max(Counter(run.without_seed for run in together).values()) > 1
    labels = {value: _legend_label(value, seeds, parameter, banded) for value, seeds in values.items()}
    models = {run.config.model for run in together}
    for value, seeds in values.items():
        labels[value] += "".join(f"\n({model} not run)" for model in sorted(models - {r.config.model for r in seeds}))
    entries = [(labels[value], styles[value]) for value in sorted(styles, reverse=True)]
    style.place_legend(figure, next(iter(row)), entries, SYMBOLS[parameter])


def _legend_label(value: float, runs: list[Run], parameter: str, banded: bool) -> str:
    """The value, whether it is the default, which networks did not finish it, on how many of their seeds, and where
    others are banded, which have one seed."""
    from plots.style import format_value

    label = format_value(value) + (", default" if value == _default(runs, parameter) else "")
    seeds = Counter(run.config.model for run in runs)
    for ending in ("diverged", "unfinished"):
        ended = Counter(run.config.model for run in runs if run.ending == ending)
        if ended == seeds:
            return f"{label} ({ending})"
        for model, count in ended.items():
            label += f"\n({model}{'' if count == seeds[model] else f' {count}/{seeds[model]}'} {ending})"
    return label + "".join(f"\n({model} 1 seed)" for model, count in seeds.items() if banded and count == 1)


def _default(runs: list[Run], parameter: str) -> float:
    return getattr(OPTIMIZERS[runs[0].config.optimizer].defaults, parameter)


def _heading(runs: list[Run], kind: Kind, scales: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """The lines above the panels: what is shown, on what it was trained, how to read it."""
    from plots import curves, style

    metric, seeds = style.METRICS[kind.metric], {run.config.seed for run in runs}
    outcomes = Counter(run.ending for run in runs)
    notes = [f"line: mean of {_averaged(runs)}, band: smallest to largest"] if len(seeds) > 1 else []
    notes += [r"$\times$: diverged after this epoch"] if outcomes["diverged"] else []
    if curves.exceeds_axis(runs, kind.metric):
        notes += [f"arrows at the upper edge: means above {metric.ceiling}, where bands end, too"]
    notes += scales
    notes += [f"{outcomes['unfinished']} of {len(runs)} runs unfinished"] if outcomes["unfinished"] else []
    notes += lawn_notes(runs)
    change = "varies" if kind.study == "magnitude" else "is perturbed"
    optimizer = OPTIMIZERS[runs[0].config.optimizer].title
    title = f"{metric.label.capitalize()} when one of {optimizer}'s hyperparameters {change}"
    return heading(title, runs, notes)


def _averaged(runs: list[Run]) -> str:
    """What a point of a line is the mean of: where a setting's seeds stop one by one, of fewer and fewer."""
    lengths = defaultdict(set)
    for run in runs:
        lengths[run.without_seed].add(len(run.epochs))
    return "the seeds that got so far" if any(len(each) > 1 for each in lengths.values()) else "seeds"


def draw(results: Path, out: Path | None = None) -> list[Path]:
    """Draws the figures of every study below `results`; none if no run varies a hyperparameter.

    Its arguments, what it returns and its errors are those of `draw_studies`.
    """
    return draw_studies(results, out, compose_all)


def main() -> None:
    """Draws what the command line names, and prints the files."""
    draw_command(Parser("plots.sensitivity", __doc__), draw, "no run below {} varies one hyperparameter alone")


if __name__ == "__main__":
    run_main(main, "plots.sensitivity")
