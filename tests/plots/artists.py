"""What a figure shows, read off its artists."""

import numpy as np
from matplotlib.axes import Axes
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
