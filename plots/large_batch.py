"""Draws the LAWN paper's figure 1, and what stands behind it, from records.

  python -m plots.large_batch results                          every study below results/
  python -m plots.large_batch results/cifar10-lawn-laptop      one study
  python -m plots.large_batch results --out=docs/figures       somewhere else

Each study (data set and protocol) gets its figures, as PNG and SVG: accuracy against batch size (figure 1), accuracy
and loss against the length of the free phase and, of networks in which it was measured, loss flattening over the
epochs. Only what was trained is drawn.

Source: Gupta et al., "Adam vs. SGD: Closing the generalization gap on image classification", figure 1, sections 2, 3.1.
"""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from adamlab.command import Parser, run_main
from adamlab.config import RunConfig
from adamlab.records import Run
from plots.cells import select
from plots.studies import draw_command, draw_studies

# matplotlib is imported where it is needed: --help does not wait for it.
if TYPE_CHECKING:
    from matplotlib.figure import Figure


def compose(runs: list[Run], configs: Collection[RunConfig] | None = None) -> "dict[str, Figure]":
    """The figures of one study, by the name of their files; those without runs are missing.

    Args:
      runs: One study's runs.
      configs: The runs of figure 1 and of loss flattening; None for all.
    """
    from plots import final, flattening

    if runs[0].config.protocol.schedule != "phases":
        return {}  # a sensitivity study's
    traced = [run for run in runs if flattening.traced(run)]
    # As claim L7 has it: weight decay would keep weights small as well.
    without = [run for run in traced if run.config.optimizer != "adam" or not run.config.hyperparameters.weight_decay]
    if any(run.config.optimizer == "adam" for run in without):
        traced = without
    figures = {
        "figure1-batch-size": final.compose_batch_size(*select(runs, configs)),
        "figure-free-epochs": final.compose_free_epochs(runs),
    } | flattening.compose(*select(traced, configs))
    return {name: figure for name, figure in figures.items() if figure is not None}


def draw(results: Path, out: Path | None = None, configs: Collection[RunConfig] | None = None) -> list[Path]:
    """Draws the figures of every study below `results`; none if there is nothing to compare.

    What it returns and its errors are those of `draw_studies`.

    Args:
      results, out: As there.
      configs: The runs of figure 1 and of loss flattening. Where they, or by default all runs, have several settings
        of one optimizer at one batch size, one is drawn, as `plots.cells.quality` ranks them, and the heading says so.
    """
    return draw_studies(results, out, lambda runs: compose(runs, configs))


def main() -> None:
    """Draws what the command line names, and prints the files."""
    draw_command(Parser("plots.large_batch", __doc__), draw, "no study below {} compares optimizers or batch sizes")


if __name__ == "__main__":
    run_main(main, "plots.large_batch")
