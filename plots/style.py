"""How adamlab's figures look: curves with seeds as bands or bars, in colours that survive grey printing.

Figures are made without pyplot: no window, no backend to choose, no state that outlives a figure.
"""

import math
from collections.abc import Collection, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.ticker import AutoLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import blended_transform_factory

from adamlab.files import write_whole
from adamlab.records import Run

WIDTH, PANEL_HEIGHT, LEGEND_WIDTH, LINE_HEIGHT = 9.0, 2.35, 1.85, 0.185  # inches; 9 are 900 px of a README
TITLE = {"size": 11, "weight": "bold"}
DETAIL = {"size": 8.5, "color": "#404040"}
WARNING = {"size": 9, "weight": "bold", "color": "#b00020"}

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # matplotlib's own: the same on every machine
    "font.size": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#808080",
    "axes.titlesize": 9.5,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "xtick.color": "#808080",
    "ytick.color": "#808080",
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.markersize": 4,
    "savefig.dpi": 150,
    # The same records give the same file, byte for byte (with the date left out, in `save`).
    "svg.hashsalt": "adamlab",
    # Text as outlines: an image on a web page cannot count on the reader's fonts, and labels would move.
    "svg.fonttype": "path",
}


class Metric(NamedTuple):
    """How a number of the records is drawn: name, the axis' scale, upper end and unit, and what it is multiplied by."""

    label: str
    scale: str
    ceiling: float = math.inf
    unit: str = ""
    factor: float = 1

    @property
    def axis(self) -> str:
        """What stands beside the axis. A logarithmic one of less than a decade has the ticks of a linear one."""
        said = ", ".join(filter(None, [self.unit, "log scale" if self.scale == "log" else ""]))
        return f"{self.label}\n({said})" if said else self.label


# Guessing one of 10 classes costs ln 10 = 2.3, one of 1,000 costs 6.9. Far above that, a loss says "useless" whatever
# its number is; and while the running averages of BatchNorm lag behind a high learning rate, test losses reach 1e8,
# beside which nothing else could be told apart.
METRICS = {
    "train_loss": Metric("training loss", "log", ceiling=20, unit="nats"),
    "test_loss": Metric("test loss", "log", ceiling=20, unit="nats"),
    "test_accuracy": Metric("test accuracy", "linear", ceiling=100, unit="%", factor=100),
    "scaled_test_loss": Metric("test loss at the\nbest temperature", "log", ceiling=20, unit="nats"),
    "temperature": Metric("best temperature", "log"),
    # Loss flattening, as `adamlab.training.loop.train` measures it.
    "gradient_norm": Metric("gradient norm", "log"),
    "logit_norm": Metric("logit norm", "linear"),
    "weight_norm": Metric("weight norm,\nall kernels", "linear"),
    "angular_step": Metric("angular step", "log", unit="radians"),
    "hessian_eigenvalue": Metric("top Hessian\neigenvalue", "log"),
}

_BASE = {"linestyle": (0, (4, 1.6)), "linewidth": 1.3, "markerfacecolor": "white", "markersize": 5}
_LAWN = {"linestyle": "-", "linewidth": 1.7, "markersize": 5.5}
_ABLATION = {"linestyle": (0, (1, 1.2)), "linewidth": 1.5, "markerfacecolor": "white", "markersize": 6}
# The same in every figure: a hue and a marker per family; with LAWN dark, solid and filled, without it light, dashed
# and hollow, with its learning rate alone in between, dotted and with a marker of its own. In grey, lightness and
# markers tell them apart. Hues: Okabe and Ito (2008).
OPTIMIZER_STYLES: dict[str, dict[str, Any]] = {
    "adam": {"color": "#56a8e0", "marker": "o", **_BASE},
    "adam_lawn": {"color": "#00457a", "marker": "o", **_LAWN},
    "adam_three_phase": {"color": "#2879b5", "marker": "P", **_ABLATION},
    "adam_lawn_head": {"color": "#1b6ca0", "marker": "h", **_ABLATION},
    "adam_lawn_body": {"color": "#0f5690", "marker": "p", **_ABLATION},
    "adamw": {"color": "#00936b", "marker": "D", **_BASE},
    "adamp": {"color": "#c66fa3", "marker": "v", **_BASE},
    "sgd": {"color": "#e69f00", "marker": "s", **_BASE},
    "sgd_lawn": {"color": "#a33c00", "marker": "s", **_LAWN},
    "sgd_three_phase": {"color": "#cc6a10", "marker": "*", **_ABLATION},
    "lamb_lawn": {"color": "#5d2f86", "marker": "^", **_LAWN},
}

# Without the x, which says that a run diverged.
_MARKERS = "osD^vPph*"


def format_value(value: float) -> str:
    """A hyperparameter or a loss as people write it.

    >>> [format_value(value) for value in (0.0, 1e-5, 1.1e-3, 0.01, 0.99988, 1.0, 250000.0)]
    ['0', '1e-5', '1.1e-3', '0.01', '0.99988', '1', '2.5e5']
    """
    if value == 0 or 0.01 <= abs(value) < 1e4:
        return f"{value:.12g}"
    mantissa, exponent = f"{value:.11e}".split("e")
    return f"{float(mantissa):.12g}e{int(exponent)}"


def diverged_mark(look: dict[str, Any]) -> dict[str, Any]:
    """The properties of the x which says that a run diverged, from those of its curve."""
    on_top = {"linestyle": "", "zorder": 5, "clip_on": False, "in_layout": False}
    return look | on_top | {"marker": "x", "markersize": 9, "markeredgewidth": 2}


def curve_styles(values: Collection[float], default: float) -> dict[float, dict[str, Any]]:
    """Line properties of each value: colour from dark (low) to light (high), its own marker, the default thick.

    The colours are viridis' without its yellow end: readable for the colour-blind and, by lightness, in grey.
    """
    colours = colormaps["viridis"](np.linspace(0, 0.82, len(values)))
    styles = {}
    for rank, value in enumerate(sorted(values)):
        emphasis = {"linewidth": 2.6, "zorder": 2.5} if value == default else {"linewidth": 1.1, "zorder": 3}
        styles[value] = {"color": tuple(colours[rank]), "marker": _MARKERS[rank % len(_MARKERS)], **emphasis}
    return styles


def new_row(figure: Figure, places: Sequence[SubplotSpec], metric: str, share_y: bool = True) -> list[Axes]:
    """A row of axes for a metric, which share their limits, or those of x alone; the first one has the labels."""
    row: list[Axes] = []
    for place in places:
        first = row[0] if row else None
        sharey = first if share_y else None
        row.append(figure.add_subplot(place, sharex=first, sharey=sharey, yscale=METRICS[metric].scale))
        row[-1].tick_params(labelleft=sharey is None)
    row[0].set_ylabel(METRICS[metric].axis)
    return row


def finish_epochs(axes: Axes, first: float, runs: Sequence[Run]) -> None:
    """Limits of x, from `first` to the last epoch of `runs`, and ticks at whole epochs."""
    last = max(run.config.protocol.epochs for run in runs)
    margin = max(0.03 * last, 0.1)
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 5, 10]))


def finish_numbers(axes: Axes) -> None:
    """Ticks of y, for its limits and scale, as plain numbers.

    A logarithmic axis has them at 1, 2 and 5 of each decade, or of each decade alone if there are many; if it is
    shorter than a decade, where a linear axis has them.
    """
    logarithmic = axes.get_yscale() == "log"
    if logarithmic:
        low, high = axes.get_ylim()
        decades = np.log10(high / low)
        ticks = AutoLocator() if decades < 0.8 else LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,))
        axes.yaxis.set_major_locator(ticks)
        axes.yaxis.set_minor_locator(NullLocator())
    # On a linear axis, 0 may come as 1e-17.
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: format_value(y if logarithmic else round(y, 12))))


def place_legend(
    figure: Figure, axes: Axes, entries: Sequence[tuple[str, dict[str, Any]]], title: str, length: float = 1.8
) -> None:
    """A legend of labels and line properties, level with the axes, at the right edge of the figure."""
    legend = axes.legend(
        [Line2D([], [], **style) for _, style in entries],
        [label for label, _ in entries],
        title=title,
        loc="upper left",
        bbox_to_anchor=(1 - LEGEND_WIDTH / WIDTH, 1.05),
        bbox_transform=blended_transform_factory(figure.transFigure, axes.transAxes),
        alignment="left",
        borderaxespad=0,
        handlelength=length,
    )
    legend.set_in_layout(False)


def new_figure(heading: Sequence[tuple[str, dict[str, Any]]], rows: int, panel_height: float = PANEL_HEIGHT) -> Figure:
    """An empty figure for `rows` rows of panels below a heading: lines of text with their properties."""
    top = LINE_HEIGHT * (len(heading) + 0.6)
    height = top + panel_height * rows
    figure = Figure(figsize=(WIDTH, height))
    area = (0, 0, 1 - LEGEND_WIDTH / WIDTH, 1 - top / height)
    figure.set_layout_engine("constrained", rect=area, h_pad=0.06, w_pad=0.06)
    for number, (text, properties) in enumerate(heading, start=1):
        figure.text(0.008, 1 - LINE_HEIGHT * number / height, text, va="baseline", **properties)
    return figure


def save(figure: Figure, path: Path) -> list[Path]:
    """Writes `path`.png and `path`.svg, each whole or not at all, and returns both paths.

    Raises:
      OSError: A file cannot be written.
    """
    paths = [path.with_name(f"{path.name}.{suffix}") for suffix in ("png", "svg")]
    for file, metadata in zip(paths, (None, {"Date": None}), strict=True):
        drawn = BytesIO()
        figure.savefig(drawn, format=file.suffix[1:], metadata=metadata)
        write_whole(file, drawn.getvalue())
    return paths
