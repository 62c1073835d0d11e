"""What a run is: a frozen dataclass, validated when it is made, that turns into JSON and back."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from adamlab.hyperparameters import ABLATIONS, OPTIMIZERS, ConfigError, Hyperparameters, check_names, choose, set_count
from adamlab.protocol import PROTOCOLS, Protocol

# Training images on which `trace_every` measures loss flattening. A Hessian-vector product costs a few gradients, and
# an eigenvalue takes many of them.
PROBE = 100
# Of networks that have several; None stands for the first.
VARIANTS = {"stem": ("imagenet", "cifar"), "downsample": ("last", "first")}


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the numbers of one training run.

    Args:
      dataset: A data set's name, never "auto": a run knows what it was trained on.
      model: A name that `adamlab.models.create` knows.
      protocol: How much is trained on what.
      hyperparameters: The optimizer's.
      seed: Decides initial weights and the order of the images; runs that differ in hyperparameters or optimizer alone
        share both.
      stem: The ResNets' first layers, `imagenet`, which is what None means, or `cifar`; None for other models.
      downsample: Where plain20 strides, `last`, which is what None means, or `first` layer of a set; None for others.
      precision: Of activations, `float32` or `bf16`; parameters are always float32.
      epsilon_placement: `outside` the root (PyTorch's Adam, what the paper ran) or `inside` (Algorithm 1 as printed).
      optimizer: A key of `OPTIMIZERS`.
      trace_every: Epochs between two measurements of loss flattening; 0 for none.
      microbatch: Images of a batch that are in memory, and seen by BatchNorm, at once; None for all of them.
      norm_group: Images over which BatchNorm averages, where each device does so on its own (ghost batch normalisation,
        Hoffer et al. 2017, arXiv:1705.08741); None for all that are seen at once, however many devices there are.

    Raises:
      ConfigError: A value is none of the above, a batch does not divide, the optimizer lacks a hyperparameter that is
        set or that place of epsilon, a constant learning rate meets a warm-up or an ablation, or the phases leave no
        step for the decay. Data set and model are refused by what loads and makes them.
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
    optimizer: str = "adam"
    trace_every: int = 0
    microbatch: int | None = None
    norm_group: int | None = None

    def __post_init__(self) -> None:
        for name, choices in VARIANTS.items():
            if (value := getattr(self, name)) is not None:
                choose(name, value, choices)
            if value == choices[0]:  # the default, spelled out: the same run, as with the sizes below
                object.__setattr__(self, name, None)
        choose("precision", self.precision, ("float32", "bf16"))
        choose("epsilon_placement", self.epsilon_placement, ("outside", "inside"))
        set_count(self, "seed", 0)
        set_count(self, "trace_every", 0)
        for name in ("microbatch", "norm_group"):
            if getattr(self, name) is not None:
                set_count(self, name, 1)
        check_division(self.protocol.batch_size, self.piece)
        if self.norm_group is not None and self.piece % self.norm_group:
            raise ConfigError(f"norm_group must divide the {self.piece} images seen at once, got {self.norm_group}")
        for name, whole in (("norm_group", self.piece), ("microbatch", self.protocol.batch_size)):
            if getattr(self, name) == whole:
                object.__setattr__(self, name, None)
        check_names(self.optimizer, self.hyperparameters)
        having = [name for name in OPTIMIZERS if ABLATIONS.get(name, name) in ("adam", "adam_lawn", "adamw")]
        if self.epsilon_placement == "inside" and self.optimizer not in having:
            raise ConfigError(f"epsilon_placement inside is for {', '.join(having)}, got {self.optimizer}")
        if self.protocol.schedule == "constant" and self.optimizer in ABLATIONS:
            raise ConfigError(f"{self.optimizer} needs a learning rate in phases, got a constant one")
        self._check_phases()

    def _check_phases(self) -> None:
        free, warmup = self.hyperparameters.free_epochs, self.hyperparameters.warmup_epochs
        epochs = self.protocol.epochs
        if free > epochs:
            raise ConfigError(f"free_epochs must be at most the {epochs} epochs, got {free}")
        if self.protocol.schedule == "constant" and warmup:
            raise ConfigError(f"warmup_epochs must be 0 for a constant learning rate, got {warmup}")
        # In whole steps, as training has it; the first comparison keeps infinity from being rounded.
        steps = self.protocol.steps_per_epoch
        too_long = warmup > epochs or round(free * steps) + round(warmup * steps) >= self.protocol.total_steps
        if self.protocol.schedule == "phases" and too_long:
            raise ConfigError(
                f"free_epochs + warmup_epochs must be less than the {epochs} epochs, got {free} + {warmup}"
            )

    @property
    def piece(self) -> int:
        """Images of a batch that are seen at once, by all devices together."""
        return self.protocol.batch_size if self.microbatch is None else self.microbatch

    @property
    def setting(self) -> str:
        """What differs from Adam's default setting, as one readable word.

        In a study of batch sizes, one with a phased schedule, also a batch that is not the protocol's usual one.

        >>> RunConfig("digits", "plain20", PROTOCOLS["smoke"], Hyperparameters(alpha=0.01)).setting
        'alpha=0.01'
        >>> RunConfig("digits", "plain20", PROTOCOLS["smoke"]).setting
        'default'
        """
        defaults, usual = asdict(OPTIMIZERS[self.optimizer].defaults), PROTOCOLS.get(self.protocol.name)
        changed = {name: value for name, value in asdict(self.hyperparameters).items() if value != defaults[name]}
        words = [] if self.optimizer == "adam" else [self.optimizer]
        if usual and usual.schedule == "phases" and self.protocol.batch_size != usual.batch_size:
            words.append(f"batch={self.protocol.batch_size}")
        words += [f"{name}={value}" for name, value in changed.items()]
        return ",".join(words) or "default"

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
    flat_ours, flat_theirs = (flatten(config.to_dict()) for config in (ours, theirs))
    for flat in (flat_ours, flat_theirs):
        flat |= {name: flat[name] or choices[0] for name, choices in VARIANTS.items()}
    return ", ".join(
        f"{name} {flat_ours[name]} here, {flat_theirs[name]} there"
        for name in flat_ours
        if flat_ours[name] != flat_theirs[name]
    )


def check_division(batch_size: int, piece: int, devices: int = 1) -> None:
    """Raises ConfigError, which names the nearest sizes that do, unless pieces and devices divide a batch.

    >>> check_division(100, 100, devices=8)
    Traceback (most recent call last):
    adamlab.hyperparameters.ConfigError: batch_size must be a multiple of the 8 devices, such as 96 or 104, got 100
    """
    if batch_size % piece:
        nearest = _nearest(piece, [size for size in range(1, batch_size + 1) if batch_size % size == 0])
        raise ConfigError(f"microbatch must divide the batch of {batch_size}, such as {nearest}, got {piece}")
    if piece % devices:
        name = "batch_size" if piece == batch_size else "microbatch"
        accepted = range(devices, piece + devices + 1, devices)
        if piece < batch_size:
            accepted = [size for size in range(devices, batch_size + 1, devices) if batch_size % size == 0]
        nearest = f", such as {_nearest(piece, accepted)}" if accepted else ""
        raise ConfigError(f"{name} must be a multiple of the {devices} devices{nearest}, got {piece}")


def _nearest(value: int, accepted: Sequence[int]) -> str:
    """`96 or 104`: the greatest below and the least above a value."""
    below, above = [x for x in accepted if x < value], [x for x in accepted if x > value]
    return " or ".join(str(x) for x in [*below[-1:], *above[:1]])


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
