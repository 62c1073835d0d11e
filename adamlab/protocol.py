"""How much is trained on what, and how: the papers' protocols, and smaller ones."""

from dataclasses import dataclass, replace
from typing import Any, Self

from adamlab.hyperparameters import ConfigError, choose, set_count


@dataclass(frozen=True)
class Protocol:
    """How much is trained on what, and how.

    Args:
      name: A key of `PROTOCOLS`; says where the other entries started from.
      train_images: Images in the training set: the first ones of the data set's training split.
      test_images: Images to evaluate on: the first ones of its test split, or the last ones of its training split.
      batch_size: Images per step. A last, incomplete batch of an epoch is dropped.
      epochs: Passes over the training set.
      schedule: `constant`, or `phases`: warm-up and decay, after a constant free phase where there is one.
      augment: Whether training images are cropped and flipped at random.
      image_size: Side in pixels to which photographs are cut; None for images that have one size.
      evaluate_on: `test`, or `validation`: images held out of the training split, for tuning.

    Raises:
      ConfigError: A number is not whole or is below 1, a batch is larger than the training set, or a word is none of
        the above.
    """

    name: str
    train_images: int
    test_images: int
    batch_size: int = 100
    epochs: int = 15
    schedule: str = "constant"
    augment: bool = False
    evaluate_on: str = "test"
    image_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("train_images", "test_images", "batch_size", "epochs"):
            set_count(self, name, 1)
        if self.batch_size > self.train_images:
            raise ConfigError(
                f"batch_size must be at most the number of training images, {self.train_images}, got {self.batch_size}"
            )
        if self.image_size is not None:
            set_count(self, "image_size", 1)
        choose("schedule", self.schedule, ("constant", "phases"))
        choose("evaluate_on", self.evaluate_on, ("test", "validation"))

    @property
    def steps_per_epoch(self) -> int:
        """Training steps in one epoch."""
        return self.train_images // self.batch_size

    @property
    def total_steps(self) -> int:
        """Training steps in all epochs."""
        return self.epochs * self.steps_per_epoch

    @property
    def shared(self) -> Self:
        """What the runs of a study have in common: all, or where they vary the batch all but that, which is 1 then."""
        return replace(self, batch_size=1) if self.schedule == "phases" else self


_LAWN: dict[str, Any] = {"schedule": "phases", "augment": True}
PROTOCOLS = {
    # Sensitivity paper, section 4: all of CIFAR-10, batch 100, 15 epochs, no augmentation.
    "paper": Protocol("paper", train_images=50_000, test_images=10_000, batch_size=100, epochs=15),
    # The alpha study of both nets in four minutes to half an hour on two CPU cores.
    "laptop": Protocol("laptop", train_images=3_000, test_images=1_000, batch_size=100, epochs=5),
    # Seconds, for tests and for trying out a command.
    "smoke": Protocol("smoke", train_images=200, test_images=100, batch_size=50, epochs=2),
    # LAWN paper, section 3: CIFAR at batch 256, 4k and 10k, 300 epochs, phased learning rates. Inferred: crop and flip.
    "lawn-paper": Protocol("lawn-paper", 50_000, 10_000, batch_size=256, epochs=300, **_LAWN),
    # Small enough for two CPU cores, small and long enough that training losses get near 0: no augmentation.
    "lawn-laptop": Protocol("lawn-laptop", 2_000, 2_000, batch_size=50, epochs=20, schedule="phases"),
    "lawn-smoke": Protocol("lawn-smoke", 200, 100, batch_size=50, epochs=3, **_LAWN),
}
# What else a protocol is for photographs, such as ImageNet's: larger images, where there is time for them.
PHOTOGRAPHS: dict[str, dict[str, int]] = {
    "paper": {"image_size": 224},
    "laptop": {"image_size": 64},
    "smoke": {"image_size": 32},
    # LAWN paper, section 3.2: ImageNet at batch 256 and 16k, 90 epochs.
    "lawn-paper": {"train_images": 1_281_167, "test_images": 50_000, "epochs": 90, "image_size": 224},
    "lawn-laptop": {"image_size": 64},
    "lawn-smoke": {"image_size": 32},
}


def tuning(protocol: Protocol, available: int) -> Protocol:
    """The protocol on which a study is tuned: evaluated on training images that it does not train on.

    Args:
      protocol: That of the study.
      available: Images in the data set's training split, of which at most a tenth is held out.

    >>> protocol = tuning(PROTOCOLS["lawn-paper"], available=50_000)
    >>> protocol.train_images, protocol.test_images, protocol.evaluate_on
    (45000, 5000, 'validation')
    """
    held_out = max(1, min(protocol.test_images, available // 10))
    train_images = min(protocol.train_images, available - held_out)
    return replace(protocol, train_images=train_images, test_images=held_out, evaluate_on="validation")
