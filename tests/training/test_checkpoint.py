"""Checkpoints on a real disk: exact, the newest one kept, nothing half-written taken for whole."""

import jax
import jax.numpy as jnp
import numpy as np

from adamlab.training.checkpoint import Checkpoints
from adamlab.training.step import TrainState


def state(seed):
    params = {"kernel": jax.random.normal(jax.random.key(seed), (3, 3)), "bias": jnp.float32(seed)}
    return TrainState(params, {"mean": jnp.zeros(3)}, (jnp.int32(seed), params), {"alpha": jnp.float32(1e-3)})


def abstract(state):
    return jax.eval_shape(lambda: state)


def test_what_is_restored_is_what_was_saved_to_the_bit(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoint")
    checkpoints.save(1, state(1))
    checkpoints.save(2, state(2))
    checkpoints.close()
    epoch, restored = Checkpoints(tmp_path / "checkpoint").restore(abstract(state(0)))
    assert epoch == 2
    assert isinstance(restored, TrainState)
    jax.tree.map(np.testing.assert_array_equal, restored, state(2))


def test_only_the_newest_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoint")
    for epoch in (1, 2, 3):
        checkpoints.save(epoch, state(epoch))
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["3"]


def test_nothing_saved_is_nothing_restored_and_no_folder(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoint")
    assert checkpoints.latest_epoch() is None
    assert checkpoints.restore(abstract(state(0))) is None
    assert not (tmp_path / "checkpoint").exists()


def test_delete_leaves_nothing(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoint")
    checkpoints.save(1, state(1))
    checkpoints.delete()
    assert list(tmp_path.iterdir()) == []
