"""What the rules measure of a run, or of one beside another: losses and accuracies, diverged runs included."""

import math
from collections.abc import Callable

import numpy as np

from adamlab.analysis.sensitivity import Floats, clip
from adamlab.records import Run

# The data sets of the papers, and what a guess is among.
CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet2012": 1000}
# The smallest normal number of float32, in which training computes: a loss or norm of exactly 0 counts as that.
TINY = 2.0**-126


def classes(run: Run) -> int:
    """How many classes the run's data set has. Older records do not say it: digits', then."""
    return run.provenance.get("classes") or CLASSES.get(run.config.dataset, 10)


def guess(run: Run) -> float:
    """The loss of a guess, in nats: that of a run which diverged."""
    return math.log(classes(run))


def training_curve(run: Run) -> Floats:
    """Logarithms of the training losses of all epochs, (epochs,), clipped as in `adamlab.analysis.sensitivity`."""
    losses = [record["train_loss"] for record in run.epochs]
    missing = [math.inf] * (run.config.protocol.epochs - len(losses))
    return _log_clipped(losses + missing, run)


def training_loss(run: Run) -> float:
    """The logarithm of the training loss of the last epoch, clipped."""
    loss = run.epochs[-1]["train_loss"] if run.ending == "finished" else math.inf
    return float(_log_clipped(loss, run))


def _log_clipped(losses: float | list[float], run: Run) -> Floats:
    return np.log(np.maximum(clip(losses, guess(run)), TINY))


def curve_factor(run: Run, base: Run) -> float:
    """How far a training curve is above another on a logarithmic axis: the mean over epochs, the logarithm of a factor.

    Where one of the two diverged, the end of the curves alone: after many good epochs a mean would hide it. NaN where
    both did: they end like a guess and like each other, and say nothing of a hyperparameter.
    """
    return float(np.mean(_gaps(run, base)))


def curve_distance(run: Run, base: Run) -> float:
    """How far two training curves are apart, above or below, as in `curve_factor`: curves that cross are apart."""
    return float(np.mean(np.abs(_gaps(run, base))))


def _gaps(run: Run, base: Run) -> Floats:
    if not _any_finished(run, base):
        return np.full(1, math.nan)
    gaps = training_curve(run) - training_curve(base)
    return gaps if run.ending == base.ending else gaps[-1:]


def gap(metric: Callable[[Run], float], *runs: Run) -> float:
    """The mean of a metric over all runs but the last, less that of the last; NaN where all diverged, as above."""
    if not _any_finished(*runs):
        return math.nan
    return float(np.mean([metric(run) for run in runs[:-1]])) - metric(runs[-1])


def _any_finished(*runs: Run) -> bool:
    return any(run.ending == "finished" for run in runs)


def test_curve(run: Run) -> Floats:
    """Logarithms of the test losses of all epochs, (epochs,). Not clipped: overfitting goes beyond a guess's loss."""
    losses = [record["test_loss"] for record in run.epochs]
    return np.log(losses + [guess(run)] * (run.config.protocol.epochs - len(losses)))


def test_loss(run: Run) -> float:
    """The logarithm of the test loss after the last epoch; of a guess's where the run diverged."""
    return float(test_curve(run)[-1]) if run.ending == "finished" else math.log(guess(run))


def accuracy(run: Run) -> float:
    """Test accuracy after the last epoch, in percent; a guess's where the run diverged."""
    return 100 * run.epochs[-1]["test_accuracy"] if run.ending == "finished" else 100 / classes(run)


def accuracy_gap(*runs: Run) -> float:
    """As `gap` of accuracies; NaN where none of the runs is twice as good as a guess, since all guesses are equal."""
    return gap(accuracy, *runs) if any(accuracy(run) > 200 / classes(run) for run in runs) else math.nan
