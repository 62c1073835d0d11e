"""A run on photographs from disk is that on the same pixels in memory; it continues anywhere, and leaves nothing."""

import gc
import logging
import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pytest

import adamlab.data
from adamlab.config import RunConfig
from adamlab.data import ArrayDataset, DataError
from adamlab.data.stream import Source
from adamlab.files import RecordsError
from adamlab.hyperparameters import ConfigError
from adamlab.protocol import Protocol
from adamlab.training import train
from adamlab.training.feed import StreamFeed, make_feed
from adamlab.training.parallel import Devices
from tests.data import photos

PROTOCOL = Protocol("photographs", 64, 13, batch_size=16, epochs=2, image_size=32)
AUGMENTED = replace(PROTOCOL, augment=True)


@pytest.fixture
def dataset(snapshots):
    return adamlab.data.load(photos.NAME, snapshots, workers=0)


@pytest.fixture
def short_chunks(monkeypatch):
    """Two of an epoch's four steps in a chunk."""
    monkeypatch.setattr("adamlab.training.feed.MAX_CHUNK_BYTES", 2 * 16 * 32 * 32 * 3)


def config(protocol=AUGMENTED, **others):
    return RunConfig(photos.NAME, "small", protocol, **others)


def chunks(feed, epoch, done=0):
    return [{name: np.asarray(array) for name, array in chunk.data.items()} for chunk in feed.chunks(epoch, done)]


def in_memory(dataset):
    """The same images, cut as they are for evaluation, as arrays in the order of the records."""
    probe = StreamFeed(dataset, config(), Devices())
    everything = Source(probe._plan, 1)
    splits = [
        everything._read(records, np.arange(size), None, substitute=False)
        for records, size in ((dataset.train, dataset.train_size), (dataset.test, dataset.test_size))
    ]
    train_split, test_split = ({name: split[name] for name in ("image", "label")} for split in splits)
    return ArrayDataset(dataset.name, train_split, test_split, dataset.num_classes, dataset.mean, dataset.std)


def test_training_from_disk_is_training_on_the_same_images_in_memory(dataset):
    arrays = replace(PROTOCOL, image_size=None)
    runs = [list(train(config(p), d)) for p, d in ((PROTOCOL, dataset), (arrays, in_memory(dataset)))]
    for one, other in zip(*runs, strict=True):
        # Two programs, of which one picks its images itself: the same but for the order of float32 sums.
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
        assert one["test_loss"] == pytest.approx(other["test_loss"], rel=1e-5)
        assert one["test_accuracy"] == other["test_accuracy"]


def test_a_feed_continues_within_an_epoch_with_the_same_pixels(dataset, short_chunks):
    whole = StreamFeed(dataset, config(), Devices())
    uninterrupted = {epoch: chunks(whole, epoch) for epoch in (1, 2)}
    assert [chunk["image"].shape for chunk in uninterrupted[2]] == 2 * [(2, 16, 32, 32, 3)]
    continued = StreamFeed(dataset, config(), Devices())
    for again in (chunks(continued, 2, done=2), chunks(whole, 2, done=2)):
        for one, other in zip(again, uninterrupted[2][1:], strict=True):
            np.testing.assert_array_equal(one["image"], other["image"])
            np.testing.assert_array_equal(one["label"], other["label"])
    with pytest.raises(RecordsError, match="a checkpoint must end a chunk of 2 steps, got 1"):
        chunks(continued, 2, done=1)


def test_evaluation_is_the_same_whenever_it_is_asked_for(dataset):
    feed = StreamFeed(dataset, config(), Devices())
    first = list(feed.evaluation())
    chunks(feed, 2)
    later = list(feed.evaluation())
    assert sum(int(np.sum(batch["mask"])) for batch in first) == 13
    for one, other in zip(first, later, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])


def test_two_devices_get_halves_of_every_batch(dataset):
    one, two = (chunks(StreamFeed(dataset, config(), Devices(count)), 1)[0] for count in (1, 2))
    assert two["image"].shape == (2, 4, 8, 32, 32, 3)
    np.testing.assert_array_equal(np.concatenate(two["image"], axis=1), one["image"])
    masks = [np.asarray(batch["mask"]) for batch in StreamFeed(dataset, config(), Devices(2)).evaluation()]
    assert [mask.shape for mask in masks] == [(2, 1, 7)]
    assert sum(mask.sum() for mask in masks) == 13


def test_the_probe_is_the_first_training_images_uncut(dataset):
    probe, arrays = StreamFeed(dataset, config(), Devices()).probe, in_memory(dataset)
    np.testing.assert_array_equal(probe["image"], arrays.train["image"])


def test_workers_end_with_their_feed_and_one_that_is_killed_is_said(dataset, short_chunks):
    feed = StreamFeed(replace(dataset, workers=1), config(replace(AUGMENTED, epochs=200)), Devices())
    expected = chunks(StreamFeed(dataset, config(), Devices()), 1)
    run = (item for epoch in range(1, 201) for part in (feed.chunks(epoch), feed.evaluation()) for item in part)
    np.testing.assert_array_equal(next(run).data["image"], expected[0]["image"])
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(DataError, match=r"a worker that decodes images ended: .*; try fewer --workers"):
        list(run)  # what the worker had made before is still there

    feed = StreamFeed(replace(dataset, workers=1), config(), Devices())
    next(feed.chunks(1))
    assert len(multiprocessing.active_children()) == 1
    del feed
    gc.collect()
    assert multiprocessing.active_children() == []


def test_a_left_out_image_is_named_once(tmp_path, caplog):
    photos.damaged(tmp_path)
    dataset = adamlab.data.load("damaged", tmp_path, workers=0, skip_corrupt=True)
    protocol = replace(AUGMENTED, train_images=32, test_images=5)
    feed = StreamFeed(dataset, config(protocol), Devices())
    with caplog.at_level(logging.WARNING, logger="adamlab"):
        for epoch in (1, 2):
            assert sum(len(chunk["image"]) * 16 for chunk in chunks(feed, epoch)) == 32
            assert sum(int(np.sum(batch["mask"])) for batch in feed.evaluation()) == 4
    names = [record.getMessage() for record in caplog.records]
    assert len(names) == 3
    for number in ("5_7", "5_8", "6_2"):
        assert sum(f"file name photo_{number}.jpg, cannot be decoded" in name for name in names) == 1


def test_where_nothing_is_left_to_evaluate_the_run_ends(tmp_path):
    junk = {f"{number}.jpg": (b"junk", 0) for number in range(3)}
    photos.write(tmp_path, {"train": photos.photos(16, seed=5), "test": junk}, shards=1, name="untestable")
    dataset = adamlab.data.load("untestable", tmp_path, workers=0, skip_corrupt=True)
    protocol = replace(PROTOCOL, train_images=16, test_images=3)
    with pytest.raises(DataError, match="none of the images to evaluate on can be decoded"):
        list(train(replace(config(protocol), dataset="untestable"), dataset))


def test_a_chunk_of_large_images_is_bounded(dataset, monkeypatch):
    """It divides the epoch's four steps, and is one of them at least."""
    feed, step_bytes = StreamFeed(dataset, config(), Devices()), 16 * 32 * 32 * 3
    for steps_that_fit, size in ((0.5, 1), (1.5, 1), (3.5, 2), (4, 4)):
        monkeypatch.setattr("adamlab.training.feed.MAX_CHUNK_BYTES", int(steps_that_fit * step_bytes))
        assert [len(chunk["image"]) for chunk in chunks(feed, 1)] == 4 // size * [size]


def test_a_size_is_for_photographs_and_they_need_one(dataset):
    with pytest.raises(ConfigError, match=r"image_size is for photographs: snapshots needs one, having images of any"):
        make_feed(dataset, [config(replace(PROTOCOL, image_size=None))], Devices())
    with pytest.raises(ConfigError, match=r"image_size is for photographs: digits takes none, having .* got 32"):
        make_feed(adamlab.data.load("digits"), [replace(config(), dataset="digits")], Devices())
    with pytest.raises(ConfigError, match="image_size must be at least 1, got 0"):
        replace(PROTOCOL, image_size=0)
