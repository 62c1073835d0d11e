"""Worlds in which the papers are right: records of runs, made up so that each claim holds, and ways to change them.

Every number is a nominal one times, or plus, a noise of 1 % that setting and seed decide.
"""

import random
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from adamlab import recording, records
from adamlab.claims import CLAIMS, judge
from adamlab.config import RunConfig
from adamlab.hyperparameters import OPTIMIZERS, PERTURBATION, Hyperparameters, grid_of
from adamlab.protocol import PROTOCOLS
from adamlab.records import Run

NAMES = [claim.name for claim in CLAIMS]
SEEDS = (0, 1, 2)


def write_run(out: Path, config: RunConfig, epochs: list[dict], outcome: str = "finished", provenance=None) -> Run:
    """A run's folder, as training leaves it. Nobody waits for the disk."""
    folder = records.run_folder(out, config)
    with patch("os.fsync"):
        recording.open_run(folder, config, provenance or {})
        for line in [*epochs, {"outcome": outcome}]:
            recording.append(folder, line)
    return records.read_run(folder)


def noise(*words: object) -> float:
    """About 0.01, of either sign; the same for the same words."""
    return 0.01 * random.Random(repr(words)).uniform(-1, 1)


def verdicts(runs: list[Run], *names: str) -> dict[str, str]:
    """By claim: the one judgement of these runs."""
    judged = judge("study", runs, [claim for claim in CLAIMS if claim.name in (names or NAMES)])
    assert len({judgement.claim for judgement in judged}) == len(judged)
    return {judgement.claim.name: judgement.verdict for judgement in judged}


def world_of(name: str):
    """The function that writes the world in which the claim's paper is right."""
    return madan if name.startswith("S") else gupta


def mixed(base: list[Run], changed: list[Run]) -> list[Run]:
    """The base world's runs, with those that were changed in their places."""
    places = {(run.folder.parts[-3:], run.config.protocol.batch_size): run for run in changed}
    return [places.get((run.folder.parts[-3:], run.config.protocol.batch_size), run) for run in base]


# The sensitivity paper: (factor of training losses, factor of test losses, accuracy), where it is not the usual.
USUAL = (1.0, 1.0, 75.0)
MADAN = {
    ("plain20", "alpha", 1e-5): (4.0, 1.0, 45.0),
    ("plain20", "alpha", 1e-4): (2.0, 1.0, 70.0),
    ("plain20", "alpha", 1e-2): (2.0, 1.0, 72.0),
    ("plain20", "alpha", 1e-1): (5.0, 1.0, 50.0),
    ("resnet34", "alpha", 1e-5): (0.7, 1.6, 45.0),
    ("resnet34", "alpha", 1e-4): (1.05, 1.1, 65.0),
    ("resnet34", "alpha", 1e-2): (2.0, 1.0, 72.0),
    ("resnet34", "alpha", 1e-1): (5.0, 1.2, 62.0),
}
for _model in ("plain20", "resnet34"):
    # The default beta1 has the highest test loss; losses fall with beta2; epsilon matters little.
    MADAN |= {(_model, "beta1", v): (f, 0.9, 74.0) for v, f in {0.1: 1.1, 0.5: 1.05, 0.99: 1.2, 0.999: 2.0}.items()}
    MADAN |= {(_model, "beta2", v): (f, 1.0, 75.0) for v, f in {0.1: 1.2, 0.9: 1.1, 0.99: 1.05, 0.9999: 0.95}.items()}
    MADAN |= {(_model, "epsilon", v): (f, 1.0, 75.0) for v, f in {1e-6: 1.0, 1e-4: 1.02, 1e-2: 1.05, 1.0: 1.2}.items()}

GRID = {
    (name, value)
    for name in ("alpha", "beta1", "beta2", "epsilon")
    for value in (*grid_of("adam", name, "magnitude"), *PERTURBATION.get(name, ()))
    if value != getattr(Hyperparameters(), name)
}


def madan(
    out: Path, changed=None, seeds=SEEDS, protocol=PROTOCOLS["paper"], only=None, dataset="cifar10", **variant
) -> list[Run]:
    """Writes the whole sensitivity study, or `only` what is changed.

    Args:
      changed: Entries as those of `MADAN`, with ("model", None, None) for the default setting; an accuracy may be the
        word `falling`, `levelling` or `rising`, which is the shape of the test loss, `climbing`, to 75 % at the end, or
        `level`, at 75 % from the first epoch.
    """
    table = MADAN | (changed or {})
    settings = [(model, *at) for model in ("plain20", "resnet34") for at in [(None, None), *sorted(GRID)]]
    runs = []
    for model, name, value in settings if only is None else only:
        hyper = replace(Hyperparameters(), **({name: value} if name else {}))
        for seed in seeds:
            config = RunConfig(dataset, model, protocol, hyper, seed, **variant)
            runs.append(write_run(out, config, _curves(config, *table.get((model, name, value), USUAL))))
    return runs


def _curves(config: RunConfig, train: float, test: float, accuracy: float | str) -> list[dict]:
    """Training losses that fall, test losses in the shape of a V, accuracies that level off."""
    last, factor = config.protocol.epochs, 1 + noise(config.setting, config.model, config.seed)
    shapes = {
        "falling": lambda e: 2 * 0.8**e,
        "levelling": lambda e: 0.8 + 1.5 * 0.7**e,
        "rising": lambda e: 0.5 * 1.1**e,
    }
    shape = shapes.get(str(accuracy), lambda e: 0.7 + 0.05 * abs(e - last / 2))
    reached = 75.0 if isinstance(accuracy, str) else accuracy
    ways = {"climbing": lambda e: 2 * (last - e), "level": lambda e: 0.0}
    missing = ways.get(str(accuracy), lambda e: 40 * 0.5**e)
    return [
        {
            "epoch": epoch,
            "train_loss": 1.5 * 0.89**epoch * train * factor,
            "test_loss": shape(epoch) * test * factor,
            "test_accuracy": (reached - missing(epoch)) / 100 * factor,
        }
        for epoch in range(1, last + 1)
    ]


# The LAWN paper: accuracies by optimizer, whether the batch is the large one, and E_free where that varies.
GUPTA = {
    ("sgd", False): 94.0,
    ("sgd", True): 93.0,
    ("sgd_lawn", False): 94.0,
    ("sgd_lawn", True): 93.4,
    ("adam", False): 93.5,
    ("adam", True): 92.6,
    ("adam_lawn", False): 93.9,
    ("adam_lawn", True): 93.8,
    ("adamp", False): 93.7,
    ("adamp", True): 93.8,
    ("lamb_lawn", True): 93.6,
    ("adam_lawn", False, 10.0): 93.7,
}
# First traced and last epoch.
TRACES = {
    "adam": {"weight_norm": (40, 44), "logit_norm": (4, 9), "gradient_norm": (1, 0.2), "hessian_eigenvalue": (30, 20)},
    "other": {"weight_norm": (40, 40), "logit_norm": (4, 6), "gradient_norm": (1, 0.8), "hessian_eigenvalue": (30, 30)},
}
LOSSES = {"adam": 0.03, "other": 0.1}


def gupta(
    out: Path,
    changed=None,
    seeds=SEEDS,
    dataset="cifar10",
    batches=(50, 250),
    only=None,
    protocol=PROTOCOLS["lawn-laptop"],
) -> list[Run]:
    """Writes the whole study of large batches, every run traced, or `only` what is changed.

    Args:
      changed: Entries as those of `GUPTA`, or as those of `TRACES["adam"]`, or "loss" for Adam's last training loss
        and "others' loss" for that of the others.
    """
    changed, runs = changed or {}, []
    for cell, accuracy in (GUPTA | {k: v for k, v in changed.items() if isinstance(k, tuple)}).items():
        if only is not None and cell not in only:
            continue
        optimizer, large, *free = cell
        at = replace(protocol, batch_size=batches[large])
        hyper = OPTIMIZERS[optimizer].defaults
        if OPTIMIZERS[optimizer].has_free_phase:
            hyper = replace(hyper, free_epochs=free[0] if free else 2.0)
        for seed in seeds:
            config = RunConfig(dataset, "plain20", at, hyper, seed, optimizer=optimizer, trace_every=4)
            runs.append(write_run(out, config, _traced(config, accuracy, changed)))
    return runs


def _traced(config: RunConfig, accuracy: float, changed: dict) -> list[dict]:
    kind, factor = "adam" if config.optimizer == "adam" else "other", 1 + noise(config.setting, config.seed)
    traces = TRACES[kind] | ({k: v for k, v in changed.items() if k in TRACES[kind]} if kind == "adam" else {})
    loss = changed.get("loss" if kind == "adam" else "others' loss", LOSSES[kind])
    epochs, last = [], config.protocol.epochs
    for epoch in range(1, last + 1):
        # A point of accuracy is more than a percent of most numbers here.
        numbers = {"train_loss": 2.0 if epoch < last else loss * factor, "test_loss": 1.0}
        numbers["test_accuracy"] = accuracy / 100 + 0.03 * (factor - 1)
        if epoch % 4 == 0:
            numbers |= {name: ends[epoch == last] * (factor if epoch == last else 1) for name, ends in traces.items()}
        epochs.append({"epoch": epoch, **numbers})
    return epochs
