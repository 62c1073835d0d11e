"""Which runs are judged together, which not at all, and what a study is called."""

from dataclasses import replace

import pytest

from adamlab.claims import CLAIMS, judge, lawn
from adamlab.claims.evidence import split
from adamlab.claims.words import decisive, describe
from adamlab.config import RunConfig
from adamlab.hyperparameters import OPTIMIZERS
from adamlab.protocol import PHOTOGRAPHS, PROTOCOLS
from tests.claims.worlds import gupta, madan, write_run

LAWN = PROTOCOLS["lawn-paper"]
PHOTOGRAPHED = replace(LAWN, **PHOTOGRAPHS["lawn-paper"])


def test_runs_of_another_protocol_precision_or_batch_are_not_compared(tmp_path):
    paper = madan(tmp_path / "a", seeds=(0,), only=[("plain20", None, None)])
    bf16 = madan(tmp_path / "b", seeds=(0,), only=[("plain20", None, None)], precision="bf16")
    laptop = madan(tmp_path / "c", seeds=(0,), only=[("plain20", None, None)], protocol=PROTOCOLS["laptop"])
    studies = split("all", paper + bf16 + laptop)
    assert [study.scope for study in studies] == [
        "the paper's protocol",
        "the paper's protocol, bf16",
        "reduced: 3,000 images, 5 epochs",
    ]
    # What is less than the paper's, or is not its BatchNorm, is not the paper's.
    for variant in ({"microbatch": 10}, {"norm_group": 10}):
        cut = madan(tmp_path / str(variant), seeds=(0,), only=[("plain20", None, None)], **variant)
        assert split("all", cut)[0].scope == "reduced: 50,000 images, 15 epochs, batches in parts"
    fewer = replace(PROTOCOLS["lawn-paper"], test_images=100)
    large = [RunConfig("cifar10", "vgg19", protocol) for protocol in (PROTOCOLS["lawn-paper"], fewer)]
    large.append(replace(large[0], microbatch=64))
    lines = [{"epoch": 1, "train_loss": 1.0, "test_loss": 1.0, "test_accuracy": 0.3}]
    scopes = [split("large", [write_run(tmp_path / str(n), c, lines)])[0].scope for n, c in enumerate(large)]
    assert scopes == [
        "the paper's protocol",
        "reduced: vgg19, 50,000 images, 300 epochs",
        "the paper's protocol, batches in parts",
    ]
    # Batch sizes are what a study of them compares.
    assert len(split("lawn", gupta(tmp_path / "d", seeds=(0,)))) == 1


def test_runs_on_another_data_set_are_not_compared(tmp_path):
    studies = split("both", gupta(tmp_path, seeds=(0,)) + gupta(tmp_path, seeds=(0,), dataset="cifar100"))
    assert [study.dataset for study in studies] == ["cifar10", "cifar100"]


@pytest.mark.parametrize(
    ("dataset", "model", "protocol", "scope"),
    [
        ("cifar100", "vgg19", LAWN, "the paper's protocol"),
        ("cifar100", "resnet50", LAWN, "reduced: resnet50, 50,000 images, 300 epochs"),
        ("imagenet2012:5.1.0", "resnet50", PHOTOGRAPHED, "the paper's protocol"),
        ("imagenet2012", "vgg19", PHOTOGRAPHED, "reduced: vgg19, 1,281,167 images, 90 epochs"),
        ("imagenet2012", "resnet50", LAWN, "reduced: resnet50, 50,000 images, 300 epochs"),
    ],
)
def test_each_data_set_has_the_network_and_the_protocol_of_the_paper(dataset, model, protocol, scope, tmp_path):
    """Whichever version of the data set."""
    [study] = split("large", [write_run(tmp_path, RunConfig(dataset, model, protocol), [])])
    assert (study.dataset, study.scope) == (dataset.partition(":")[0], scope)


def test_tuning_digits_variants_and_unfinished_runs_are_not_judged(tmp_path):
    config = RunConfig("cifar10", "resnet34", PROTOCOLS["paper"])
    left_out = [
        replace(config, dataset="digits"),
        replace(config, dataset="cifar100"),  # the sensitivity paper has CIFAR-10 alone
        replace(config, stem="cifar"),
        replace(config, model="plain20", downsample="first"),
        replace(config, epsilon_placement="inside"),
        replace(config, protocol=replace(config.protocol, evaluate_on="validation")),
    ]
    epochs = [{"epoch": 1, "train_loss": 1.0, "test_loss": 1.0, "test_accuracy": 0.3}]
    runs = [write_run(tmp_path / str(place), config, epochs) for place, config in enumerate(left_out)]
    unfinished = replace(write_run(tmp_path / "unfinished", config, epochs), outcome=None)
    assert split("none", [*runs, unfinished]) == []
    assert judge("none", [*runs, unfinished]) == []


def test_at_the_papers_protocol_all_of_its_batch_sizes_are_asked_for(tmp_path):
    runs = []
    for optimizer in ("adam", "adam_lawn"):
        for batch in (256, 10_000):
            protocol = replace(PROTOCOLS["lawn-paper"], batch_size=batch)
            for seed in range(3):
                config = RunConfig(
                    "cifar10", "vgg19", protocol, OPTIMIZERS[optimizer].defaults, seed, optimizer=optimizer
                )
                accuracy = 0.9 + 0.01 * (optimizer == "adam_lawn") + 0.0001 * seed * len(optimizer)
                numbers = {"train_loss": 0.01, "test_loss": 1.0, "test_accuracy": accuracy}
                runs.append(write_run(tmp_path, config, [{"epoch": e, **numbers} for e in range(1, 301)]))
    [judgement] = judge("lawn", runs, [claim for claim in CLAIMS if claim.name == "L1"])
    assert judgement.study.scope == "the paper's protocol"
    assert [found.state() for found in judgement.numbers] == ["holds", "missing", "holds"]
    assert judgement.verdict == "inconclusive"
    assert describe(decisive(judgement)) == "Adam-LAWN - Adam, batch 4,000: accuracy: not run; claimed: above 0 points"


def test_at_the_papers_protocol_lamb_lawn_is_judged_where_the_paper_has_it(tmp_path):
    runs = []
    for optimizer in ("adam", "adam_lawn", "lamb_lawn"):
        protocol = replace(PROTOCOLS["lawn-paper"], batch_size=10_000)
        config = RunConfig("cifar10", "vgg19", protocol, OPTIMIZERS[optimizer].defaults, optimizer=optimizer)
        runs.append(write_run(tmp_path, config, [], "diverged"))
    assert lawn.l8(split("lawn", runs)[0])[0].why == "the paper has it on ImageNet"
