"""Photographs from disk: each once, in the order of seed and epoch, the same pixels whoever reads them and when."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

import adamlab.data
from adamlab.data import DataError
from adamlab.data.pixels import center_crop
from adamlab.data.stream import Plan, Source, read
from tests.data import photos

ROOT = Path(__file__).parents[2]
SIZE = 32


@pytest.fixture
def dataset(snapshots):
    return adamlab.data.load(photos.NAME, snapshots, workers=0)


def plan(dataset, **others):
    numbers = {"train_images": 64, "batch_size": 16, "pieces": 1, "held_out": False, "test_images": 13, "test_batch": 8}
    return Plan(dataset, **({"seed": 0, "size": SIZE, "augment": False} | numbers | others))


def epochs(source):
    """The pieces of each epoch, as (training, evaluation)."""
    per_epoch, steps = source.position(1, 0), source.position(0, source.plan.steps)
    pieces = [source[index] for index in range(len(source))]
    split = [pieces[first : first + per_epoch] for first in range(0, len(pieces), per_epoch)]
    return [(epoch[:steps], epoch[steps:]) for epoch in split]


def joined(pieces, name="image"):
    return np.concatenate([piece[name] for piece in pieces])


def hashes(images):
    return Counter(hashlib.sha256(image.tobytes()).hexdigest() for image in images)


def stored(dataset, folder, split):
    """Each encoded image of a split and its label, in the order of the records, as tensorflow-datasets reads them."""
    builder = tfds.builder_from_directory(folder / dataset.name / "1.0.0")
    decoders = {"image": tfds.decode.SkipDecoding()}
    return [(bytes(x["image"]), int(x["label"])) for x in builder.as_data_source(split, decoders=decoders)]


def test_what_is_found_is_what_was_written(dataset):
    assert (dataset.name, dataset.train_size, dataset.test_size, dataset.num_classes) == (photos.NAME, 64, 13, 3)
    assert dataset.contents == "version 1.0.0, 64 and 13 images of 3 classes"
    assert len(dataset.train.paths) == 3  # several files, so that places cross them
    assert (dataset.mean, dataset.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


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
    ((training, evaluation),) = epochs(Source(plan(dataset, train_images=48, held_out=True), 1))
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


FOLLOWING = """
import multiprocessing, sys, time
from adamlab.data import load
from adamlab.data.stream import Plan, Source, read
if __name__ == "__main__":
    plan = Plan(load("snapshots", sys.argv[1], workers=2), 0, 32, False, 64, 16, 1, False, 13, 8)
    pieces = read(Source(plan, 10**6))
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


def damaged(folder):
    """A set whose photo number 7 is cut off and number 8 is no image at all; of its test images, number 2."""
    train, test = photos.photos(32, seed=5), photos.photos(5, seed=6)
    train["photo_5_7.jpg"] = (train["photo_5_7.jpg"][0][:2000], 1)
    train["photo_5_8.jpg"] = (b"not a JPEG", 2)
    test["photo_6_2.jpg"] = (test["photo_6_2.jpg"][0][:500], 2)
    photos.write(folder, {"train": train, "test": test}, shards=2, name="damaged")
    return train, test


def test_a_corrupt_image_is_an_error_or_left_out_by_name(tmp_path):
    train, test = damaged(tmp_path)
    strict = adamlab.data.load("damaged", tmp_path, workers=0)
    numbers = {"train_images": 32, "batch_size": 8, "test_images": 5, "test_batch": 5}
    with pytest.raises(
        DataError, match=r"record \d+ of .*damaged-train.array_record-0000\d-of-00002, file name photo_5"
    ):
        epochs(Source(plan(strict, **numbers), 1))

    lenient = adamlab.data.load("damaged", tmp_path, workers=0, skip_corrupt=True)
    assert "left out" in lenient.note
    ((training, evaluation),) = epochs(Source(plan(lenient, **numbers), 1))
    skipped = {name for piece in training for name in piece["skipped"]}
    assert len(skipped) == 2
    assert all(any(f"file name photo_5_{n}.jpg, cannot be decoded" in name for name in skipped) for n in (7, 8))
    # Batches stay whole: 32 images, of which the 30 that can be decoded are all there, and the next ones stand in.
    assert [len(piece["image"]) for piece in training] == 4 * [8]
    order = stored(lenient, tmp_path, "train")
    broken = {train["photo_5_7.jpg"][0], train["photo_5_8.jpg"][0]}
    expected = []
    for place in range(32):
        while order[place % 32][0] in broken:
            place += 1
        expected.append(center_crop(order[place % 32][0], SIZE))
    assert hashes(joined(training)) == hashes(expected)
    # A test image that cannot be decoded does not count, and nothing counts for it.
    mask = joined(evaluation, "mask")
    assert mask.sum() == 4
    good = [center_crop(x, SIZE) for x, _ in stored(lenient, tmp_path, "test") if x != test["photo_6_2.jpg"][0]]
    assert hashes(joined(evaluation)[mask]) == hashes(good)


def test_a_worker_reports_a_corrupt_image_too(tmp_path):
    damaged(tmp_path)
    dataset = adamlab.data.load("damaged", tmp_path, workers=1)
    numbers = {"train_images": 32, "batch_size": 8, "test_images": 5, "test_batch": 5}
    with pytest.raises(DataError, match=r"file name photo_5_[78].jpg, cannot be decoded"):
        list(read(Source(plan(dataset, **numbers), 1)))


def test_where_no_image_can_be_decoded_leaving_out_ends(tmp_path):
    junk = {f"{number}.jpg": (b"junk", 0) for number in range(4)}
    photos.write(tmp_path, {"train": junk, "test": junk}, shards=1, name="junk")
    dataset = adamlab.data.load("junk", tmp_path, workers=0, skip_corrupt=True)
    source = Source(plan(dataset, train_images=4, batch_size=4, test_images=4, test_batch=4), 1)
    with pytest.raises(DataError, match="no training image of junk can be decoded"):
        source[0]


def copied(snapshots, folder):
    target = folder / photos.NAME / "1.0.0"
    target.mkdir(parents=True)
    for path in (snapshots / photos.NAME / "1.0.0").iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def edit_info(folder, **entries):
    path = folder / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_what_is_not_there_or_not_right_is_said_in_one_line(snapshots, tmp_path):
    def refusal(name=photos.NAME):
        with pytest.raises(DataError) as refused:
            adamlab.data.load(name, tmp_path)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    for part in (f"imagenet2012 is not prepared in {tmp_path}", "by hand", "docs/imagenet.md", "--data-dir"):
        assert part in refusal("imagenet2012")
    for part in (f"cifar01 is not prepared in {tmp_path}", "auto, cifar10, cifar100, digits, synthetic"):
        assert part in refusal("cifar01")
    assert "cannot be read" in refusal("../snapshots")

    folder = copied(snapshots, tmp_path)
    shard = sorted(folder.glob("*-train.array_record-*"))[1]
    shard.rename(tmp_path / "elsewhere")
    assert f"lacks 1 of the 3 files of train, first {shard}" in refusal()
    (tmp_path / "elsewhere").rename(shard)
    edit_info(folder, fileFormat="tfrecord")
    assert "is prepared as tfrecord, not array_record" in refusal()
    edit_info(folder, fileFormat="array_record", supervisedKeys=None)
    assert "is no image classification set" in refusal()
    edit_info(folder, supervisedKeys={"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}})
    features = json.loads((folder / "features.json").read_text())
    image = features["featuresDict"]["features"]["image"]["image"]
    image |= {"dtype": "uint16", "encodingFormat": "png"}
    (folder / "features.json").write_text(json.dumps(features))
    assert "of 8 bits a channel" in refusal()
    (folder / "dataset_info.json").write_text("{")
    assert "cannot be read" in refusal()


def test_a_cut_off_file_is_said_by_name(snapshots, tmp_path):
    folder = copied(snapshots, tmp_path)
    shard = sorted(folder.glob("*-train.array_record-*"))[0]
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    dataset = adamlab.data.load(photos.NAME, tmp_path, workers=0)
    with pytest.raises(DataError, match=shard.name):
        epochs(Source(plan(dataset), 1))


def test_tensorflow_is_not_imported(snapshots):
    program = f"""
import sys
import adamlab.data
assert "grain" not in sys.modules and "tensorflow_datasets" not in sys.modules
from adamlab.data.stream import Plan, Source, read
plan = Plan(adamlab.data.load("snapshots", {str(snapshots)!r}, workers=0), 0, 32, False, 64, 16, 1, False, 13, 8)
next(read(Source(plan, 1)))
assert "tensorflow" not in sys.modules and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
