"""From runs to a verdict: a number per seed, its interval, and the region in which a paper has it.

A claim says where numbers lie: a difference above 0, a distance below a factor of 1.25. A study repeated with another
seed gives each number again, so a number has one sample per seed and an interval of Student's t. What a sample compares
was trained with the same seed: the same initial weights and order of the images, so that differences are those of
pairs.

A number holds if its 95 % interval lies inside the region. It fails if its interval lies outside as a whole; since a
claim with k numbers has k chances to fail by accident, that interval is the one at 1 - 5 %/k (Bonferroni). Where the
best of c settings is compared, it has c chances as well, and both are at 5 %/c. Otherwise it is open, and always with a
single seed.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from adamlab.analysis.intervals import student
from adamlab.claims.measures import CLASSES
from adamlab.claims.published import set_name
from adamlab.config import RunConfig
from adamlab.protocol import PHOTOGRAPHS, PROTOCOLS, Protocol
from adamlab.records import Run

LEVEL = 0.95
# What the LAWN paper trains: the network and the protocol, at any batch size.
LARGE_BATCH = {
    "cifar10": ("vgg19", PROTOCOLS["lawn-paper"].shared),
    "cifar100": ("vgg19", PROTOCOLS["lawn-paper"].shared),
    "imagenet2012": ("resnet50", replace(PROTOCOLS["lawn-paper"].shared, **PHOTOGRAPHS["lawn-paper"])),
}
# The papers' choices, or our reading of them, where a model has several: runs of another are not judged.
OWN = {"stem": None, "downsample": None, "epsilon_placement": "outside"}
# The runs of one setting, by seed.
Seeds = dict[int, Run]
Region = tuple[float, float]


class Study(NamedTuple):
    """Runs that are judged together: of one results folder, data set, protocol and precision.

    Args:
      name: The folder.
      protocol: Of the runs; its batch size is 1 in a study of batch sizes.
      model: In a study of batch sizes, their network; None where networks are compared.
      runs: All that have ended.
    """

    name: str
    protocol: Protocol
    model: str | None
    runs: list[Run]

    @property
    def dataset(self) -> str:
        """The runs' data set, whichever version of it."""
        return set_name(self.runs[0].config.dataset)

    @property
    def is_cut(self) -> bool:
        """Whether BatchNorm's statistics are of parts of a batch: microbatches, or a device's share."""
        return any(run.config.microbatch or run.config.norm_group for run in self.runs)

    @property
    def is_papers(self) -> bool:
        """Whether networks and protocol are the paper's. Large batches may be cut, as many machines must."""
        if self.model is None:
            return self.protocol == PROTOCOLS["paper"] and not self.is_cut
        return (self.model, self.protocol) == LARGE_BATCH[self.dataset]

    @property
    def scope(self) -> str:
        """The protocol in words: `the paper's protocol`, or how much less it is."""
        variant = "" if self.runs[0].config.precision == "float32" else f", {self.runs[0].config.precision}"
        variant += ", batches in parts" if self.is_cut else ""
        if self.is_papers:
            return f"the paper's protocol{variant}"
        model = f"{self.model}, " if self.model else ""
        return f"reduced: {model}{self.protocol.train_images:,} images, {self.protocol.epochs} epochs{variant}"


def on_a_papers_set(config: RunConfig) -> bool:
    """Whether the paper that the run's kind of study is from trained on this data set."""
    return set_name(config.dataset) in (CLASSES if config.protocol.schedule == "phases" else ("cifar10",))


def split(name: str, runs: Iterable[Run]) -> list[Study]:
    """The studies in one results folder. What is not on a paper's data set, tuning, and variants are left out."""
    studies: dict[tuple[Protocol, str | None, str, str], list[Run]] = {}
    for run in runs:
        config, protocol = run.config, run.config.protocol
        own = all(getattr(config, choice) == value for choice, value in OWN.items())
        if not on_a_papers_set(config) or protocol.evaluate_on != "test" or not own or not run.outcome:
            continue
        model = config.model if protocol.schedule == "phases" else None
        key = (protocol.shared, model, config.dataset, config.precision)
        studies.setdefault(key, []).append(run)
    return [Study(name, key[0], key[1], found) for key, found in studies.items()]


@dataclass(frozen=True)
class Number:
    """A number that a claim is about, and where the paper has it.

    Args:
      label: What it is.
      unit: `factor`, whose samples are logarithms; `points` of accuracy, in percent; `nats`; or `share`.
      region: Where the claim has it, in the samples' unit; open ends are infinite.
      samples: One per seed; none if it is missing.
      runs: What it was computed from, seed by seed.
      why: If it is missing, the reason.
      choices: The best of how many settings it compares.
    """

    label: str
    unit: str
    region: Region
    samples: tuple[float, ...]
    runs: tuple[Run, ...]
    why: str = "not run"
    choices: int = 1

    @property
    def mean(self) -> float:
        """Of the samples; NaN without any."""
        return float(np.mean(self.samples)) if self.samples else math.nan

    @property
    def error(self) -> float:
        """The chance of an interval that misses: the best of c settings has c."""
        return (1 - LEVEL) / self.choices

    def interval(self, level: float = LEVEL) -> Region:
        """Student's confidence interval of the mean; without ends for a single sample.

        Shares of a few runs are often equal in all seeds, which leaves Student's no width. Theirs is at least as wide
        as the exact one of a binomial proportion, of all runs (Clopper and Pearson 1934).
        """
        low, high = student(self.samples, level)
        if self.unit == "share" and len(self.samples) > 1:
            from scipy.stats import beta  # here: --help does not wait for it

            trials = len(self.runs)
            hits, tail = round(self.mean * trials), (1 - level) / 2
            low = min(low, float(beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0)
            high = max(high, float(beta.ppf(1 - tail, hits + 1, trials - hits)) if hits < trials else 1.0)
            low, high = max(low, 0.0), min(high, 1.0)
        return low, high

    def state(self, numbers: int = 1) -> str:
        """`holds`, `fails`, `open` or `missing`, as one of so many numbers of a claim."""
        if not self.samples:
            return "missing"
        low, high = self.interval(1 - self.error)
        if len(self.samples) > 1 and self.region[0] < low and high < self.region[1]:
            return "holds"
        low, high = self.interval(1 - self.error / numbers)
        return "fails" if low > self.region[1] or high < self.region[0] else "open"


def verdict(numbers: Sequence[Number]) -> str:
    """What a claim comes to: `reproduced`, `contradicted`, `inconclusive` or `not run`.

    All its numbers must hold for the one, a single one must fail for the other. A claim of which a part was not run is
    contradicted at most.
    """
    found = [number for number in numbers if number.samples]
    states = [number.state(len(found)) for number in numbers]
    if not found:
        return "not run"
    if "fails" in states:
        return "contradicted"
    return "reproduced" if all(state == "holds" for state in states) else "inconclusive"


def compare(
    label: str, unit: str, region: Region, settings: Sequence[Seeds], sample: Callable[..., float], choices: int = 1
) -> Number:
    """A number that compares settings, seed by seed.

    Args:
      label, unit, region, choices: As in `Number`.
      settings: The runs of each setting. Seeds that one of them lacks are left out.
      sample: From one seed's runs, in the order of `settings`, to the number; left out if it is not finite.
    """
    seeds = sorted(set.intersection(*map(set, settings))) if settings else []
    rows = [[setting[seed] for setting in settings] for seed in seeds]
    samples = [(float(sample(*row)), row) for row in rows]
    kept = [(number, row) for number, row in samples if math.isfinite(number)]
    why = f"no number in any of {len(rows)} seeds" if rows else "not run"
    ended = tuple(run for _, row in kept for run in row)
    return Number(label, unit, region, tuple(number for number, _ in kept), ended, why, choices)


def only_if(condition: bool, why: str, numbers: Sequence[Number]) -> list[Number]:
    """The numbers; where the condition does not hold, without samples, and why."""
    return [number if condition else replace(number, samples=(), runs=(), why=why) for number in numbers]
