"""The large-batch study on photographs: as a person meets it on a small set, and what it is on ImageNet."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from adamlab import records
from adamlab.config import RunConfig
from adamlab.data import StreamDataset
from adamlab.data.dataset import Records
from adamlab.hyperparameters import OPTIMIZERS
from experiments import cells, large_batch
from experiments.options import choose_protocol
from tests.data import photos

ROOT = Path(__file__).parents[2]
# As tensorflow-datasets' catalogue has it: 1,281,167 images to train on, 50,000 to validate on.
IMAGENET = StreamDataset(
    "imagenet2012",
    Records(("train",), (1_281_167,), "image", "label"),
    Records(("validation",), (50_000,), "image", "label"),
    1000,
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)


def configs_of(*arguments, dataset=IMAGENET):
    parsed = large_batch.parse_arguments(list(arguments))
    protocol = choose_protocol(parsed, dataset, True, large_batch.PREFIX)
    return large_batch.make_configs(parsed, dataset.name, protocol)


def test_imagenet_is_the_papers():
    """ResNet-50, 90 epochs, batch 256 and 16k, section 3.2; every cell says where its hyperparameters are from."""
    configs = configs_of("--table=2")
    assert {(c.optimizer, c.protocol.batch_size) for c in configs} == {
        (optimizer, size) for optimizer in ("sgd", "sgd_lawn", "adam", "adam_lawn") for size in (256, 16_000)
    }
    assert {(c.model, c.protocol.epochs, c.protocol.image_size, c.protocol.train_images) for c in configs} == {
        ("resnet50", 90, 224, 1_281_167)
    }
    assert {c.protocol.steps_per_epoch for c in configs} == {5004, 80}
    assert records.study_name(configs[0]) == "imagenet2012-lawn-paper"
    assert {c.protocol.batch_size for c in configs_of("--table=1")} == {256, 16_000}
    versioned = replace(IMAGENET, name="imagenet2012:5.1.0")
    assert {c.protocol.batch_size for c in configs_of("--table=2", dataset=versioned)} == {256, 16_000}
    for optimizer in OPTIMIZERS:
        found = cells.cell("imagenet2012", "resnet50", configs[0].protocol, optimizer, 256)
        assert found.origin in ("literature", "start")
        RunConfig("imagenet2012", "resnet50", configs[0].protocol, found.hyperparameters, optimizer=optimizer)
    # Goyal et al. 2017, sections 5.1 and 2.1, the linear rule; Adam by the square root.
    sgd, adam = (
        [cells.starting_point(configs[0].protocol, name, size).hyperparameters for size in (256, 16_000)]
        for name in ("sgd", "adam")
    )
    assert [(h.weight_decay, h.warmup_epochs) for h in sgd] == 2 * [(1e-4, 5.0)]
    np.testing.assert_allclose([h.alpha for h in sgd], [0.1, 6.25], rtol=1e-3)
    np.testing.assert_allclose([h.alpha for h in adam], [1e-3, 1e-3 * (16_000 / 256) ** 0.5], rtol=1e-3)


def test_smaller_protocols_cut_smaller_images():
    for protocol, model, size in (("laptop", "plain20", 64), ("smoke", "plain20", 32)):
        config = configs_of(f"--protocol={protocol}")[0]
        assert (config.model, config.protocol.image_size) == (model, size)
    assert configs_of("--protocol=laptop", "--image-size=96")[0].protocol.image_size == 96
    small = replace(IMAGENET, train=Records(("train",), (9_469,), "image", "label"))
    assert configs_of("--batch-size=256", dataset=small)[0].protocol.train_images == 9_469


def start(snapshots, out):
    """The study, of a small net, in a group of processes of its own, as SLURM starts one."""
    arguments = [f"--dataset={photos.NAME}", f"--data-dir={snapshots}", "--protocol=smoke", "--optimizer=adam_lawn"]
    arguments += ["--batch-size=8", "--seeds=1", "--train-images=16", "--test-images=5", "--epochs=20", "--workers=1"]
    command = [sys.executable, "-m", "tests.training.small", "experiments.large_batch", *arguments, f"--out={out}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)


def test_a_study_trains_on_photographs_and_is_preempted_with_its_workers(snapshots, tmp_path):
    process = start(snapshots, tmp_path)
    while sum(path.read_text().count("\n") for path in tmp_path.glob("*/*/*/*/metrics.jsonl")) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGTERM)
    output, errors = process.communicate()
    assert process.returncode == 143, errors
    assert "1 run of 20 epochs on snapshots: protocol lawn-smoke, 16 training and 5 test images" in output

    finished = start(snapshots, tmp_path)
    output, errors = finished.communicate()
    assert (finished.returncode, errors) == (0, "")
    assert "continued after" in output
    assert "The paper's numbers are for ResNet-50, all of ImageNet and 90 epochs." in output
    table = records.load(tmp_path)
    assert table["epoch"].tolist() == list(range(1, 21))
    assert set(table["image_size"]) == {32}
    assert np.isfinite(table[["train_loss", "test_loss"]]).all(axis=None)
    assert table["test_accuracy"].between(0, 1).all()
