"""A number that is not finite, and not of a run that goes on, spoils nothing that is reported or recorded of one."""

import json
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamlab.hyperparameters import Hyperparameters
from adamlab.training import loop, train, train_together
from adamlab.training.step import Normalisation, TrainState, make_eval_step
from tests.training.runs import CONFIG, program_and_state


def test_the_reported_loss_is_that_of_the_runs_that_go_on(digits, one_step_chunks):
    """One diverges at its second step. The loss of the first one they share, having the same weights and images."""
    wild = replace(CONFIG, hyperparameters=Hyperparameters(alpha=1e30))
    together, alone = [], []
    list(train_together([CONFIG, wild], digits, [None] * 2, report=lambda *chunk: together.append(chunk)))
    list(train(CONFIG, digits, report=lambda *chunk: alone.append(chunk)))
    assert [chunk[:2] for chunk in together] == [(epoch, step) for epoch in (1, 2, 3) for step in (1, 2, 3, 4)]
    assert [loss for _, _, loss in together] == pytest.approx([loss for _, _, loss in alone], rel=1e-5)


def test_what_of_a_trace_is_not_finite_is_recorded_as_none(digits, monkeypatch):
    """JSON has no NaN and no infinity."""
    measured = {"gradient_norm": jnp.inf, "hessian_eigenvalue": jnp.nan, "layer_weight_norms": {"a": jnp.nan, "b": 0.5}}
    program, _ = program_and_state(digits)
    measured_alike = program._replace(trace=lambda state, probe: measured)
    monkeypatch.setattr(loop, "build_program", lambda *arguments: measured_alike)
    record = next(train(replace(CONFIG, trace_every=1), digits))
    assert (record["gradient_norm"], record["hessian_eigenvalue"]) == (None, None)
    assert record["layer_weight_norms"] == {"a": None, "b": 0.5}
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_a_masked_image_with_an_infinite_loss_does_not_count():
    """Of a net whose probabilities are the pixels: 0.8 and 0.4 of the right class, and 0 of one that is masked."""

    class Probabilities(nn.Module):
        @nn.compact
        def __call__(self, images, train=False):
            return jnp.log(images.reshape(len(images), -1))

    pixels = np.array([[51, 204], [102, 153], [0, 255]], np.uint8)
    batch = {"image": pixels.reshape(3, 1, 2, 1), "label": np.array([1, 0, 0]), "mask": np.array([True, True, False])}
    eval_step = make_eval_step(Probabilities(), Normalisation((0.0,), (1.0,)))
    # Of a product with a mask XLA makes a choice, for which inf * 0 is 0; not where it compiles each operation alone.
    with jax.disable_jit():
        sums = eval_step(TrainState({}, {}, (), {}), batch)
    assert float(sums["loss"]) == pytest.approx(-np.log(0.8 * 0.4), rel=1e-5)
    assert (int(sums["correct"]), int(sums["count"])) == (1, 2)
