"""The claims of the sensitivity paper, S1 to S14, as rules. The docstring of each is what a reader is shown.

Source: Madan and Wu, "Hyperparameter Sensitivity Analysis for Adam Optimization on Deep CNNs". What is said of curves
is judged by their mean distance over the epochs, on a logarithmic axis as in the paper's figures; what is said of the
best or the worst, at the end: the training loss of the last epoch, over its steps, and the test loss after it.
"""

import math
from functools import partial

import numpy as np

from adamlab.analysis.sensitivity import coordinate
from adamlab.claims.evidence import Number, Region, Seeds, Study, compare, only_if
from adamlab.claims.measures import (
    accuracy,
    curve_distance,
    curve_factor,
    gap,
    guess,
    test_curve,
    test_loss,
    training_curve,
    training_loss,
)
from adamlab.hyperparameters import MAGNITUDE, PERTURBATION, Hyperparameters
from adamlab.records import Run

NETS = ("plain20", "resnet34")
PARAMETERS = ("alpha", "beta1", "beta2", "epsilon")
# Curves that nearly coincide: 1.25 is 2 mm where a decade has 2 cm. "Comparable", "relatively insensitive": 1.5.
SAME, COMPARABLE = math.log(1.25), math.log(1.5)
# Accuracies that are about the same, in percent, and what a poor one lacks: the paper has them "roughly".
POINTS = 5.0
ABOVE, BELOW = (0.0, math.inf), (-math.inf, 0.0)


def adam(study: Study, model: str, **changed: float) -> Seeds:
    """The runs of Adam with its defaults, except for what is changed."""
    wanted = Hyperparameters(**changed)
    return {
        run.config.seed: run
        for run in study.runs
        if (run.config.model, run.config.optimizer, run.config.hyperparameters) == (model, "adam", wanted)
    }


def others(parameter: str, *excluded: float) -> list[float]:
    """The values of a hyperparameter in the magnitude study, except for those."""
    return [value for value in MAGNITUDE[parameter] if value not in excluded]


def farthest(study: Study, model: str, parameter: str, values: list[float], margin: float) -> Number:
    """How far from the default's training curve that of the farthest of the values is.

    What is within the margin is no evidence where a network that learns nothing would be, too: after so few steps none
    could be farther above.
    """
    settings = [adam(study, model), *(adam(study, model, **{parameter: value}) for value in values)]
    label = f"{model}, {parameter}: training curve farthest from the default's, of {min(values):g} to {max(values):g}"
    if len(values) == 1:
        label = f"{model}: distance of the training curve of {parameter} {values[0]:g} from the default's"

    def sample(base: Run, *runs: Run) -> float:
        distances = [distance for run in runs if not math.isnan(distance := curve_distance(run, base))]
        return max(distances, default=math.nan)

    number = compare(label, "factor", (-math.inf, margin), settings, sample)
    defaults = number.runs[:: len(settings)]
    room = min((np.abs(training_curve(run) - math.log(guess(run))).mean() for run in defaults), default=math.inf)
    why = f"a network that only guesses is within a factor of {math.exp(room):.2f}, too"
    return only_if(room > margin or number.mean > margin, why, [number])[0]


def pairs(
    study: Study,
    model: str,
    parameter: str,
    value: float,
    rivals: list[float],
    metric: str,
    region: Region = ABOVE,
) -> list[Number]:
    """One number per rival: the rival against the value, after the last epoch. Above, where the region is by default:
    the value's is the lower one."""
    difference, unit = {
        "training loss": (partial(gap, training_loss), "factor"),
        "test loss": (partial(gap, test_loss), "factor"),
        "accuracy": (partial(gap, accuracy), "points"),
    }[metric]
    return [
        compare(
            f"{model}: {metric} of {parameter} {rival:g} against {value:g}",
            unit,
            region,
            [adam(study, model, **{parameter: rival}), adam(study, model, **{parameter: value})],
            difference,
        )
        for rival in rivals
    ]


def s1(study: Study) -> list[Number]:
    """On both networks and for each of alpha, beta1 and beta2, the training curve of the perturbed value that is
    farthest from the default's stays within a factor of 1.25 of it, on average over the epochs."""
    return [
        farthest(study, model, name, [v for v in values if v != getattr(Hyperparameters(), name)], SAME)
        for model in NETS
        for name, values in PERTURBATION.items()
    ]


def s2(study: Study) -> list[Number]:
    """On both networks, the training curves of the five alphas lie farther apart than those of the values of each other
    hyperparameter: from the lowest to the highest on a logarithmic axis, on average over the epochs, or at the end
    alone where one diverged. The paper has "wider variations in loss curves"; the other values of the grids are ours,
    and epsilon's, up to 1, decide how far its own lie apart."""

    def spread(runs: tuple[Run, ...], ended: bool) -> float:
        curves = np.array([training_curve(run) for run in runs])
        return float(np.ptp(curves if ended else curves[:, -1:], axis=0).mean())

    def number(model: str, other: str) -> Number:
        settings = [adam(study, model, **{name: v}) for name in ("alpha", other) for v in MAGNITUDE[name]]
        count = len(MAGNITUDE["alpha"])

        def difference(*runs: Run) -> float:
            ended = all(run.ending == "finished" for run in runs)
            return spread(runs[:count], ended) - spread(runs[count:], ended)

        label = f"{model}: how far curves lie apart, alpha against {other}"
        return compare(label, "factor", ABOVE, settings, difference)

    return [number(model, other) for model in NETS for other in PARAMETERS[1:]]


def s3(study: Study) -> list[Number]:
    """On plain20, the training loss of the last epoch is higher at each of the other four alphas than at 1e-3. 0.01 and
    0.1 are ours."""
    return pairs(study, "plain20", "alpha", 1e-3, others("alpha", 1e-3), "training loss")


def s4(study: Study) -> list[Number]:
    """On ResNet-34, the training curves of alpha 1e-4 and 1e-3 are within a factor of 1.25, on average over the epochs.
    Far better would contradict it as far worse would."""
    return [farthest(study, "resnet34", "alpha", [1e-4], SAME)]


def s5(study: Study) -> list[Number]:
    """On ResNet-34, the training loss of the last epoch is higher at each of the other four alphas than at 1e-5.
    Section 4 suspects noise; appendix C calls it much lower. 0.01 and 0.1 are ours."""
    return pairs(study, "resnet34", "alpha", 1e-5, others("alpha", 1e-5), "training loss")


def s6(study: Study) -> list[Number]:
    """On both networks, the training curves of beta1 0.1 and 0.5 stay within a factor of 1.5 of the default's 0.9, and
    that of 0.999 is above it by more than a factor of 1.25, on average over the epochs. The paper names no
    value that is too high; 0.5 and 0.999 are ours. In fewer than 1,000 steps, over which it averages, 0.999 is not
    judged: any higher one would train alike."""
    steps = study.protocol.total_steps
    numbers = []
    for model in NETS:
        settings = [adam(study, model, beta1=0.999), adam(study, model)]
        label = f"{model}: training curve of beta1 0.999 against 0.9"
        numbers.append(farthest(study, model, "beta1", [0.1, 0.5], COMPARABLE))
        high = compare(label, "factor", (SAME, math.inf), settings, curve_factor)
        numbers += only_if(steps >= 1_000, f"its mean is over 1,000 steps, and these are {steps:,}", [high])
    return numbers


def s7(study: Study) -> list[Number]:
    """On both networks, the training curve of the beta2 that is farthest from the default's stays within a factor of
    1.5 of it, on average over the epochs; and the training loss of the last epoch falls with beta2: a line through
    its logarithm over -log10(1 - beta2) descends. The paper's text names no beta2: the values, 0.1 among them,
    are ours."""
    values = MAGNITUDE["beta2"]
    positions = [coordinate("beta2", value) for value in values]
    numbers = []
    for model in NETS:
        numbers.append(farthest(study, model, "beta2", others("beta2", 0.999), COMPARABLE))
        numbers.append(
            compare(
                f"{model}: training loss per decade of 1 / (1 - beta2)",
                "factor",
                BELOW,
                [adam(study, model, beta2=value) for value in values],
                lambda *runs: np.polynomial.polynomial.polyfit(positions, [training_loss(run) for run in runs], 1)[1],
            )
        )
    return numbers


def s8(study: Study) -> list[Number]:
    """On both networks, the training curve of the epsilon, up to 1, that is farthest from the default's stays within a
    factor of 1.5 of it, on average over the epochs."""
    return [farthest(study, model, "epsilon", others("epsilon", 1e-8), COMPARABLE) for model in NETS]


def s9(study: Study) -> list[Number]:
    """At the paper's protocol, with the defaults on both networks: test accuracy is between 70 and 80 % after the last
    epoch and at least 5 points above that after the first, and the mean of the last five epochs is within 3 points of
    that of the five before. The paper says it of the curves of its figure 4, and not of which."""

    def gain(run: Run) -> float:
        accuracies = [100 * record["test_accuracy"] for record in run.epochs]
        if run.ending != "finished" or len(accuracies) < 10:
            return math.nan
        return float(np.mean(accuracies[-5:]) - np.mean(accuracies[-10:-5]))

    def growth(run: Run) -> float:
        return accuracy(run) - 100 * run.epochs[0]["test_accuracy"] if run.ending == "finished" else math.nan

    numbers = []
    for model in NETS:
        default, around = [adam(study, model)], (75 - POINTS, 75 + POINTS)
        numbers.append(compare(f"{model}: accuracy", "points", around, default, accuracy))
        numbers.append(compare(f"{model}: gain since the first epoch", "points", (POINTS, math.inf), default, growth))
        numbers.append(compare(f"{model}: gain over the last five epochs", "points", (-3.0, 3.0), default, gain))
    return only_if(study.is_papers, "judged at the paper's protocol alone", numbers)


def s10(study: Study) -> list[Number]:
    """At the paper's protocol, on ResNet-34: test accuracy after the last epoch is between 60 and 70 % at alpha 1e-4,
    and below that of the default, where the paper has "significantly worse"; the test loss is above that of the
    default, by a factor of less than 1.5."""
    low, default = adam(study, "resnet34", alpha=1e-4), adam(study, "resnet34")
    label, around = "resnet34: accuracy of alpha 0.0001", (65 - POINTS, 65 + POINTS)
    numbers = [
        compare(label, "points", around, [low], accuracy),
        compare(f"{label} against 0.001", "points", BELOW, [low, default], partial(gap, accuracy)),
        *pairs(study, "resnet34", "alpha", 1e-3, [1e-4], "test loss", (0.0, COMPARABLE)),
    ]
    return only_if(study.is_papers, "judged at the paper's protocol alone", numbers)


def s11(study: Study) -> list[Number]:
    """On ResNet-34, alpha 1e-5 ends with a higher test loss and a lower test accuracy than each of the other four. 0.01
    and 0.1 are ours."""
    numbers = []
    for rival in others("alpha", 1e-5):
        numbers += pairs(study, "resnet34", "alpha", rival, [1e-5], "test loss")
        numbers += pairs(study, "resnet34", "alpha", 1e-5, [rival], "accuracy")
    return numbers


def s12(study: Study) -> list[Number]:
    """On plain20, test accuracy after the last epoch is at least 5 points higher at the default than at alpha 1e-5, and
    than at 0.1. The paper names neither the very low nor the very high value, and says it of its validation results,
    whose losses are not judged."""
    at_least = (POINTS, math.inf)
    return [n for value in (1e-5, 0.1) for n in pairs(study, "plain20", "alpha", value, [1e-3], "accuracy", at_least)]


def s13(study: Study) -> list[Number]:
    """On both networks (the paper does not say on which), each of the other four beta1 ends with a lower test loss than
    the default's 0.9, and with a test accuracy within 5 points of it."""
    rivals = others("beta1", 0.9)
    numbers = []
    for model in NETS:
        for rival in rivals:
            numbers += pairs(study, model, "beta1", rival, [0.9], "test loss")
        numbers += pairs(study, model, "beta1", 0.9, rivals, "accuracy", (-POINTS, POINTS))
    return numbers


def s14(study: Study) -> list[Number]:
    """On both networks and for each hyperparameter, most of the five curves of the test loss are flat or V-shaped.
    Neither is a curve that is lowest at the last epoch and there more than a factor of 1.25 below its beginning, nor
    one that is lowest at the first epoch and ended more than a factor of 1.25 above, nor that of a diverged run. One
    that rises at all after its lowest epoch counts."""

    def flat_or_v(run: Run) -> bool:
        curve = test_curve(run)
        lowest, last = int(curve.argmin()), len(curve) - 1
        only_falls = lowest == last and curve[0] - curve[last] > SAME
        only_rises = lowest == 0 and curve[last] - curve[0] > SAME
        return run.ending == "finished" and not (only_falls or only_rises)

    return [
        compare(
            f"{model}, {name}: share of curves that are flat or V-shaped",
            "share",
            (0.5, math.inf),
            [adam(study, model, **{name: value}) for value in MAGNITUDE[name]],
            lambda *runs: float(np.mean([flat_or_v(run) for run in runs])),
        )
        for model in NETS
        for name in PARAMETERS
    ]
