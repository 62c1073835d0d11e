"""What the LAWN paper's own tables would come to under our rules: how many seeds its claims take."""

import math
from pathlib import Path

import numpy as np
import pytest

from adamlab.claims import CLAIMS, lawn, split, verdict
from adamlab.claims.evidence import Number
from adamlab.claims.published import LAWN
from adamlab.config import PROTOCOLS, RunConfig
from adamlab.records import Run

NAMES = ("L1", "L2", "L3", "L4", "L5")
# Which of them three seeds cannot reproduce.
OPEN = {"cifar10": set(NAMES), "cifar100": {"L2", "L4", "L5"}}


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("dataset", list(OPEN))
def test_the_papers_tables_take_five_seeds(dataset, seeds, monkeypatch):
    """Cells have the printed means; from one seed to another accuracies differ as the paper's smallest standard error
    has it, 0.1 of three runs, and independently of each other."""
    deviations = np.linspace(-1, 1, seeds)
    deviations *= math.sqrt(2) * 0.1 * math.sqrt(3) / deviations.std(ddof=1)

    def compare(label, unit, region, means, sample, choices):
        return Number(label, unit, region, tuple(means[0] - means[1] + deviations), ())

    monkeypatch.setattr(lawn, "cell", lambda study, optimizer, size: LAWN[dataset, optimizer][size])
    monkeypatch.setattr(lawn, "choices", lambda study, *cells: 1)
    monkeypatch.setattr(lawn, "compare", compare)
    config = RunConfig(dataset, "vgg19", PROTOCOLS["lawn-paper"])
    [study] = split("published", [Run(Path(), config, {}, [], {"outcome": "finished"}, [])])
    found = {claim.name: verdict(claim.numbers(study)) for claim in CLAIMS if claim.name in NAMES}
    undecided = OPEN[dataset] if seeds == 3 else set()
    assert found == {name: "inconclusive" if name in undecided else "reproduced" for name in NAMES}
