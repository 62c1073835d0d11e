"""What the optimizers are called, which hyperparameters each has, where they start, and the papers' grids.

Here and in records, hyperparameters carry the papers' names (alpha, beta1, beta2, epsilon); `adamlab.optim` carries
Optax's. `training/optimizers.py` maps the one to the other.
"""

import math
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import NamedTuple


class ConfigError(ValueError):
    """A value that cannot be run. The message is one line: what was received, and what would be accepted."""


def choose(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ConfigError unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def set_count(config: object, name: str, low: int) -> None:
    """Makes a number of a configuration one of Python's, since JSON has none of NumPy's.

    Raises:
      ConfigError: It is none, below `low`, or more than the int32 that counts steps and seeds on a device.
    """
    value = getattr(config, name)
    if not isinstance(value, Integral):
        raise ConfigError(f"{name} must be a whole number, got {value!r}")
    if value < low:
        raise ConfigError(f"{name} must be at least {low}, got {value}")
    if int(value) >= 2**31:
        raise ConfigError(f"{name} must be below 2**31, got {value}")
    object.__setattr__(config, name, int(value))


@dataclass(frozen=True)
class Hyperparameters:
    """An optimizer's hyperparameters. The defaults are those of Adam as Kingma and Ba (2017) have it.

    Args:
      alpha: Learning rate, > 0: at every step of a constant schedule, at the end of the warm-up of a phased one.
      beta1: Decay rate of the first moment, in [0, 1); SGD's momentum.
      beta2: Decay rate of the second moment, in [0, 1).
      epsilon: Offset of the denominator, >= 0.
      weight_decay: Factor of the weights, >= 0: added to gradients by adam, sgd and, in the free phase, sgd_lawn and
        sgd_three_phase; decoupled from them, and multiplied by the learning rate, in adamw and adamp.
      free_epochs: Length of the free phase, >= 0, in epochs: of LAWN and, in a phased schedule, of its learning rate.
      warmup_epochs: Length of the warm-up of a phased schedule, >= 0, in epochs.

    Raises:
      ConfigError: A value is out of range or not a finite number.

    >>> Hyperparameters(beta1=1.0)
    Traceback (most recent call last):
    adamlab.hyperparameters.ConfigError: beta1 must be in [0, 1), got 1.0
    """

    alpha: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    free_epochs: float = 0.0
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not isinstance(value := getattr(self, field.name), Real):
                raise ConfigError(f"{field.name} must be a number, got {value!r}")
            try:  # 1 and 1.0 are equal, and so are the names of their runs
                object.__setattr__(self, field.name, float(value))
            except OverflowError:
                raise ConfigError(f"{field.name} must be a number that a float holds, got one beyond 1.8e308") from None
        if not 0 < self.alpha < math.inf:
            raise ConfigError(f"alpha must be a finite number > 0, got {self.alpha}")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            if not 0 <= value < 1 - 2**-25:
                rounded = ", which float32 rounds to 1" if 0 < value < 1 else ""
                raise ConfigError(f"{name} must be in [0, 1), got {value}{rounded}")
        for name in ("epsilon", "weight_decay", "free_epochs", "warmup_epochs"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be a finite number >= 0, got {getattr(self, name)}")
        for name in ("alpha", "epsilon", "weight_decay"):
            value = getattr(self, name)
            if value and not 2.0**-126 <= value <= (2 - 2**-23) * 2.0**127:
                raise ConfigError(f"{name} must be a number that float32 holds, from 1.2e-38 to 3.4e38, got {value}")


class Optimizer(NamedTuple):
    """What belongs to an optimizer's name.

    Args:
      title: How the papers write it.
      names: The hyperparameters that it has, besides those of the schedule.
      defaults: Their values where nothing else is said; where a study varies one of them, the centre of its grid.
    """

    title: str
    names: tuple[str, ...]
    defaults: Hyperparameters

    @property
    def has_free_phase(self) -> bool:
        """Whether it is a LAWN variant, or has the learning rate of one."""
        return "free_epochs" in self.names


_ADAM = ("alpha", "beta1", "beta2", "epsilon")
# "simply setting it to just a few epochs works well" (LAWN paper, section 2); one is a few where epochs are few.
_FREE = 1.0
OPTIMIZERS = {
    "adam": Optimizer("Adam", (*_ADAM, "weight_decay"), Hyperparameters()),
    "adam_lawn": Optimizer("Adam-LAWN", (*_ADAM, "free_epochs"), Hyperparameters(free_epochs=_FREE)),
    # All of its LAWN variant but the constraint: an ablation of ours, to tell that from the three phases.
    "adam_three_phase": Optimizer("Adam, three phases", (*_ADAM, "free_epochs"), Hyperparameters(free_epochs=_FREE)),
    # Which norms matter? Ablations of ours that hold the head's kernel alone, and all kernels but the head's.
    "adam_lawn_head": Optimizer("Adam-LAWN, head", (*_ADAM, "free_epochs"), Hyperparameters(free_epochs=_FREE)),
    "adam_lawn_body": Optimizer("Adam-LAWN, body", (*_ADAM, "free_epochs"), Hyperparameters(free_epochs=_FREE)),
    # PyTorch's default decay.
    "adamw": Optimizer("AdamW", (*_ADAM, "weight_decay"), Hyperparameters(weight_decay=1e-2)),
    "adamp": Optimizer("AdamP", (*_ADAM, "weight_decay"), Hyperparameters()),
    # He et al. 2015 (arXiv:1512.03385), section 4.2, on CIFAR-10: 0.1, 0.9 and 1e-4.
    "sgd": Optimizer("SGD", ("alpha", "beta1", "weight_decay"), Hyperparameters(alpha=0.1, weight_decay=1e-4)),
    "sgd_lawn": Optimizer(
        "SGD-LAWN",
        ("alpha", "beta1", "weight_decay", "free_epochs"),
        Hyperparameters(alpha=0.1, weight_decay=1e-4, free_epochs=_FREE),
    ),
    "sgd_three_phase": Optimizer(
        "SGD, three phases",
        ("alpha", "beta1", "weight_decay", "free_epochs"),
        Hyperparameters(alpha=0.1, weight_decay=1e-4, free_epochs=_FREE),
    ),
    # You et al. 2020 (arXiv:1904.00962) have epsilon 1e-6; alpha is relative to a layer's norm.
    "lamb_lawn": Optimizer(
        "LAMB-LAWN", (*_ADAM, "free_epochs"), Hyperparameters(alpha=1e-2, epsilon=1e-6, free_epochs=_FREE)
    ),
}


# Of which LAWN variant an ablation has all but the constraint, or but a part of it.
ABLATIONS = {
    "adam_three_phase": "adam_lawn",
    "adam_lawn_head": "adam_lawn",
    "adam_lawn_body": "adam_lawn",
    "sgd_three_phase": "sgd_lawn",
}


def check_names(optimizer: str, hyperparameters: Hyperparameters) -> None:
    """Raises ConfigError unless the optimizer is known and has all that is set in `hyperparameters`.

    >>> check_names("sgd", Hyperparameters(beta2=0.99))
    Traceback (most recent call last):
    adamlab.hyperparameters.ConfigError: sgd has no beta2 (alpha, beta1, weight_decay), got 0.99
    """
    choose("optimizer", optimizer, tuple(OPTIMIZERS))
    names, defaults = OPTIMIZERS[optimizer].names, OPTIMIZERS[optimizer].defaults
    for field in fields(Hyperparameters):
        value = getattr(hyperparameters, field.name)
        if field.name not in (*names, "warmup_epochs") and value != getattr(defaults, field.name):
            raise ConfigError(f"{optimizer} has no {field.name} ({', '.join(names)}), got {value}")


# The sensitivity paper varies one hyperparameter at a time (section 3.3). Its text gives: five alphas,
# 1e-5, 1e-4 and the default among them; beta1 from 0.1 over 0.9 to one that is too high; epsilon up to 1. Inferred:
# the other values. Its figures' legends are not at hand. Ours alone: LAWN's free epochs, and other optimizers.
MAGNITUDE: dict[str, tuple[float, ...]] = {
    "alpha": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    "beta1": (0.1, 0.5, 0.9, 0.99, 0.999),
    "beta2": (0.1, 0.9, 0.99, 0.999, 0.9999),
    "epsilon": (1e-8, 1e-6, 1e-4, 1e-2, 1.0),
    "free_epochs": (0.0, 1.0, 2.0, 5.0, 10.0),
}

# "Relatively small perturbations centered around the default parameter values", none for epsilon (section 3.3). Their
# sizes are inferred. A decay rate is perturbed in its distance from 1, which sets the length of its average.
_FACTORS = (0.8, 0.9, 1.0, 1.1, 1.2)
PERTURBATION: dict[str, tuple[float, ...]] = {
    "alpha": tuple(round(1e-3 * factor, 12) for factor in _FACTORS),
    "beta1": tuple(round(1 - (1 - 0.9) * factor, 12) for factor in _FACTORS),
    "beta2": tuple(round(1 - (1 - 0.999) * factor, 12) for factor in _FACTORS),
}


def grid_of(optimizer: str, parameter: str, study: str) -> tuple[float, ...]:
    """The values of one hyperparameter in the `magnitude` or `perturbation` study of an optimizer.

    Alphas are relative to the optimizer's default, as the paper's are to Adam's; the default is always among the
    values. Empty if the optimizer or the study has no such hyperparameter.

    >>> grid_of("sgd", "alpha", "magnitude")
    (0.001, 0.01, 0.1, 1.0, 10.0)
    >>> grid_of("sgd", "beta2", "magnitude")
    ()
    """
    values = (MAGNITUDE if study == "magnitude" else PERTURBATION).get(parameter, ())
    if not values or parameter not in OPTIMIZERS[optimizer].names:
        return ()
    default = getattr(OPTIMIZERS[optimizer].defaults, parameter)
    if parameter == "alpha":
        values = tuple(float(f"{value / 1e-3 * default:.12g}") for value in values)
    return tuple(sorted({*values, default}))


def varied(optimizer: str, parameter: str, value: float) -> Hyperparameters:
    """The optimizer's defaults with one other value."""
    return replace(OPTIMIZERS[optimizer].defaults, **{parameter: value})
