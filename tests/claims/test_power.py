"""What the LAWN paper's own tables would come to under our rules: how many seeds its claims take."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import nct, t

from adamlab.claims import CLAIMS, lawn, split, verdict
from adamlab.claims.published import LAWN
from adamlab.config import RunConfig
from adamlab.protocol import PROTOCOLS
from adamlab.records import Run

NAMES = ("L1", "L2", "L3", "L4", "L5")
DRAWS = 100


@pytest.mark.parametrize(
    ("dataset", "seeds", "likely"),
    [
        ("cifar10", 3, ()),
        ("cifar10", 7, ("L1", "L2", "L3", "L5")),
        ("cifar10", 15, NAMES),
        ("cifar100", 3, ("L1",)),
        ("cifar100", 7, NAMES),
    ],
)
def test_what_the_papers_tables_take_to_be_reproduced_in_three_of_four_studies(dataset, seeds, likely, monkeypatch):
    """Cells have the printed means; from one seed to another accuracies are normally distributed, as the paper's
    smallest standard error has it, 0.1 of three runs, and independent of each other."""
    rng, drawn = np.random.default_rng(0), {}

    def cell(study, optimizer, size):
        if (optimizer, size) not in drawn:
            accuracies = rng.normal(LAWN[dataset, optimizer][size], 0.1 * math.sqrt(3), seeds)
            drawn[optimizer, size] = dict(enumerate(accuracies))
        return drawn[optimizer, size]

    monkeypatch.setattr(lawn, "cell", cell)
    monkeypatch.setattr(lawn, "choices", lambda study, *cells: 1)
    monkeypatch.setattr(lawn, "accuracy_gap", lambda *accuracies: np.mean(accuracies[:-1]) - accuracies[-1])
    config = RunConfig(dataset, "vgg19", PROTOCOLS["lawn-paper"])
    [study] = split("published", [Run(Path(), config, {}, [], {"outcome": "finished"}, [])])
    reproduced = dict.fromkeys(NAMES, 0)
    for _ in range(DRAWS):
        drawn.clear()
        for claim in CLAIMS:
            if claim.name in NAMES:
                reproduced[claim.name] += verdict(claim.numbers(study)) == "reproduced"
    # L1's numbers have no cell in common: the chance of each is that of a noncentral t, of all their product.
    gaps = [LAWN[dataset, "adam_lawn"][size] - LAWN[dataset, "adam"][size] for size in (256, 4_000, 10_000)]
    size = math.sqrt(seeds) / (0.1 * math.sqrt(3) * math.sqrt(2))
    chance = math.prod(nct.sf(t.ppf(0.975, seeds - 1), seeds - 1, gap * size) for gap in gaps)
    assert reproduced["L1"] / DRAWS == pytest.approx(chance, abs=0.15)  # three standard errors
    assert tuple(name for name in NAMES if reproduced[name] > 0.75 * DRAWS) == likely
