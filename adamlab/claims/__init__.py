"""What the two papers claim, in our words, and what records say about it.

Each claim has a rule: a pure function from a study to the numbers that the claim is about, each with the region in
which the paper has it. `evidence.verdict` turns them into `reproduced`, `contradicted`, `inconclusive` or `not run`.
Half of the 22 rules were committed before any run of what they vary; 17 were repaired after: docs/claims.md says which.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import NamedTuple

from adamlab.claims import lawn, sensitivity
from adamlab.claims.evidence import Number, Study, split, verdict
from adamlab.records import Run

PAPERS = {
    "S": "Madan and Wu, Hyperparameter Sensitivity Analysis for Adam Optimization on Deep CNNs",
    "L": "Gupta et al., Adam vs. SGD: Closing the generalization gap on image classification",
}


class Claim(NamedTuple):
    """A statement of a paper.

    Args:
      name: S and a number for the sensitivity paper, L for the LAWN paper.
      section: Where the paper has it.
      statement: What it says, in our words.
      numbers: The rule.
    """

    name: str
    section: str
    statement: str
    numbers: Callable[[Study], list[Number]]

    @property
    def rule(self) -> str:
        """What would be reproduced, in words."""
        return " ".join((inspect.getdoc(self.numbers) or "").split())


class Judgement(NamedTuple):
    """What one study says about a claim."""

    claim: Claim
    study: Study
    numbers: list[Number]

    @property
    def verdict(self) -> str:
        """`reproduced`, `contradicted`, `inconclusive` or `not run`."""
        return verdict(self.numbers)

    def state(self, number: Number) -> str:
        """What one of its numbers does: `holds`, `fails`, or is `open` or `missing`."""
        return number.state(sum(bool(other.samples) for other in self.numbers))


CLAIMS = (
    Claim(
        "S1",
        "section 4, appendix B",
        "Small perturbations of alpha, beta1 or beta2 hardly change the curve of the training loss, on either network.",
        sensitivity.s1,
    ),
    Claim(
        "S2",
        "section 4, figure 1",
        "Of the four hyperparameters, training is most sensitive to alpha.",
        sensitivity.s2,
    ),
    Claim("S3", "section 4", "The plain network trains best at the default alpha, of five.", sensitivity.s3),
    Claim("S4", "section 4", "ResNet-34 trains at alpha 1e-4 very much as at the default.", sensitivity.s4),
    Claim(
        "S5",
        "section 4",
        "ResNet-34 reaches its lowest training loss at alpha 1e-5, perhaps by chance.",
        sensitivity.s5,
    ),
    Claim(
        "S6",
        "section 4",
        "beta1 matters only when it is too high: 0.1 trains comparably to the default.",
        sensitivity.s6,
    ),
    Claim("S7", "section 4", "beta2 matters little; a higher one tends to be slightly better.", sensitivity.s7),
    Claim("S8", "section 4", "epsilon matters little, up to 1.", sensitivity.s8),
    Claim("S9", "appendix C", "Test accuracy grows and levels off near 75 %.", sensitivity.s9),
    Claim(
        "S10",
        "appendix C",
        "On the test set, ResNet-34 at alpha 1e-4 has a slightly higher loss than at the default, and 65 % accuracy.",
        sensitivity.s10,
    ),
    Claim(
        "S11",
        "appendix C",
        "On the test set, ResNet-34 at alpha 1e-5 has the highest loss and the lowest accuracy of all.",
        sensitivity.s11,
    ),
    Claim(
        "S12",
        "appendix C",
        "On the test set, the plain network does poorly at very low and at very high alpha.",
        sensitivity.s12,
    ),
    Claim(
        "S13",
        "appendix C",
        "The default beta1 ends with the highest test loss of all, at comparable accuracy.",
        sensitivity.s13,
    ),
    Claim("S14", "appendix C", "The curves of the test loss tend to be flat or V-shaped.", sensitivity.s14),
    Claim("L1", "sections 3.1 and 3.2, table 2", "Adam-LAWN generalises better than Adam in every cell.", lawn.l1),
    Claim(
        "L2",
        "sections 3.1 and 3.2, figure 1, table 2",
        "Adam-LAWN loses almost nothing from the smallest batch to the largest, where SGD and Adam lose much more.",
        lawn.l2,
    ),
    Claim(
        "L3",
        "sections 3.1 and 3.2, table 2",
        "SGD-LAWN is on par with SGD at batch 256 and better at the largest.",
        lawn.l3,
    ),
    Claim("L4", "sections 1, 3.1 and 3.2", "Adam-LAWN closes the gap in generalisation between Adam and SGD.", lawn.l4),
    Claim(
        "L5",
        "section 2, table 1",
        "AdamP is as good as Adam-LAWN on CIFAR-10, and falls behind on CIFAR-100 at batch 10,000.",
        lawn.l5,
    ),
    Claim(
        "L6",
        "sections 2 and 3.1",
        "E_free is a weak hyperparameter: switching after fewer than 10 epochs works well.",
        lawn.l6,
    ),
    Claim(
        "L7",
        "sections 1 and 2",
        "Weights and logits grow until loss, gradients and Hessian flatten; with the constraint less so.",
        lawn.l7,
    ),
    Claim("L8", "section 3.2", "LAMB-LAWN reaches a very high accuracy at batch 16,000.", lawn.l8),
)


def judge(name: str, runs: Iterable[Run], claims: Iterable[Claim] = CLAIMS) -> list[Judgement]:
    """What the runs of one results folder say.

    Args:
      name: The folder, as a reader shall find it.
      runs: All runs in it.
      claims: Which claims; all by default.

    Returns:
      For each claim, in their order, one judgement per study of its paper that has anything to say about it.
    """
    studies = split(name, runs)
    judged = [
        Judgement(claim, study, claim.numbers(study))
        for claim in claims
        for study in studies
        if claim.name.startswith("S" if study.model is None else "L")
    ]
    return [judgement for judgement in judged if judgement.verdict != "not run"]
