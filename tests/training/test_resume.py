"""Stopped anywhere and continued from its checkpoint, a run is the uninterrupted one, to the bit."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from adamlab.training import Interrupted, feed, group, train
from adamlab.training.checkpoint import Checkpoints
from tests.faults.study import without_times
from tests.training.runs import CONFIG, PROTOCOL


@pytest.fixture(scope="module")
def uninterrupted(digits):
    return list(train(CONFIG, digits))


@pytest.mark.parametrize("stop_after", [1, 2])
def test_resumed_run_repeats_the_uninterrupted_one_bit_for_bit(digits, uninterrupted, tmp_path, stop_after):
    checkpoints = Checkpoints(tmp_path / "checkpoint", minutes=0)
    first = train(CONFIG, digits, checkpoints)
    records = [next(first) for _ in range(stop_after + 1)]  # the record after the checkpoint is lost in a crash
    first.close()
    checkpoints.close()
    resumed = list(train(CONFIG, digits, Checkpoints(tmp_path / "checkpoint")))
    assert without_times(records[:stop_after] + resumed) == without_times(uninterrupted)


@pytest.fixture(scope="module")
def step_by_step(digits):
    """The uninterrupted records in `one_step_chunks`: of another program, so perhaps of other last bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "MAX_CHUNK", 1)
        return list(train(CONFIG, digits))


class StopAfter:
    """Says stop once so many chunks are done, and when it last did not."""

    def __init__(self, chunks):
        self.left = chunks

    def __call__(self):
        self.left -= 1
        return self.left <= 0


@pytest.mark.parametrize("chunks", [1, 3, 4, 5, 6])  # of the first epoch: 4; the fifth question is asked at its end
def test_stopped_anywhere_and_resumed_is_the_same_as_uninterrupted(
    digits, tmp_path, step_by_step, one_step_chunks, chunks
):
    records, checkpoints = [], Checkpoints(tmp_path / "checkpoint")
    with pytest.raises(Interrupted):
        records.extend(record for record in train(CONFIG, digits, checkpoints, stop=StopAfter(chunks)))
    checkpoints.close()
    position = Checkpoints(tmp_path / "checkpoint").find(CONFIG)
    assert (position.epochs, len(position.losses)) == {1: (0, 1), 3: (0, 3), 4: (0, 4), 5: (1, 0), 6: (1, 1)}[chunks]
    resumed = list(train(CONFIG, digits, Checkpoints(tmp_path / "checkpoint")))
    assert without_times(step_by_step)[position.epochs :] == without_times(resumed)


def test_checkpoints_fall_within_an_epoch_when_they_are_due(digits, tmp_path, one_step_chunks):
    """With 0 minutes between two: after each step but an epoch's last, whose checkpoint is the epoch's."""
    saved = []

    class Watched(Checkpoints):
        def save(self, config, position, state):
            saved.append((position.epochs, len(position.losses)))

    list(train(replace(CONFIG, protocol=replace(PROTOCOL, epochs=2)), digits, Watched(tmp_path / "c", minutes=0)))
    assert saved == [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)]


def test_checkpoints_fall_between_epochs_when_they_are_due_there(digits, tmp_path, one_step_chunks):
    """And only then: within the epochs these are not."""
    saved = []

    class Watched(Checkpoints):
        def due(self, epoch_ended):
            return epoch_ended and not saved

        def save(self, config, position, state):
            saved.append((position.epochs, len(position.losses)))

    list(train(CONFIG, digits, Watched(tmp_path / "c")))
    assert saved == [(1, 0)]


def test_the_time_that_training_takes_is_without_checkpoints(digits, monkeypatch, one_step_chunks):
    """On a clock of which everything takes a second, and a report or checkpoint an hour."""
    clock = SimpleNamespace(now=0.0)

    def perf_counter():
        clock.now += 1
        return clock.now

    def report(epoch, step, loss):
        clock.now += 3600

    monkeypatch.setattr(group, "time", SimpleNamespace(perf_counter=perf_counter, sleep=lambda seconds: None))
    record = next(train(CONFIG, digits, report=report))
    assert 0 < record["seconds"] < 3600
    assert record["images_per_second"] > 200 / 3600


def test_augmented_and_resumed_is_the_same_as_uninterrupted(digits, tmp_path):
    config = replace(CONFIG, protocol=replace(PROTOCOL, augment=True))
    whole = list(train(config, digits))
    first = train(config, digits, Checkpoints(tmp_path / "checkpoint", minutes=0))
    records = [next(first) for _ in range(2)]
    first.close()
    resumed = list(train(config, digits, Checkpoints(tmp_path / "checkpoint")))
    assert without_times(records[:1] + resumed) == without_times(whole)
    assert whole[0]["train_loss"] != next(train(CONFIG, digits))["train_loss"]
