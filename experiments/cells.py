"""The cells of the LAWN paper's tables: with which hyperparameters we train them.

The paper says which hyperparameters were tuned, but not the values that tuning chose (appendix D of arXiv:2108.05839
is not at hand). So every number here says where it is from; `python -m experiments.large_batch --tune` looks for
better ones, which are then entered in `TUNED`.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from adamlab.hyperparameters import ABLATIONS, OPTIMIZERS, ConfigError, Hyperparameters
from adamlab.protocol import Protocol

# The rows of each table.
TABLES = {1: ("adamp", "adam_lawn"), 2: ("sgd", "sgd_lawn", "adam", "adam_lawn")}


class Cell(NamedTuple):
    """The hyperparameters of one cell and where they are from.

    Args:
      hyperparameters: As in `RunConfig`.
      origin: `literature`: from the source that is named; `tuned`: by us, with that grid and
        seed; `start`: ours and not tuned yet.
      source: Which source, or grid and seed.
    """

    hyperparameters: Hyperparameters
    origin: str
    source: str


_VGG_SGD = "github.com/bearpaw/pytorch-classification: 0.1 and 5e-4 at batch 128, for a VGG-19 with an error of 6.66 %"
_ADAM = "the default of Kingma and Ba 2017"
# "switching early to LAWN mode (i.e. fixing E_free to less than 10 epochs) usually works well" (section 3.1), of 300.
_PHASES = {"free_epochs": 5.0, "warmup_epochs": 10.0}
_BASE = {"warmup_epochs": 10.0}

# Where a cell starts from: at batch 256, SGD's at 128, of the protocol `lawn-paper`. What is not named is the
# optimizer's default: Adam's beta1 and beta2 are the paper's (footnote 4); epsilon, which it did not tune either
# (section 3), it does not print. LAMB's epsilon, SGD's momentum, the lengths of the phases, and that SGD-LAWN keeps its
# weight decay on CIFAR, as section 3.2 says of ImageNet, are ours.
_CIFAR = {
    "sgd": Cell(Hyperparameters(alpha=0.1, weight_decay=5e-4, **_BASE), "literature", _VGG_SGD),
    "sgd_lawn": Cell(Hyperparameters(alpha=0.1, weight_decay=5e-4, **_PHASES), "literature", _VGG_SGD),
    "adam": Cell(Hyperparameters(weight_decay=5e-4, **_BASE), "literature", f"{_ADAM}; weight decay as SGD's"),
    "adam_lawn": Cell(Hyperparameters(**_PHASES), "literature", _ADAM),
    "adamw": Cell(Hyperparameters(weight_decay=1e-2, **_BASE), "literature", f"{_ADAM}; PyTorch's weight decay"),
    "adamp": Cell(Hyperparameters(weight_decay=1e-2, **_BASE), "literature", "example in github.com/clovaai/AdamP"),
    "lamb_lawn": Cell(Hyperparameters(alpha=1e-2, epsilon=1e-6, **_PHASES), "start", "not tuned"),
}

# For photographs, at batch 256 of 90 epochs on ImageNet.
_GOYAL = "Goyal et al. 2017, arXiv:1706.02677, section 5.1: 0.1, 1e-4 and 5 epochs of warm-up, for ResNet-50"
_WARM = {"warmup_epochs": 5.0}
_FREE = {"free_epochs": 2.0, **_WARM}
_PHOTOGRAPHS = {
    "sgd": Cell(Hyperparameters(alpha=0.1, weight_decay=1e-4, **_WARM), "literature", _GOYAL),
    "sgd_lawn": Cell(Hyperparameters(alpha=0.1, weight_decay=1e-4, **_FREE), "literature", _GOYAL),
    "adam": Cell(Hyperparameters(weight_decay=1e-4, **_WARM), "literature", f"{_ADAM}; weight decay as SGD's"),
    "adam_lawn": Cell(Hyperparameters(**_FREE), "literature", _ADAM),
    "adamw": Cell(Hyperparameters(weight_decay=1e-2, **_WARM), "literature", f"{_ADAM}; PyTorch's weight decay"),
    "adamp": Cell(Hyperparameters(weight_decay=1e-2, **_WARM), "literature", "example in github.com/clovaai/AdamP"),
    "lamb_lawn": Cell(
        Hyperparameters(alpha=3.54e-3, epsilon=1e-6, **_FREE),
        "literature",
        "You et al. 2020, arXiv:1904.00962: 0.04 at batch 32k, by their square root rule",
    ),
}

# On a laptop they have no weight decay, so that an optimizer differs from its LAWN variant in the constraint and, as in
# the paper, in the schedule: two phases, and three. AdamW without any would be Adam.
_LAPTOP, _LAPTOP_SGD = {"alpha": 3e-3, "warmup_epochs": 2.0}, {"alpha": 6e-2, "warmup_epochs": 2.0}
_AT_50 = {
    "adam": Cell(Hyperparameters(**_LAPTOP), "start", "not tuned"),
    "adam_lawn": Cell(Hyperparameters(free_epochs=2.0, **_LAPTOP), "start", "not tuned"),
    "adamp": Cell(Hyperparameters(**_LAPTOP), "start", "not tuned"),
    "adamw": Cell(Hyperparameters(weight_decay=1e-2, **_LAPTOP), "start", "not tuned"),
    "lamb_lawn": Cell(
        Hyperparameters(alpha=4e-3, epsilon=1e-6, free_epochs=2.0, warmup_epochs=2.0), "start", "not tuned"
    ),
    "sgd": Cell(Hyperparameters(**_LAPTOP_SGD), "start", "not tuned"),
    "sgd_lawn": Cell(Hyperparameters(free_epochs=2.0, **_LAPTOP_SGD), "start", "not tuned"),
}

# By protocol, data set and network, then by optimizer and batch size, found with `--tune`; they go before the starting
# points.
_HELD_OUT = "on plain20 and CIFAR-10, seed 0, 2,000 held-out training images"
_GRIDS = {
    ("adam", 50): (3e-3, "3.33e-4, 1e-3, 3e-3, 9e-3"),
    ("adam", 250): (6.71e-3, "7.47e-4, 2.24e-3, 6.71e-3, 2.01e-2"),
    ("adam_lawn", 50): (3e-3, "1e-3, 3e-3, 9e-3"),
    ("adam_lawn", 250): (6.71e-3, "2.24e-3, 6.71e-3, 2.01e-2"),
    ("sgd", 50): (6e-2, "0.02, 0.06, 0.18"),
    ("sgd", 250): (0.134, "0.0447, 0.134, 0.402"),
    ("sgd_lawn", 50): (6e-2, "0.02, 0.06, 0.18"),
    ("sgd_lawn", 250): (0.402, "0.0447, 0.134, 0.402, 1.21"),
}
TUNED: dict[tuple[str, str, str], dict[tuple[str, int], Cell]] = {
    ("lawn-laptop", "cifar10", "plain20"): {
        (name, size): Cell(replace(_AT_50[name].hyperparameters, alpha=alpha), "tuned", f"alpha in {grid} {_HELD_OUT}")
        for (name, size), (alpha, grid) in _GRIDS.items()
    }
}


def cell(dataset: str, model: str, protocol: Protocol, optimizer: str, batch_size: int) -> Cell:
    """What a cell is trained with: what tuning found on this data set and network, if the phases fit, else its start.
    An ablation has all of its LAWN variant's.

    Args:
      dataset: As in `RunConfig`.
      model: Likewise.
      protocol: Its name, epochs and image size matter.
      optimizer: A name in `OPTIMIZERS`.
      batch_size: Images per step.
    """
    optimizer = ABLATIONS.get(optimizer, optimizer)
    tuned = TUNED.get((protocol.name, dataset, model), {})
    if (optimizer, batch_size) in tuned and sum(_longest(tuned.values()).values()) < protocol.epochs:
        return tuned[optimizer, batch_size]
    return starting_point(protocol, optimizer, batch_size)


def starting_point(protocol: Protocol, optimizer: str, batch_size: int) -> Cell:
    """The centre of a cell's tuning grid; arguments as there.

    Alpha follows the square root rule, alpha(B) = alpha(B0) sqrt(B / B0) (Krizhevsky 2014, arXiv:1404.5997, for SGD;
    Malladi et al. 2022, arXiv:2205.10287, for Adam), but SGD's on photographs the linear one, alpha(B0) B / B0, of its
    source. The phases keep their share of the epochs, and last an epoch at least where that fits; on a laptop their
    length, where that fits, as the cells have it that were tuned.

    >>> from adamlab.protocol import PROTOCOLS
    >>> starting_point(PROTOCOLS["lawn-paper"], "adam_lawn", 4096).hyperparameters.alpha
    0.004
    """
    optimizer = ABLATIONS.get(optimizer, optimizer)
    is_sgd, rule, power = "beta2" not in OPTIMIZERS[optimizer].names, "square root", 0.5
    if protocol.name == "lawn-laptop":
        starts, usual_batch, share = _AT_50, 50, 1.0
    elif protocol.image_size is not None:
        starts, usual_batch, share = _PHOTOGRAPHS, 256, protocol.epochs / 90
        if is_sgd:
            rule, power = "linear", 1.0
    else:
        starts, usual_batch, share = _CIFAR, 128 if is_sgd else 256, protocol.epochs / 300
    if optimizer not in starts:
        known = ", ".join(starts)
        raise ConfigError(f"optimizer must have a starting point in experiments/cells.py ({known}), got {optimizer}")
    start = starts[optimizer]
    h = start.hyperparameters
    alpha = float(f"{h.alpha * (batch_size / usual_batch) ** power:.3g}")
    source = start.source if batch_size == usual_batch else f"{start.source}; alpha by the {rule} rule"
    lengths = {name: max(1.0, round(length * share, 3)) for name, length in _longest(starts.values()).items()}
    if sum(lengths.values()) >= protocol.epochs:  # of so short a training a quarter each
        lengths = dict.fromkeys(lengths, protocol.epochs / 4)
    phases = {name: length if getattr(h, name) else 0.0 for name, length in lengths.items()}
    return Cell(replace(h, alpha=alpha, **phases), start.origin, source)


def _longest(cells: Collection[Cell]) -> dict[str, float]:
    """The phases of the cell that has most: an optimizer has the warm-up of its LAWN variant, so both must fit."""
    names = ("free_epochs", "warmup_epochs")
    return {name: max(getattr(cell.hyperparameters, name) for cell in cells) for name in names}
