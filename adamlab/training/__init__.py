"""From a configuration to trained epochs: build, compile, train, evaluate, checkpoint."""

from adamlab.training.checkpoint import Checkpoints
from adamlab.training.loop import Diverged, Interrupted, train, train_together

__all__ = ["Checkpoints", "Diverged", "Interrupted", "train", "train_together"]
