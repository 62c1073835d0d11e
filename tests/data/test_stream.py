"""Photographs from disk: each once, in the order of seed and epoch, the same pixels whoever reads them and when."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import adamlab.data
from adamlab.data.pixels import center_crop
from adamlab.data.stream import Source, read
from tests.data import photos
from tests.data.streams import SIZE, epochs, hashes, joined, plan, stored

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dataset(snapshots):
    return adamlab.data.load(photos.NAME, snapshots, workers=0)


def test_what_is_found_is_what_was_written(dataset):
    assert (dataset.name, dataset.train_size, dataset.test_size, dataset.num_classes) == (photos.NAME, 64, 13, 3)
    assert dataset.contents == "version 1.0.0, 64 and 13 images of 3 classes"
    assert len(dataset.train.paths) == 3  # several files, so that places cross them
    assert (dataset.mean, dataset.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_a_set_with_both_is_evaluated_on_its_validation_images(tmp_path):
    """ImageNet's test labels are secret: all of them are -1."""
    secret = {name: (encoded, -1) for name, (encoded, _) in photos.photos(5, seed=2).items()}
    splits = {"train": photos.photos(4, seed=0), "test": secret, "validation": photos.photos(3, seed=1)}
    photos.write(tmp_path, splits, shards=1, name="both")
    found = adamlab.data.load("both", tmp_path, workers=0)
    evaluated = Source(plan(found, train_images=4, batch_size=4, test_images=3, test_batch=3), 1)[1]
    assert found.test_size == 3
    assert sorted(evaluated["label"]) == [0, 1, 2]


def test_every_test_image_once_with_pillows_pixels(dataset, snapshots):
    ((_, pieces),) = epochs(Source(plan(dataset), 1))
    mask, expected = joined(pieces, "mask"), stored(dataset, snapshots, "validation")
    assert mask.tolist() == 13 * [True] + 3 * [False]
    for image, label, (encoded, stored_label) in zip(
        joined(pieces)[:13], joined(pieces, "label"), expected, strict=False
    ):
        np.testing.assert_array_equal(image, center_crop(encoded, SIZE))  # which is tested against Pillow
        assert label == stored_label


@pytest.mark.parametrize("pieces", [1, 2])
def test_two_processes_share_every_epoch_and_every_batch(dataset, snapshots, pieces):
    """Each training image once, of 64 in 4 steps; and a step's batch is that of one process, piece by piece."""
    everything = hashes(center_crop(encoded, SIZE) for encoded, _ in stored(dataset, snapshots, "train"))
    assert set(everything.values()) == {1}
    whole = epochs(Source(plan(dataset), 2))
    shares = [epochs(Source(plan(dataset, pieces=pieces, process=k, processes=2, test_batch=4), 2)) for k in range(2)]
    for epoch in range(2):
        first, second = (joined(share[epoch][0]) for share in shares)
        assert hashes(first) + hashes(second) == everything
        # A step is `pieces` pieces, of which each process has half: 16 images of 2 x 8 or 2 x 2 x 4.
        halves = [half.reshape(4, pieces, -1, SIZE, SIZE, 3) for half in (first, second)]
        batches = np.concatenate(halves, axis=2).reshape(64, SIZE, SIZE, 3)
        np.testing.assert_array_equal(batches, joined(whole[epoch][0]))
        tested = [joined(share[epoch][1])[joined(share[epoch][1], "mask")] for share in shares]
        assert hashes(tested[0]) + hashes(tested[1]) == hashes(joined(whole[epoch][1])[:13])


def test_order_and_crops_depend_on_seed_and_epoch_alone(dataset):
    found = {}
    for augment in (False, True):
        for seed in (0, 1):
            first, second = epochs(Source(plan(dataset, seed=seed, augment=augment), 2))
            found[augment, seed, 1], found[augment, seed, 2] = joined(first[0]), joined(second[0])
    np.testing.assert_array_equal(found[True, 0, 1], joined(epochs(Source(plan(dataset, augment=True), 1))[0][0]))
    for one, other in (((0, 1), (0, 2)), ((0, 1), (1, 1))):
        centres, crops = ((found[augment, *one], found[augment, *other]) for augment in (False, True))
        assert hashes(centres[0]) == hashes(centres[1])
        assert (centres[0] != centres[1]).any()
        # No image is cut twice in the same way, but some of the 12 of 400 x 60 pixels: where no crop fits, the centre.
        assert (hashes(crops[0]) & hashes(crops[1])).total() <= 12


def test_no_two_crops_of_an_epoch_are_drawn_alike(dataset, monkeypatch):
    """Each shows, as its pixels, three numbers of the generator that decides it."""

    def drawn(encoded, size, generator):
        return np.broadcast_to(generator.integers(0, 256, 3, np.uint8), (size, size, 3))

    monkeypatch.setattr("adamlab.data.stream.random_crop", drawn)
    images = np.concatenate([joined(training) for training, _ in epochs(Source(plan(dataset, augment=True), 2))])
    assert len(np.unique(images[:, 0, 0], axis=0)) == len(images) == 2 * 64


def test_images_held_out_for_tuning_are_the_last_training_images(dataset, snapshots):
    ((training, evaluation),) = epochs(Source(plan(dataset, train_images=48, evaluate_on="validation"), 1))
    centres = [center_crop(encoded, SIZE) for encoded, _ in stored(dataset, snapshots, "train")]
    assert hashes(joined(training)) == hashes(centres[:48])
    np.testing.assert_array_equal(joined(evaluation)[:13], centres[-13:])


def test_workers_lose_nothing_double_nothing_and_change_no_pixel(dataset):
    """Two processes, and a start in the middle of the second epoch, give what this process makes one by one."""
    source = Source(plan(dataset, augment=True), 2)
    alone = [source[index] for index in range(len(source))]
    for workers, start in ((0, 0), (2, source.position(1, 2))):
        spread = replace(source, plan=source.plan._replace(dataset=replace(dataset, workers=workers)), start=start)
        together = list(read(spread))
        assert len(together) == len(alone) - start
        for one, other in zip(alone[start:], together, strict=True):
            assert one["skipped"] == other["skipped"]
            for name in ("image", "label", "mask"):
                np.testing.assert_array_equal(one[name], other[name])


def test_workers_leave_ctrl_c_and_sigterm_to_their_parent(dataset):
    """A terminal and SLURM send them to all processes, and the parent still wants images, until it has saved."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it
    try:
        pieces = read(Source(plan(replace(dataset, workers=1)), 10))
        next(pieces)
    finally:
        signal.signal(signal.SIGINT, before)
    workers = multiprocessing.active_children()
    assert workers
    for worker in workers:
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    assert len(list(pieces)) == 10 * (4 + 2) - 1  # four steps and two batches of test images an epoch


FOLLOWING = """
import multiprocessing, sys, time
from adamlab.data import load
from adamlab.data.stream import Source, read
from tests.data.streams import plan
if __name__ == "__main__":
    pieces = read(Source(plan(load("snapshots", sys.argv[1], workers=2)), 10**6))
    next(pieces), next(pieces)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes through /proc")
def test_workers_end_with_a_killed_parent(snapshots, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(FOLLOWING)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(program), str(snapshots)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 2
        assert all(Path(f"/proc/{pid}").exists() for pid in workers)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60

    def alive(pid):
        status = Path(f"/proc/{pid}/stat")
        return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"

    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in workers)


def test_tensorflow_is_not_imported(snapshots):
    program = f"""
import sys
import adamlab.data
assert "grain" not in sys.modules and "tensorflow_datasets" not in sys.modules
from adamlab.data.stream import Source, read
from tests.data.streams import plan
next(read(Source(plan(adamlab.data.load("snapshots", {str(snapshots)!r}, workers=0)), 1)))
assert "tensorflow" not in sys.modules and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
