"""Which runs a panel of the sensitivity figures shows: those that vary one hyperparameter of one optimizer."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from adamlab.hyperparameters import OPTIMIZERS, grid_of
from adamlab.records import Run

SYMBOLS = {
    "alpha": r"$\alpha$",
    "beta1": r"$\beta_1$",
    "beta2": r"$\beta_2$",
    "epsilon": r"$\epsilon$",
    "free_epochs": r"$E_{free}$",
}


def select(runs: list[Run], model: str, parameter: str, study: str, optimizer: str = "adam") -> list[Run]:
    """The runs of one panel: those that vary `parameter` alone, and the default setting, which all panels share.

    Args:
      runs: One study's runs.
      model: The panel's network.
      parameter: The hyperparameter that the panel varies.
      study: `perturbation` for the values in that grid; `magnitude` for all others. A user's own grid, which may
        meet some of the perturbed values, stays together as `magnitude`.
      optimizer: The panel's optimizer.

    Returns:
      The runs of which there is something to draw; none if the default setting is all there is.
    """
    defaults = OPTIMIZERS[optimizer].defaults
    default = getattr(defaults, parameter)

    def varies_alone(run: Run) -> bool:
        same = (run.config.model, run.config.optimizer) == (model, optimizer)
        return same and replace(run.config.hyperparameters, **{parameter: default}) == defaults

    by_value = group([run for run in runs if varies_alone(run)], parameter)
    magnitudes, perturbed = (set(grid_of(optimizer, parameter, name)) for name in ("magnitude", "perturbation"))
    if by_value.keys() - magnitudes - perturbed and not perturbed <= by_value.keys():
        perturbed = set()  # a grid of one's own met a few of them
    shown = [value for value in by_value if value == default or (value in perturbed) == (study == "perturbation")]
    panel = [run for value in shown for run in by_value[value] if run.epochs or run.outcome]
    return panel if any(run.config.hyperparameters != defaults for run in panel) else []


def lawn_notes(runs: Sequence[Run]) -> list[str]:
    """For a heading: how LAWN was trained, whose paper has three phases of the learning rate; empty without LAWN."""
    free = {run.config.hyperparameters.free_epochs for run in runs if OPTIMIZERS[run.config.optimizer].has_free_phase}
    lengths = " to ".join(f"{epochs:g}" for epochs in sorted({min(free), max(free)})) if free else ""
    return [f"LAWN: constant learning rate, {SYMBOLS['free_epochs']} {lengths} of the epochs"] if free else []


def own_scales(metric: str, rows: int, columns: int) -> list[str]:
    """For a heading: accuracies have one scale for the networks of a row, losses, which differ by a decade, do not."""
    what, count = ("rows", rows) if metric == "test_accuracy" else ("panels", rows * columns)
    return [f"{what} have scales of their own"] if count > 1 else []


def group(runs: list[Run], parameter: str) -> dict[float, list[Run]]:
    """The runs of each value of a hyperparameter, from low to high."""
    values = defaultdict(list)
    for run in runs:
        values[getattr(run.config.hyperparameters, parameter)].append(run)
    return dict(sorted(values.items()))
