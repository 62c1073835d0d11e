"""From a configuration to trained epochs: build, compile, train, evaluate, checkpoint."""

from adamlab.training.loop import Diverged, Interrupted, train, train_together

__all__ = ["Diverged", "Interrupted", "train", "train_together"]
