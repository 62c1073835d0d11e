"""What of a data set goes into a program, chunk by chunk: computed a second time, or watched on its way in."""

from dataclasses import replace

import numpy as np
import pytest

import adamlab.data
from adamlab.config import RunConfig
from adamlab.data.order import augmentation_seeds, epoch_order
from adamlab.protocol import Protocol
from adamlab.training import feed, loop, train
from adamlab.training.feed import StreamFeed, make_feed
from adamlab.training.parallel import Devices
from tests.data import photos
from tests.training.runs import CONFIG, PROTOCOL, program_and_state

PHOTOGRAPHS = Protocol("photographs", 48, 13, batch_size=16, epochs=1, image_size=32, augment=True)


def unmasked(batches, name):
    return np.asarray(batches[name])[np.asarray(batches["mask"])]


def test_the_chunks_of_an_epoch_are_its_order_piece_by_piece(digits, one_step_chunks):
    of_seed = make_feed(digits, [replace(CONFIG, seed=3)], Devices())
    for epoch in (1, 2):
        chunks = list(of_seed.chunks(epoch))
        assert len(chunks) == 4
        np.testing.assert_array_equal(np.concatenate([c.indices for c in chunks]), epoch_order(3, epoch, 200, 4, 50))
        np.testing.assert_array_equal(np.concatenate([c.seeds for c in chunks]), augmentation_seeds(3, epoch, 4))


def test_no_image_is_left_out_of_all_epochs():
    """Where the batch does not divide the images, each epoch leaves out others."""
    orders = [epoch_order(0, epoch, 13, 3, 4) for epoch in range(1, 51)]
    assert all(len(np.unique(order)) == 12 for order in orders)
    assert set(np.concatenate(orders).ravel().tolist()) == set(range(13))


def test_each_epoch_has_its_own_order_and_its_record_the_mean_loss(digits, monkeypatch):
    program, _ = program_and_state(digits)
    given, losses, probes = [], [], []

    def train_chunk(state, data, indices, seeds):
        state, chunk_losses = program.train_chunk(state, data, indices, seeds)
        given.append((indices, seeds))
        losses.append(np.asarray(chunk_losses, np.float64))
        return state, chunk_losses

    def trace(state, probe):
        probes.append(probe)
        return {}

    watched = program._replace(train_chunk=train_chunk, trace=trace)
    monkeypatch.setattr(loop, "build_program", lambda *arguments: watched)
    found = list(train(replace(CONFIG, trace_every=3), digits))
    assert len(given) == 3
    for epoch, (indices, seeds) in enumerate(given, start=1):
        np.testing.assert_array_equal(indices, epoch_order(0, epoch, 200, 4, 50))
        np.testing.assert_array_equal(seeds, augmentation_seeds(0, epoch, 4))
    assert [record["train_loss"] for record in found] == pytest.approx([each.mean() for each in losses], rel=1e-12)
    [probe] = probes
    np.testing.assert_array_equal(probe["image"], digits.train["image"][:100])


def test_an_accelerator_has_longer_chunks_with_the_same_batches(digits, monkeypatch):
    config = replace(CONFIG, protocol=replace(PROTOCOL, train_images=1_000, batch_size=10))
    batches = {}
    for kind in (None, "NVIDIA H200"):
        monkeypatch.setattr("adamlab.training.feed.accelerator", lambda kind=kind: kind)
        chunks = list(make_feed(digits, [config], Devices()).chunks(2, done=50))
        batches[kind] = np.concatenate([chunk.indices for chunk in chunks])
        assert [len(chunk.indices) for chunk in chunks] == ([25, 25] if kind is None else [50])
    np.testing.assert_array_equal(*batches.values())


def test_tuning_never_sees_a_test_image(digits):
    config = replace(CONFIG, protocol=replace(PROTOCOL, evaluate_on="validation"))
    [batches] = make_feed(digits, [config], Devices()).evaluation()
    np.testing.assert_array_equal(unmasked(batches, "image"), digits.train["image"][-70:])


def test_a_stream_is_read_as_the_configuration_says(snapshots):
    dataset = adamlab.data.load(photos.NAME, snapshots, workers=0)
    protocol = replace(PHOTOGRAPHS, evaluate_on="validation")
    config = RunConfig(photos.NAME, "small", protocol, seed=3, microbatch=8)
    plan = StreamFeed(dataset, config, Devices())._plan
    assert (plan.seed, plan.protocol, plan.evaluated_split, plan.pieces) == (3, protocol, dataset.train, 2)


def test_evaluation_batches_of_a_stream_are_one_after_the_other(snapshots, monkeypatch):
    dataset = adamlab.data.load(photos.NAME, snapshots, workers=0)
    config = RunConfig(photos.NAME, "small", PHOTOGRAPHS)
    [whole] = StreamFeed(dataset, config, Devices()).evaluation()
    monkeypatch.setattr(feed, "EVALUATION_BATCH", 8)
    parts = list(StreamFeed(dataset, config, Devices()).evaluation())
    assert len(parts) > 1
    for name in ("image", "label"):
        np.testing.assert_array_equal(np.concatenate([unmasked(p, name) for p in parts]), unmasked(whole, name))


def test_an_evaluation_counts_all_its_batches():
    class Feed:
        def evaluation(self):
            yield {"loss": 6.0, "correct": 1, "count": 4, "scaled_losses": [8.0, 4.0]}
            yield {"loss": 1.0, "correct": 1, "count": 1, "scaled_losses": [1.0, 6.0]}

    [evaluation] = loop._evaluate(lambda state, batch: batch, None, Feed(), runs=1)
    assert (evaluation.loss, evaluation.accuracy) == (7 / 5, 2 / 5)
    assert evaluation.scaled_losses.tolist() == [9 / 5, 10 / 5]
