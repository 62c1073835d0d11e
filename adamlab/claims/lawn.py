"""The claims of the LAWN paper, L1 to L8, as rules. The docstring of each is what a reader is shown.

Source: Gupta et al., "Adam vs. SGD: Closing the generalization gap on image classification". Accuracies are those of
the test set after the last epoch. At the paper's protocol all of its batch sizes are asked for; in a reduced study, of
those at which all optimizers of a rule were trained that it has at all, the smallest and the largest stand for 256 and
for 10,000. Of several settings of one cell, that with most seeds is taken and, among those, that with the best mean
accuracy, for all optimizers alike.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np

from adamlab.claims.evidence import Number, Region, Seeds, Study, compare, only_if
from adamlab.claims.measures import TINY, accuracy, accuracy_gap, training_loss
from adamlab.config import RunConfig
from adamlab.hyperparameters import OPTIMIZERS
from adamlab.records import Run

BATCH_SIZES = {"cifar10": (256, 4_000, 10_000), "cifar100": (256, 4_000, 10_000), "imagenet2012": (256, 16_000)}
# Percent. On par: the paper's standard errors reach 0.45, that of a difference 0.64. Almost no loss: from the smallest
# batch to the largest, SGD and Adam lose 0.56 at least, and Adam-LAWN 0.11 at most.
ON_PAR, ALMOST = 1.0, 0.5
ABOVE = (0.0, math.inf)
# Flattening sets in when most training images are classified correctly (section 1): a training loss, in nats.
FLAT = 0.1


def settings(study: Study, optimizer: str, batch_size: int) -> dict[RunConfig, Seeds]:
    """The runs of each setting of a cell, whether they were traced or not."""
    found: dict[RunConfig, Seeds] = defaultdict(dict)
    for run in study.runs:
        if (run.config.optimizer, run.config.protocol.batch_size) == (optimizer, batch_size):
            found[run.without_seed][run.config.seed] = run
    return found


def best(seeds: Seeds) -> tuple[int, float]:
    """By which settings of a cell are ranked: the number of seeds, then the mean accuracy, of which a run that diverged
    has none: with a guess's it would stand before one that finished no better than that."""
    accuracies = [accuracy(run) if run.ending == "finished" else 0.0 for run in seeds.values()]
    return len(seeds), float(np.mean(accuracies)) if seeds else 0.0


def cell(study: Study, optimizer: str, batch_size: int) -> Seeds:
    """The runs that a cell is judged by; none if there are none."""
    return max(settings(study, optimizer, batch_size).values(), key=best, default={})


def choices(study: Study, *cells: tuple[str, int]) -> int:
    """Of how many settings with as many seeds the best was chosen; of several cells, where there were most."""

    def candidates(optimizer: str, batch_size: int) -> int:
        counts = [len(seeds) for seeds in settings(study, optimizer, batch_size).values()]
        return counts.count(max(counts, default=0))

    return max(1, *(candidates(*at) for at in cells))


def batch_sizes(study: Study, *optimizers: str) -> tuple[int, ...]:
    """The paper's; in a reduced study those that the optimizers which it has of these have in common. Ascending."""
    if study.is_papers:
        return BATCH_SIZES[study.dataset]
    found = [{run.config.protocol.batch_size for run in study.runs if run.config.optimizer == o} for o in optimizers]
    trained = [sizes for sizes in found if sizes] or [{study.protocol.batch_size}]
    return tuple(sorted(set.intersection(*trained) or set.union(*trained)))


def ends(study: Study, *optimizers: str) -> tuple[int, int]:
    """The smallest of those batch sizes and the largest, which may be the same."""
    sizes = batch_sizes(study, *optimizers)
    return sizes[0], sizes[-1]


def gap_in_accuracy(study: Study, label: str, region: Region, *places: tuple[str, int]) -> Number:
    """The mean accuracy of all cells but the last, less that of the last."""
    cells = [cell(study, *place) for place in places]
    return compare(label, "points", region, cells, accuracy_gap, choices(study, *places))


def against(study: Study, one: str, other: str, batch_size: int, low: float, high: float = math.inf) -> Number:
    """The accuracy of one optimizer less that of another, at one batch size."""
    label = f"{OPTIMIZERS[one].title} - {OPTIMIZERS[other].title}, batch {batch_size:,}: accuracy"
    return gap_in_accuracy(study, label, (low, high), (one, batch_size), (other, batch_size))


def change(study: Study, optimizer: str, sizes: tuple[int, int], low: float, high: float = math.inf) -> Number:
    """How an optimizer's accuracy changes from the smallest batch to the largest; missing if they are the same."""
    small, large = sizes
    label = f"{OPTIMIZERS[optimizer].title}: accuracy at batch {large:,} - at {small:,}"
    number = gap_in_accuracy(study, label, (low, high), (optimizer, large), (optimizer, small))
    return only_if(small != large, "a single batch size", [number])[0]


def l1(study: Study) -> list[Number]:
    """At each batch size, Adam-LAWN's accuracy is above Adam's."""
    return [against(study, "adam_lawn", "adam", size, 0.0) for size in batch_sizes(study, "adam_lawn", "adam")]


def l2(study: Study) -> list[Number]:
    """From the smallest batch to the largest, Adam-LAWN's accuracy falls by less than 0.5 points, SGD's and Adam's by
    more. Section 1 has the milder loss alone, against Adam's, which is not judged."""
    sizes = ends(study, "adam_lawn", "sgd", "adam")
    numbers = [change(study, "adam_lawn", sizes, -ALMOST)]
    return numbers + [change(study, optimizer, sizes, -math.inf, -ALMOST) for optimizer in ("sgd", "adam")]


def l3(study: Study) -> list[Number]:
    """SGD-LAWN's accuracy is within 1 point of SGD's at the smallest batch, and above it at the largest."""
    small, large = ends(study, "sgd_lawn", "sgd")
    return [
        against(study, "sgd_lawn", "sgd", small, -ON_PAR, ON_PAR),
        *only_if(small != large, "a single batch size", [against(study, "sgd_lawn", "sgd", large, 0.0)]),
    ]


def l4(study: Study) -> list[Number]:
    """At each batch size, there is a gap, SGD's accuracy being above Adam's, and Adam-LAWN closes it: its accuracy is
    above the middle between the two, and at most 1 point below SGD's."""
    sizes = batch_sizes(study, "sgd", "adam", "adam_lawn")
    numbers = [against(study, "sgd", "adam", size, 0.0) for size in sizes]
    numbers += [middle(study, size) for size in sizes]
    numbers += [against(study, "adam_lawn", "sgd", size, -ON_PAR) for size in sizes]
    return only_if(any(cell(study, "sgd", size) for size in sizes), "SGD was not run", numbers)


def middle(study: Study, batch_size: int) -> Number:
    """The middle between SGD's accuracy and Adam's, less that of Adam-LAWN: the gaps to close are smaller than what is
    on par, so that Adam itself would be."""
    label = f"middle of SGD and Adam - Adam-LAWN, batch {batch_size:,}: accuracy"
    places = [(optimizer, batch_size) for optimizer in ("sgd", "adam", "adam_lawn")]
    return gap_in_accuracy(study, label, (-math.inf, 0.0), *places)


def l5(study: Study) -> list[Number]:
    """At the smallest batch, AdamP's accuracy is within 1 point of Adam-LAWN's. On CIFAR-10 it is at the largest, too,
    and neither falls by more than 0.5 points up to there. On CIFAR-100 AdamP's does, to below Adam-LAWN's, which does
    not. Of one data set, this judges that half, where AdamP was run."""
    small, large = ends(study, "adamp", "adam_lawn")
    behind, falls = (-ON_PAR, ON_PAR), (-ALMOST, math.inf)
    if study.dataset == "cifar100":
        behind, falls = (-math.inf, 0.0), (-math.inf, -ALMOST)
    numbers = [
        against(study, "adamp", "adam_lawn", small, -ON_PAR, ON_PAR),
        *only_if(small != large, "a single batch size", [against(study, "adamp", "adam_lawn", large, *behind)]),
        change(study, "adamp", (small, large), *falls),
        change(study, "adam_lawn", (small, large), -ALMOST),
    ]
    has_adamp = study.dataset != "imagenet2012" and any(cell(study, "adamp", size) for size in (small, large))
    return only_if(has_adamp, "AdamP was not run", numbers)


def l6(study: Study) -> list[Number]:
    """At each batch size at which Adam-LAWN was trained with several E_free, all else being equal: the accuracy of each
    early switch is at most 1 point below that of each later one. Early is above 0 and below 10 epochs and, in a reduced
    study, at most a tenth of the training."""
    epochs = study.protocol.epochs
    numbers = []
    for size in sorted({run.config.protocol.batch_size for run in study.runs}):
        line, lines = free_phases(study, size)
        early = [value for value in line if 0 < value < 10 and value <= epochs / 10]
        for first, later in product(early, (value for value in line if early and value > max(early))):
            label = f"Adam-LAWN, batch {size:,}: accuracy with E_free {first:g} - {later:g}"
            pair = line[first], line[later]
            numbers.append(compare(label, "points", (-ON_PAR, math.inf), pair, accuracy_gap, lines))
    return numbers


def free_phases(study: Study, batch_size: int) -> tuple[dict[float, Seeds], int]:
    """Adam-LAWN's runs by E_free, equal in all else: of several such lines the longest, then the best; and of how many
    as long it was chosen."""
    lines: dict[RunConfig, dict[float, Seeds]] = defaultdict(dict)
    for config, seeds in settings(study, "adam_lawn", batch_size).items():
        others = replace(config, hyperparameters=replace(config.hyperparameters, free_epochs=0.0))
        lines[others][config.hyperparameters.free_epochs] = seeds
    chosen = max(lines.values(), key=lambda line: (len(line), max(map(best, line.values()))), default={})
    return dict(sorted(chosen.items())), max(1, sum(len(line) == len(chosen) for line in lines.values()))


def l7(study: Study) -> list[Number]:
    """At each batch size at which both were traced, Adam without weight decay, which would keep weights small as well:
    Adam's weight norm and its logits grow more than Adam-LAWN's, by the factor from the first epoch of the constrained
    phase at which both were traced to the last one. And where Adam's training loss ends below 0.1 nats, so that most
    images are classified: Adam-LAWN's training loss, gradient norm and top Hessian eigenvalue end above Adam's.
    That the constrained weights do not grow is the constraint itself, and no finding."""
    numbers = []
    for size in sorted({run.config.protocol.batch_size for run in study.runs}):
        cells = [traced_cell(study, name, size) for name in ("adam", "adam_lawn")]
        if not all(cells):
            continue
        flat = float(np.mean([training_loss(run) for run in cells[0].values()])) < math.log(FLAT)
        numbers += [growth(size, cells, name) for name in ("weight_norm", "logit_norm")]
        final: dict[str, Callable[[Run], float]] = {
            "training loss": training_loss,
            "gradient norm": lambda run: log_of(run.epochs[-1], "gradient_norm"),
            "top Hessian eigenvalue": lambda run: log_of(run.epochs[-1], "hessian_eigenvalue"),
        }
        for title, number in final.items():
            label = f"batch {size:,}: {title} at the end, Adam-LAWN's against Adam's"
            difference = lambda adam, lawn, number=number: number(lawn) - number(adam)  # noqa: E731
            numbers += only_if(
                flat, f"Adam's training loss ended above {FLAT}", [compare(label, "factor", ABOVE, cells, difference)]
            )
    return numbers


def growth(size: int, cells: list[Seeds], name: str) -> Number:
    """How much more a norm grows without the constraint: the logarithm of a factor of factors."""

    def sample(adam: Run, lawn: Run) -> float:
        free = lawn.config.hyperparameters.free_epochs
        both = [
            log_of(record, name) - log_of(other, name)
            for record, other in zip(adam.epochs, lawn.epochs, strict=True)
            if other["epoch"] >= free and name in record and name in other
        ]
        return both[-1] - both[0] if len(both) > 1 else math.nan

    label = f"batch {size:,}: growth of the {name.replace('_', ' ')}, Adam's against Adam-LAWN's"
    return compare(label, "factor", ABOVE, cells, sample)


def traced_cell(study: Study, optimizer: str, batch_size: int) -> Seeds:
    """As `cell`, of the runs which finished, have a trace of the last epoch, and no weight decay."""
    candidates = [
        {s: run for s, run in seeds.items() if run.ending == "finished" and "gradient_norm" in run.epochs[-1]}
        for config, seeds in settings(study, optimizer, batch_size).items()
        if not config.hyperparameters.weight_decay
    ]
    return max(candidates, key=best, default={})


def log_of(record: dict, name: str) -> float:
    """The logarithm of a traced number's size; NaN where there is none.

    Flattening ends in an exact 0 in float32, which is the strongest evidence of it, and counts as `TINY`. An eigenvalue
    of the largest size may be negative: how flat the loss is, is a matter of its size.
    """
    number = record.get(name)
    return math.nan if number is None else math.log(max(abs(number), TINY))


def l8(study: Study) -> list[Number]:
    """At the largest batch, LAMB-LAWN's accuracy is above Adam's and at most 1 point below Adam-LAWN's. The paper has
    it on ImageNet at 16,000 alone: at its protocol no other data set is judged."""
    large = ends(study, "lamb_lawn", "adam", "adam_lawn")[1]
    numbers = [
        against(study, "lamb_lawn", "adam", large, 0.0),
        against(study, "lamb_lawn", "adam_lawn", large, -ON_PAR),
    ]
    return only_if(study.dataset == "imagenet2012" or not study.is_papers, "the paper has it on ImageNet", numbers)
