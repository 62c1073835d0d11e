"""A number that is not finite ends a run, and the record says after which step."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamlab.hyperparameters import Hyperparameters
from adamlab.training import Diverged, loop, train
from tests.training.runs import CONFIG, program_and_state


def test_divergence_is_reported_with_its_step(digits):
    config = replace(CONFIG, hyperparameters=Hyperparameters(alpha=3e38))
    with pytest.raises(Diverged) as diverged:
        list(train(config, digits))
    # The first loss is that of the initial weights. The first update makes all weights +-3e38, so that the sums of a
    # convolution overflow float32 to infinities of both signs, whose sum is NaN: the second loss.
    assert (diverged.value.epoch, diverged.value.step) == (1, 2)


def test_an_infinite_moment_beside_finite_losses_is_a_divergence(digits, monkeypatch):
    """A gradient of 1e20 has a square that float32 has not: the second moment is infinite, and the weight never moves
    again. No loss shows that. It is noticed at the chunk's end, at step 4."""
    config = replace(CONFIG, hyperparameters=Hyperparameters(alpha=1e-5))
    program, state = program_and_state(digits, config)
    moments = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.at[..., 0].set(jnp.inf) if ".nu" in jax.tree_util.keystr(path) and leaf.ndim else leaf,
        state.opt_state,
    )
    broken = program._replace(init=lambda seed, hyperparameters: state._replace(opt_state=moments))
    monkeypatch.setattr(loop, "build_program", lambda *arguments: broken)
    seen = []
    with pytest.raises(Diverged) as diverged:
        list(train(config, digits, report=lambda epoch, step, loss: seen.append(loss)))
    assert (diverged.value.epoch, diverged.value.step) == (1, 4)
    assert seen == []


def test_no_chunk_is_trained_after_the_one_that_diverged(digits, one_step_chunks):
    seen = []
    config = replace(CONFIG, hyperparameters=Hyperparameters(alpha=3e38))
    with pytest.raises(Diverged) as diverged:
        list(train(config, digits, report=lambda epoch, step, loss: seen.append(step)))
    assert diverged.value.step <= 2
    assert len(seen) < 2


def test_the_step_counts_from_the_runs_beginning(digits, monkeypatch, one_step_chunks):
    """In the second epoch, of which each has four steps, the parameters are NaN before the second step."""
    program, _ = program_and_state(digits)
    chunks = []

    def train_chunk(state, *chunk):
        chunks.append(chunk)
        if len(chunks) == 4 + 2:
            state = state._replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, state.params))
        return program.train_chunk(state, *chunk)

    monkeypatch.setattr(loop, "build_program", lambda *arguments: program._replace(train_chunk=train_chunk))
    with pytest.raises(Diverged) as diverged:
        list(train(CONFIG, digits))
    assert (diverged.value.epoch, diverged.value.step) == (2, 6)


def test_a_test_loss_that_is_not_finite_is_a_divergence(digits, monkeypatch):
    program, _ = program_and_state(digits)
    sums = {"loss": np.float32(np.inf), "correct": 7, "count": 70, "scaled_losses": np.full(65, np.nan)}
    monkeypatch.setattr(
        loop, "build_program", lambda *arguments: program._replace(evaluate=lambda state, batches: sums)
    )
    with pytest.raises(Diverged) as diverged:
        next(train(CONFIG, digits))
    assert (diverged.value.epoch, diverged.value.step) == (1, 4)
