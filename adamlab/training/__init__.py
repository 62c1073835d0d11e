"""From a configuration to trained epochs: build, compile, train, evaluate, checkpoint."""

from adamlab.training.loop import Diverged, train

__all__ = ["Diverged", "train"]
