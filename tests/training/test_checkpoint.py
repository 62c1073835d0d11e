"""Checkpoints on a real disk: exact, two of them kept, nothing half-written or damaged taken for whole."""

import errno
import json
import os
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamlab.config import RunConfig
from adamlab.files import WriteError, seal, unseal
from adamlab.hyperparameters import Hyperparameters
from adamlab.protocol import PROTOCOLS
from adamlab.records import RecordsError
from adamlab.training import checkpoint
from adamlab.training.checkpoint import Checkpoints, Position
from adamlab.training.step import TrainState

CONFIG = RunConfig("digits", "plain20", PROTOCOLS["smoke"])  # 4 steps an epoch: positions are 5 apart
MIDDLE = Position(1, (0.1 + 0.2, 1 / 3), 1.5)


def state(seed):
    params = {"kernel": jax.random.normal(jax.random.key(seed), (3, 3)), "bias": jnp.float32(seed)}
    return TrainState(params, {"mean": jnp.zeros(3)}, (jnp.int32(seed), params), {"alpha": jnp.float32(1e-3)})


def abstract(state):
    return jax.eval_shape(lambda: state)


@pytest.fixture
def folder(tmp_path):
    """Two checkpoints: after epoch 1, and within epoch 2."""
    checkpoints = Checkpoints(tmp_path / "checkpoint")
    for seed, position in enumerate([Position(1), MIDDLE], start=1):
        checkpoints.save(CONFIG, position, state(seed))
    checkpoints.close()
    return checkpoints.folder


def restored(folder, warn=pytest.fail):
    return Checkpoints(folder, warn=warn).restore(CONFIG, abstract(state(0)))


def test_what_is_restored_is_what_was_saved_to_the_bit(folder):
    position, found = restored(folder)
    assert position == MIDDLE
    assert isinstance(found, TrainState)
    jax.tree.map(np.testing.assert_array_equal, found, state(2))


def test_the_newest_two_are_kept(folder):
    Checkpoints(folder).save(CONFIG, Position(2), state(3))
    assert sorted(path.name for path in folder.iterdir()) == ["10", "7"]


def test_an_epochs_last_step_and_its_end_are_two_positions(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoint")
    checkpoints.save(CONFIG, Position(0, (1.0,) * 4), state(1))
    checkpoints.save(CONFIG, Position(1), state(2))
    assert checkpoints.find(CONFIG) == Position(1)


FILES = ["manifest.json", "_CHECKPOINT_METADATA", "default/_METADATA", "default/manifest.ocdbt", "default/d/*"]
DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a flipped bit": lambda path: path.write_bytes(bytes([*path.read_bytes()[:-1], path.read_bytes()[-1] ^ 1])),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("pattern", FILES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(folder, pattern, damage):
    path = next(folder.glob(f"7/{pattern}"))
    damage(path)
    said = []
    position, found = restored(folder, said.append)
    assert position == Position(1)
    jax.tree.map(np.testing.assert_array_equal, found, state(1))
    assert len(said) == 1
    assert str(path) in said[0]


def test_all_damaged_is_the_beginning(folder):
    for path in folder.glob("*/manifest.json"):
        path.write_text("{")
    said = []
    assert restored(folder, said.append) is None
    assert len(said) == 2


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.EMFILE, errno.EACCES])
def test_what_cannot_be_read_now_is_kept_for_another_time(folder, monkeypatch, code):
    """A file server that does not answer: neither damage nor a reason to begin anew."""

    def fail(file):
        raise OSError(code, os.strerror(code), str(file))

    with monkeypatch.context() as patch:
        patch.setattr("adamlab.training.checkpoint._digest", fail)
        for attempt in (restored, lambda folder: Checkpoints(folder).find(CONFIG)):
            with pytest.raises(RecordsError, match=rf"cannot read .*/7/.*: {os.strerror(code)}; try again"):
                attempt(folder)
    assert restored(folder)[0] == MIDDLE


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (MemoryError("Unable to allocate 1 GiB"), "Unable to allocate 1 GiB"),
        (OSError(errno.EMFILE, "x"), r"restored \(Too many open files\); it is kept: try again"),
        (ValueError("unknown codec"), r"cannot be restored \(unknown codec\); delete "),
    ],
)
def test_what_cannot_be_restored_now_is_kept_for_another_time(folder, monkeypatch, failure, said):
    """Its checksums were right: only what would fail again is to be deleted."""

    class Orbax:
        def restore(self, step, args):
            raise failure

        def close(self):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_open", lambda self: Orbax())
        with pytest.raises(MemoryError if isinstance(failure, MemoryError) else RecordsError, match=said):
            restored(folder)
    assert restored(folder)[0] == MIDDLE


def test_a_checkpoint_after_more_epochs_than_are_recorded_is_not_used(folder):
    said = []
    assert Checkpoints(folder, warn=said.append).find(CONFIG, recorded=0) == Position()
    assert [line.split()[0] for line in said] == [str(folder / "7"), str(folder / "5")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, r"is of another configuration \(seed 1 here, 0 there\)"),
        ({"model": "resnet34"}, r"is of another configuration \(model resnet34 here, plain20 there\)"),
        (
            {"hyperparameters": Hyperparameters(alpha=0.1)},
            r"another configuration \(alpha 0.1 here, 0.001 there\)",
        ),
    ],
)
def test_another_runs_checkpoint_is_refused_and_left_alone(folder, change, said):
    with pytest.raises(RecordsError, match=said):
        Checkpoints(folder).find(replace(CONFIG, **change))
    assert len(list(folder.iterdir())) == 2


def test_an_intact_checkpoint_of_another_version_is_refused_and_left_alone(folder):
    path = folder / "7" / "manifest.json"
    content = unseal(path.read_text())
    content["config"]["momentum"] = 0.9
    path.write_text(json.dumps(seal(content)))
    with pytest.raises(RecordsError, match=rf"{folder}/7 is of another version of this program .*momentum"):
        Checkpoints(folder).find(CONFIG)
    assert path.exists()


def test_another_schema_is_refused_by_name(folder):
    path = folder / "7" / "manifest.json"
    path.write_text(json.dumps(seal(unseal(path.read_text()) | {"schema": 99})))
    with pytest.raises(RecordsError, match=rf"{folder}/7 has schema 99, this version reads 1"):
        Checkpoints(folder).find(CONFIG)


def test_a_state_of_another_shape_is_refused_by_name(folder):
    other = state(0)._replace(batch_stats={"mean": jnp.zeros(4)})
    what = r"\.batch_stats\['mean'\] is float32\[3\] there, float32\[4\] here"
    with pytest.raises(RecordsError, match=rf"{folder}/7 is of another version of this program \({what}\); delete"):
        Checkpoints(folder).restore(CONFIG, abstract(other))


@pytest.mark.parametrize(("minutes", "within", "between"), [(0, 0, 0), (0.1, 6, 6), (10, 600, 30)])
def test_it_is_due_after_its_minutes_and_between_epochs_after_half_of_one(
    tmp_path, monkeypatch, minutes, within, between
):
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    checkpoints = Checkpoints(tmp_path, minutes)
    for epoch_ended, seconds in ((False, within), (True, between)):
        now = 1000.0 + seconds
        assert checkpoints.due(epoch_ended)
        now -= 0.1
        assert not checkpoints.due(epoch_ended) or seconds == 0


def test_nothing_saved_is_nothing_restored_and_no_folder(tmp_path):
    assert restored(tmp_path / "checkpoint") is None
    assert not (tmp_path / "checkpoint").exists()


def test_what_cannot_be_saved_leaves_what_is_there(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "before")
    broken = state(3)._replace(batch_stats={"mean": object()})
    with pytest.raises(RecordsError, match=r"cannot write .*/10 .*the checkpoint before it is kept"):
        Checkpoints(folder).save(CONFIG, Position(2), broken)
    assert restored(folder)[0] == MIDDLE


def test_memory_that_is_full_is_no_full_disk(folder, monkeypatch):
    def fail(path):
        raise MemoryError("Unable to allocate 3 GiB")

    monkeypatch.setattr(checkpoint, "_digests", fail)
    with pytest.raises(MemoryError, match="3 GiB"):
        Checkpoints(folder).save(CONFIG, Position(2), state(3))


def test_a_folder_that_somebody_deleted_stays_away(tmp_path):
    with pytest.raises(WriteError, match=r"cannot write .*/gone/checkpoint/"):
        Checkpoints(tmp_path / "gone" / "checkpoint").save(CONFIG, MIDDLE, state(0))
    assert list(tmp_path.iterdir()) == []


def test_delete_leaves_nothing(folder, tmp_path):
    Checkpoints(folder).delete()
    assert list(tmp_path.iterdir()) == []
