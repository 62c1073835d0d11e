"""What a run is: frozen dataclasses, validated when they are made, that turn into JSON and back.

Here and in records, hyperparameters carry the papers' names (alpha, beta1, beta2, epsilon); `adamlab.optim` carries
Optax's. `training/build.py` maps the one to the other.
"""

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self


class ConfigError(ValueError):
    """A value that cannot be run. The message is one line: what was received, and what would be accepted."""


def choose(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ConfigError unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


@dataclass(frozen=True)
class Hyperparameters:
    """Adam's four hyperparameters, by default those of Kingma and Ba (2017).

    Args:
      alpha: Learning rate, > 0.
      beta1: Decay rate of the first moment, in [0, 1).
      beta2: Decay rate of the second moment, in [0, 1).
      epsilon: Offset of the denominator, >= 0.

    Raises:
      ConfigError: A value is out of range or not a finite number.

    >>> Hyperparameters(beta1=1.0)
    Traceback (most recent call last):
    adamlab.config.ConfigError: beta1 must be in [0, 1), got 1.0
    """

    alpha: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise ConfigError(f"alpha must be a finite number > 0, got {self.alpha}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.epsilon < math.inf:
            raise ConfigError(f"epsilon must be a finite number >= 0, got {self.epsilon}")


@dataclass(frozen=True)
class Protocol:
    """How much is trained on what.

    Args:
      name: `paper`, `laptop` or `smoke`; says where the other numbers started from.
      train_images: Images in the training set: the first ones of the data set's training split.
      test_images: Images in the test set: the first ones of its test split.
      batch_size: Images per step. A last, incomplete batch of an epoch is dropped.
      epochs: Passes over the training set.

    Raises:
      ConfigError: A number is below 1, or a batch is larger than the training set.
    """

    name: str
    train_images: int
    test_images: int
    batch_size: int = 100
    epochs: int = 15

    def __post_init__(self) -> None:
        for name in ("train_images", "test_images", "batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.batch_size > self.train_images:
            raise ConfigError(
                f"batch_size must be at most the number of training images, {self.train_images}, got {self.batch_size}"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Training steps in one epoch."""
        return self.train_images // self.batch_size


PROTOCOLS = {
    # Sensitivity paper, section 4: all of CIFAR-10, batch 100, 15 epochs, no augmentation.
    "paper": Protocol("paper", train_images=50_000, test_images=10_000, batch_size=100, epochs=15),
    # The alpha study of both nets in under 15 minutes on two CPU cores.
    "laptop": Protocol("laptop", train_images=3_000, test_images=1_000, batch_size=100, epochs=5),
    # Seconds, for tests and for trying out a command.
    "smoke": Protocol("smoke", train_images=200, test_images=100, batch_size=50, epochs=2),
}


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the numbers of one training run.

    Args:
      dataset: A data set's name, never "auto": a run knows what it was trained on.
      model: A name that `adamlab.models.create` knows.
      protocol: How much is trained on what.
      hyperparameters: Adam's.
      seed: Decides initial weights and the order of the images; runs that differ in hyperparameters alone share both.
      stem: The ResNets' first layers, `imagenet` or `cifar`; None for a model without that choice.
      downsample: Where plain20 strides, `last` or `first` layer of a set; None for a model without that choice.
      precision: Of activations, `float32` or `bf16`; parameters are always float32.
      epsilon_placement: `outside` the root (PyTorch's Adam, what the paper ran) or `inside` (Algorithm 1 as printed).

    Raises:
      ConfigError: A value is none of the above.
    """

    dataset: str
    model: str
    protocol: Protocol
    hyperparameters: Hyperparameters = field(default_factory=Hyperparameters)
    seed: int = 0
    stem: str | None = None
    downsample: str | None = None
    precision: str = "float32"
    epsilon_placement: str = "outside"

    def __post_init__(self) -> None:
        if self.stem is not None:
            choose("stem", self.stem, ("imagenet", "cifar"))
        if self.downsample is not None:
            choose("downsample", self.downsample, ("last", "first"))
        choose("precision", self.precision, ("float32", "bf16"))
        choose("epsilon_placement", self.epsilon_placement, ("outside", "inside"))
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"seed must be in [0, 2**31), got {self.seed}")

    @property
    def setting(self) -> str:
        """The hyperparameters that differ from the defaults, as one readable word.

        >>> RunConfig("digits", "plain20", PROTOCOLS["smoke"], Hyperparameters(alpha=0.01)).setting
        'alpha=0.01'
        >>> RunConfig("digits", "plain20", PROTOCOLS["smoke"]).setting
        'default'
        """
        defaults = asdict(Hyperparameters())
        changed = {k: v for k, v in asdict(self.hyperparameters).items() if v != defaults[k]}
        return ",".join(f"{name}={value}" for name, value in changed.items()) or "default"

    def to_dict(self) -> dict[str, Any]:
        """A nested dictionary that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises ConfigError for missing, unknown or misplaced entries."""
        try:
            nested = {
                "protocol": Protocol(**values["protocol"]),
                "hyperparameters": Hyperparameters(**values["hyperparameters"]),
            }
            return cls(**(values | nested))
        except (KeyError, TypeError) as error:
            raise ConfigError(f"not a run's configuration: {error}") from None


def difference(ours: RunConfig, theirs: RunConfig) -> str:
    """The entries in which two configurations differ, e.g. `epochs 8 here, 5 there`; empty if they are equal."""
    flat_ours, flat_theirs = flatten(ours.to_dict()), flatten(theirs.to_dict())
    return ", ".join(
        f"{name} {flat_ours[name]} here, {flat_theirs[name]} there"
        for name in flat_ours
        if flat_ours[name] != flat_theirs[name]
    )


def flatten(config: dict[str, Any]) -> dict[str, Any]:
    """One level of names: the protocol's name becomes `protocol`, its numbers and the hyperparameters stand alone."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if name == "protocol":
            flat |= {"protocol" if key == "name" else key: entry for key, entry in value.items()}
        elif isinstance(value, dict):
            flat |= value
        else:
            flat[name] = value
    return flat


def override(protocol: Protocol, **numbers: int | None) -> Protocol:
    """The protocol with those numbers that are not None."""
    known = {f.name for f in fields(Protocol)}
    return replace(protocol, **{k: v for k, v in numbers.items() if k in known and v is not None})


# The sensitivity paper varies one hyperparameter at a time (section 3.3). Its text gives: five alphas in steps of ten,
# 1e-5, 1e-4 and the default among them; beta1 from 0.1 over 0.9 to one that is too high; epsilon up to 1. Inferred:
# the other values. Its figures' legends are not at hand.
MAGNITUDE: dict[str, tuple[float, ...]] = {
    "alpha": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    "beta1": (0.1, 0.5, 0.9, 0.99, 0.999),
    "beta2": (0.1, 0.9, 0.99, 0.999, 0.9999),
    "epsilon": (1e-8, 1e-6, 1e-4, 1e-2, 1.0),
}

# "Relatively small perturbations centered around the default parameter values", none for epsilon (section 3.3). Their
# sizes are inferred. A decay rate is perturbed in its distance from 1, which sets the length of its average.
_FACTORS = (0.8, 0.9, 1.0, 1.1, 1.2)
PERTURBATION: dict[str, tuple[float, ...]] = {
    "alpha": tuple(round(1e-3 * factor, 12) for factor in _FACTORS),
    "beta1": tuple(round(1 - (1 - 0.9) * factor, 12) for factor in _FACTORS),
    "beta2": tuple(round(1 - (1 - 0.999) * factor, 12) for factor in _FACTORS),
}
