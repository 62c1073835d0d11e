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
      study: `perturbation` for the values in that grid; `magnitude` for all others, a user's own among them.
      optimizer: The panel's optimizer.

    Returns:
      The runs of which there is something to draw; none if the default setting is all there is.
    """
    defaults, perturbed = OPTIMIZERS[optimizer].defaults, grid_of(optimizer, parameter, "perturbation")
    default = getattr(defaults, parameter)
    panel = []
    for run in runs:
        value = getattr(run.config.hyperparameters, parameter)
        alone = replace(run.config.hyperparameters, **{parameter: default}) == defaults
        in_study = value == default or (value in perturbed) == (study == "perturbation")
        same = (run.config.model, run.config.optimizer) == (model, optimizer)
        if same and alone and in_study and (run.epochs or run.outcome):
            panel.append(run)
    return panel if any(run.config.hyperparameters != defaults for run in panel) else []


def lawn_notes(runs: Sequence[Run]) -> list[str]:
    """For a heading: how LAWN was trained, whose paper has three phases of the learning rate; empty without LAWN."""
    free = {run.config.hyperparameters.free_epochs for run in runs if OPTIMIZERS[run.config.optimizer].has_free_phase}
    lengths = " to ".join(f"{epochs:g}" for epochs in sorted({min(free), max(free)})) if free else ""
    return [f"LAWN: constant learning rate, {SYMBOLS['free_epochs']} {lengths} of the epochs"] if free else []


def group(runs: list[Run], parameter: str) -> dict[float, list[Run]]:
    """The runs of each value of a hyperparameter, from low to high."""
    values = defaultdict(list)
    for run in runs:
        values[getattr(run.config.hyperparameters, parameter)].append(run)
    return dict(sorted(values.items()))
