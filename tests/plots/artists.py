"""What a figure shows, read off its artists."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure


def panels(figure: Figure) -> dict[str, Axes]:
    """Axes by title."""
    return {axes.get_title(): axes for axes in figure.axes}


def curves(axes: Axes) -> dict[str, np.ndarray]:
    """What is drawn as a curve: (epochs, 2) numbers by label."""
    return {str(line.get_label()): line.get_xydata() for line in axes.lines if line.get_linestyle() == "-"}


def legend(axes: Axes) -> list[str]:
    box = axes.get_legend()
    return [text.get_text() for text in box.get_texts()] if box else []


def heading(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.texts)


def points(axes: Axes) -> dict[str, np.ndarray]:
    """(points, 4) by label: x, mean, lower and upper end of the bar, not a number without one."""
    drawn = {}
    for container in axes.containers:
        assert isinstance(container, ErrorbarContainer)
        line, _, (bars,) = container.lines
        ends = [segment[:, 1] if len(segment) else (np.nan, np.nan) for segment in bars.get_segments()]
        drawn[container.get_label()] = np.column_stack([line.get_xydata(), np.reshape(ends, (-1, 2))])
    return drawn
