"""Where the cells of the LAWN paper's tables start from."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from adamlab import records
from adamlab.config import RunConfig
from adamlab.hyperparameters import OPTIMIZERS, ConfigError
from adamlab.protocol import PROTOCOLS
from experiments import cells

ROOT = Path(__file__).parents[2]


def test_every_cell_has_hyperparameters_with_an_origin():
    for protocol, batch_sizes in (
        ("lawn-paper", (256, 4_000, 10_000)),
        ("lawn-laptop", (50, 250)),
        ("lawn-smoke", (50,)),
    ):
        for optimizer in OPTIMIZERS:
            for batch_size in batch_sizes:
                found = cells.cell("cifar10", "plain20", PROTOCOLS[protocol], optimizer, batch_size)
                assert found.origin in ("literature", "tuned", "start")
                assert found.source
                shape = replace(PROTOCOLS[protocol], train_images=10_000, batch_size=batch_size)
                RunConfig("cifar10", "vgg19", shape, found.hyperparameters, optimizer=optimizer)  # can be run


def test_an_optimizer_without_a_starting_point_is_named(monkeypatch):
    monkeypatch.delitem(cells._AT_50, "adamp")
    with pytest.raises(ConfigError, match=r"optimizer must have a starting point in .*cells.py \(adam, .*, got adamp"):
        cells.starting_point(PROTOCOLS["lawn-laptop"], "adamp", 50)


def test_alpha_follows_the_square_root_rule_and_phases_keep_their_share():
    paper = PROTOCOLS["lawn-paper"]
    found = [cells.starting_point(paper, "sgd", size) for size in (128, 256, 512)]
    assert [start.hyperparameters.alpha for start in found] == [0.1, 0.141, 0.2]
    assert ["square root rule" in start.source for start in found] == [False, True, True]
    short = cells.starting_point(replace(paper, epochs=90), "adam_lawn", 256).hyperparameters
    assert (short.free_epochs, short.warmup_epochs) == (1.5, 3.0)
    # An epoch at least, where that fits: of a fraction of a step nothing would be left.
    for epochs, lengths in ((30, (1.0, 1.0)), (3, (1.0, 1.0)), (2, (0.5, 0.5))):
        shortest = cells.starting_point(replace(paper, epochs=epochs), "adam_lawn", 256).hyperparameters
        assert (shortest.free_epochs, shortest.warmup_epochs) == lengths


def test_what_was_tuned_on_one_network_and_data_set_is_not_said_of_others():
    laptop = PROTOCOLS["lawn-laptop"]
    assert cells.cell("cifar10", "plain20", laptop, "sgd_lawn", 250).origin == "tuned"
    for dataset, model in (("cifar100", "plain20"), ("cifar10", "vgg19")):
        assert cells.cell(dataset, model, laptop, "sgd_lawn", 250) == cells.starting_point(laptop, "sgd_lawn", 250)


def test_what_is_called_tuned_is_the_best_of_the_published_tuning():
    tried = defaultdict(dict)
    for run in records.read_runs(ROOT / "docs/results/cifar10-lawn-laptop-tuning"):
        config = run.config
        assert (config.model, config.protocol.evaluate_on, run.ending) == ("plain20", "validation", "finished")
        tried[config.optimizer, config.protocol.batch_size][config.hyperparameters] = run.epochs[-1]["test_accuracy"]
    tuned = cells.TUNED["lawn-laptop", "cifar10", "plain20"]
    assert {at: found.hyperparameters for at, found in tuned.items()} == {
        at: max(accuracies, key=lambda setting: accuracies[setting]) for at, accuracies in tried.items()
    }


@pytest.mark.parametrize("epochs", [3, 4, 5, 20, 40])
def test_batches_of_one_study_have_phases_of_one_length(epochs):
    """Tuned or not, and the optimizers one warm-up: accuracies are compared between them."""
    laptop, warmups = replace(PROTOCOLS["lawn-laptop"], epochs=epochs), set()
    for optimizer in OPTIMIZERS:
        found = [cells.cell("cifar10", "plain20", laptop, optimizer, size).hyperparameters for size in (50, 100, 250)]
        assert len({(h.free_epochs, h.warmup_epochs) for h in found}) == 1
        assert found[0].free_epochs + found[0].warmup_epochs < epochs
        warmups.add(found[0].warmup_epochs)
    assert len(warmups) == 1
