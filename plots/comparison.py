"""Several optimizers side by side: a metric of the last epoch against each hyperparameter that was varied.

Is one of them less sensitive than another? A flat line is insensitive, a high accuracy good: both count.
"""

from collections import defaultdict

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from adamlab.hyperparameters import MAGNITUDE, OPTIMIZERS
from adamlab.records import Run
from plots import style
from plots.final import DODGE, diverged, draw_final, reading
from plots.panels import SYMBOLS, lawn_notes, own_scales, select
from plots.studies import heading


def compose_comparison(runs: list[Run], metric: str) -> Figure | None:
    """The comparison of a study's optimizers: a row of panels per hyperparameter, a column per network.

    Args:
      runs: One study's runs.
      metric: A key of `style.METRICS`.

    Returns:
      The figure; None if no hyperparameter was varied of two optimizers.
    """
    models = sorted({run.config.model for run in runs})
    panels = {(name, model): _lines(runs, name, model) for name in MAGNITUDE for model in models}
    names = [name for name in MAGNITUDE if any(len(panels[name, model]) > 1 for model in models)]
    if not names:
        return None
    models = [model for model in models if any(len(panels[name, model]) > 1 for name in names)]
    found = {run.folder: run for name in names for model in models for r in panels[name, model].values() for run in r}
    shown = list(found.values())
    title = f"{style.METRICS[metric].label.capitalize()} of the last epoch when one hyperparameter varies"
    scales = own_scales(metric, len(names), len(models))
    notes = [*reading(shown), *scales, "values stand at equal distances", *lawn_notes(shown)]
    figure = style.new_figure(heading(title, shown, notes), len(names))
    grid = figure.add_gridspec(len(names), len(models))
    for row, name in enumerate(names):
        cells = [grid[row, column] for column in range(len(models))]
        places = style.new_row(figure, cells, metric, share_y=metric == "test_accuracy")
        row_runs = [run for model in models for its_runs in panels[name, model].values() for run in its_runs]
        values = sorted({getattr(run.config.hyperparameters, name) for run in row_runs})
        for axes, model in zip(places, models, strict=True):
            _draw_panel(axes, panels[name, model], name, values, metric)
            axes.set_title(f"{model}, {SYMBOLS[name]}")
            style.finish_numbers(axes)
        together = defaultdict(list)
        for model in models:
            for optimizer, its_runs in panels[name, model].items():
                together[optimizer] += its_runs
        entries = [(OPTIMIZERS[o].title + diverged(r), style.OPTIMIZER_STYLES[o]) for o, r in together.items()]
        style.place_legend(figure, places[0], entries, "optimizer")
    return figure


def _lines(runs: list[Run], parameter: str, model: str) -> dict[str, list[Run]]:
    """The runs of each optimizer of which the hyperparameter was varied over orders of magnitude."""
    lines = {name: select(runs, model, parameter, "magnitude", name) for name in OPTIMIZERS}
    return {name: panel for name, panel in lines.items() if panel}


def _draw_panel(axes: Axes, lines: dict[str, list[Run]], parameter: str, values: list[float], metric: str) -> None:
    """Values stand at equal distances: alphas, decay rates and epsilons have no scale in common. A row shares them."""
    for place, (optimizer, runs) in enumerate(lines.items()):
        points = defaultdict(list)
        for run in runs:
            points[float(values.index(getattr(run.config.hyperparameters, parameter)))].append(run)
        shift = DODGE * (place - (len(lines) - 1) / 2)
        look = style.OPTIMIZER_STYLES[optimizer]
        draw_final(axes, dict(sorted(points.items())), metric, look, OPTIMIZERS[optimizer].title, shift)
    axes.xaxis.set_major_locator(FixedLocator(list(range(len(values)))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: style.format_value(values[round(x)])))
    axes.margins(x=0.09)
