"""What is decided by a clock, on one that stands still but where it is told: checkpoints and recorded times."""

from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from adamlab.config import RunConfig
from adamlab.protocol import PROTOCOLS
from adamlab.training import Interrupted, checkpoint, loop, train
from adamlab.training.checkpoint import Checkpoints, Position
from tests.training.runs import CONFIG, program_and_state


@pytest.fixture
def clock(digits, monkeypatch):
    """Of which a chunk of steps takes 2 seconds, and evaluating 5."""
    program, _ = program_and_state(digits)
    clock = SimpleNamespace(now=1000.0)

    def taking(seconds, function):
        def call(*arguments):
            clock.now += seconds
            return function(*arguments)

        return call

    slow = program._replace(train_chunk=taking(2, program.train_chunk), evaluate=taking(5, program.evaluate))
    monkeypatch.setattr(loop, "build_program", lambda *arguments: slow)
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    return clock


def test_a_record_has_the_seconds_of_training_and_evaluation_and_the_images_of_training(digits, clock, one_step_chunks):
    """200 images in four chunks."""
    for record in train(CONFIG, digits):
        assert record["seconds"] == 4 * 2 + 5
        assert record["images_per_second"] == 200 / (4 * 2)


def test_an_epoch_that_was_continued_has_the_seconds_before_the_interruption(digits, clock, one_step_chunks, tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoint")
    with pytest.raises(Interrupted):
        list(train(CONFIG, digits, checkpoints, stop=lambda: clock.now >= 1000 + 2 * 2))
    clock.now += 3600  # until somebody starts it again
    record = next(train(CONFIG, digits, checkpoints))
    assert record["seconds"] == 4 * 2 + 5
    assert record["images_per_second"] == 200 / (4 * 2)


def test_a_checkpoint_is_due_again_after_its_minutes_from_the_last_one(tmp_path, monkeypatch):
    """Else it would be due after each chunk of steps, once ten minutes are over."""
    now = 1000.0
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: now))
    checkpoints = Checkpoints(tmp_path / "checkpoint", minutes=10)
    now += 600
    assert checkpoints.due(epoch_ended=False)
    checkpoints.save(RunConfig("digits", "plain20", PROTOCOLS["smoke"]), Position(1), {"kernel": jnp.ones(3)})
    assert not checkpoints.due(epoch_ended=False)
    assert not checkpoints.due(epoch_ended=True)
    now += 599
    assert not checkpoints.due(epoch_ended=False)
    now += 1
    assert checkpoints.due(epoch_ended=False)
