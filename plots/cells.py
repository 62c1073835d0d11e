"""Which runs a point of a large-batch figure stands for: those of one setting, which differ in their seed alone."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

from adamlab.claims.lawn import best
from adamlab.config import RunConfig
from adamlab.hyperparameters import OPTIMIZERS
from adamlab.records import Run


class Cell(NamedTuple):
    """What is compared: a point of figure 1."""

    model: str
    optimizer: str
    batch_size: int

    @property
    def title(self) -> str:
        """The optimizer and the batch size, in the words of a legend."""
        return f"{OPTIMIZERS[self.optimizer].title}, {self.batch_size:,}"


def cell_of(run: Run) -> Cell:
    """Where a run belongs."""
    return Cell(run.config.model, run.config.optimizer, run.config.protocol.batch_size)


def rank(cell: Cell) -> tuple[str, int, int]:
    """Sorts cells: by network, as `OPTIMIZERS` are, from small to large batches."""
    return cell.model, list(OPTIMIZERS).index(cell.optimizer), cell.batch_size


def final(runs: Sequence[Run], metric: str) -> list[float]:
    """A metric of the last epoch of each run that finished."""
    return [run.epochs[-1][metric] for run in runs if run.ending == "finished"]


def quality(runs: Sequence[Run]) -> tuple[int, float]:
    """By which settings of a cell are ranked, in figures as by the claims: seeds that ended, then mean accuracy."""
    return best({run.config.seed: run for run in runs if run.outcome})


def select(runs: Sequence[Run], configs: Collection[RunConfig] | None = None) -> tuple[dict[Cell, list[Run]], bool]:
    """The setting of each network, optimizer and batch size.

    Args:
      runs: One study's runs.
      configs: What to choose among; None for all.

    Returns:
      For each cell the runs of one setting, one per seed: of several, the best one by `quality`; and whether there
      were several.
    """
    settings: dict[Cell, dict[RunConfig, list[Run]]] = defaultdict(lambda: defaultdict(list))
    wanted = None if configs is None else set(configs)
    for run in runs:
        if (wanted is None or run.config in wanted) and (run.epochs or run.outcome):
            settings[cell_of(run)][run.without_seed].append(run)
    cells = {cell: max(settings[cell].values(), key=quality) for cell in sorted(settings, key=rank)}
    return cells, any(len(candidates) > 1 for candidates in settings.values())


def select_free_epochs(runs: Sequence[Run]) -> tuple[dict[Cell, dict[float, list[Run]]], bool]:
    """For each cell with a free phase, its runs by `free_epochs`, from low to high, equal in all else.

    Args:
      runs: One study's runs.

    Returns:
      The cells with at least two values. Of several settings, that with most values and, among those, that with the
      best cell by `quality`; and whether there were several.
    """
    groups: dict[Cell, dict[RunConfig, dict[float, list[Run]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for run in runs:
        if OPTIMIZERS[run.config.optimizer].has_free_phase and (run.epochs or run.outcome):
            hyperparameters = run.config.hyperparameters
            others = replace(run.without_seed, hyperparameters=replace(hyperparameters, free_epochs=0.0))
            groups[cell_of(run)][others][hyperparameters.free_epochs].append(run)
    cells, several = {}, False
    for cell in sorted(groups, key=rank):
        lines = [dict(sorted(line.items())) for line in groups[cell].values() if len(line) > 1]
        if lines:
            cells[cell] = max(lines, key=lambda line: (len(line), max(map(quality, line.values()))))
            several = several or len(lines) > 1
    return cells, several
