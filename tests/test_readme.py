"""README's Python examples run as they stand."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_examples_run(monkeypatch):
    """The optimizers as published; the table over the published records."""
    table, adam, lawn = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    scope = {}
    exec(adam, scope)
    # 20 steps of at most alpha each from 1: the smallest alpha, 1e-3, hardly moves; 0.18 reaches the minimum.
    assert scope["losses"].shape == (5,)
    assert 0.9 < scope["losses"][0] < 1.0
    assert scope["losses"].min() < 0.5

    exec(lawn, scope)
    params = {"kernel": jnp.ones((2, 2))}
    updates, _ = scope["optimizer"].update(params, scope["optimizer"].init(params), params)
    # Clipped to norm 1 or not, Adam's first step is the learning rate.
    np.testing.assert_allclose(updates["kernel"], -1e-3, rtol=1e-4)

    monkeypatch.chdir(Path(__file__).parents[1] / "docs")
    exec(table, scope)
    assert set(scope["table"]["model"]) == {"plain20", "resnet34"}
