"""Arguments of the library's factories at random: what is rejected raises before anything is traced; the rest works."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import adamlab

ANY = settings(suppress_health_check=list(HealthCheck))
VALUES = st.sampled_from(
    [1e-3, 0.9, 0, 1, 5, 100, -1, 2.5, float("nan"), float("inf"), -float("inf"), None, "1", "", [1.0], 1j, True, {}]
)
MASKS = st.sampled_from([None, True, False, {"w": True}, {"other": True}, "w", 3])
AXES = st.sampled_from([None, 0, -1, 1, 2, -3, "0", 1.0])
PARAMS = {"w": jnp.array([[3.0, 4.0], [1.0, 2.0]]), "b": jnp.ones(2)}
FACTORIES = {
    "adam": {"learning_rate": VALUES, "b1": VALUES, "b2": VALUES, "eps": VALUES, "eps_root": VALUES},
    "adam_lawn": {"learning_rate": VALUES, "free_steps": VALUES, "b1": VALUES, "mask": MASKS},
    "sgd_lawn": {"learning_rate": VALUES, "free_steps": VALUES, "momentum": VALUES, "weight_decay": VALUES},
    "lamb_lawn": {"learning_rate": VALUES, "free_steps": VALUES, "b2": VALUES, "eps": VALUES},
    "adamp": {"learning_rate": VALUES, "b1": VALUES, "weight_decay": VALUES, "delta": VALUES, "wd_ratio": VALUES},
    "lawn": {
        "inner": st.sampled_from([optax.sgd(0.1), optax.adam(1e-3), None, "adam", 1.0]),
        "free_steps": VALUES,
        "mask": MASKS,
        "unit_axis": AXES,
        "at_switch": st.sampled_from(["keep", "reset", "transport", "other", None]),
    },
    "fixed_norm": {"inner": st.sampled_from([optax.sgd(0.1), None]), "mask": MASKS, "unit_axis": AXES},
    "project_to_tangent": {"mask": MASKS, "unit_axis": AXES},
    "keep_on_sphere": {"mask": MASKS, "unit_axis": AXES},
    "two_phase_schedule": {"peak_value": VALUES, "warmup_steps": VALUES, "total_steps": VALUES},
    "three_phase_schedule": {name: VALUES for name in ("peak_value", "free_steps", "warmup_steps", "total_steps")},
}
NEEDED = {"learning_rate", "free_steps", "inner", "peak_value", "warmup_steps", "total_steps"}


def check_factory(name: str, arguments: dict) -> None:
    """Arguments are refused with a message when they are given or when the parameters are seen, or they work."""
    refused = None
    try:
        made = getattr(adamlab, name)(**arguments)
        state = None if name.endswith("schedule") else made.init(PARAMS)
    except (ValueError, TypeError) as error:
        refused = str(error)
    if refused is not None:
        assert {*re.findall(r"\w+", refused)} & {*arguments}, refused  # names what is wrong
        return
    # From here on nothing may be refused: this is traced.
    if name.endswith("schedule"):
        assert jnp.isfinite(jax.jit(made)(jnp.int32(3)))
    else:
        updates, _ = jax.eval_shape(made.update, PARAMS, state, PARAMS)
        assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, PARAMS)


def arguments_of(data, name):
    chosen = {key: data.draw(values, label=key) for key, values in FACTORIES[name].items()}
    return {key: value for key, value in chosen.items() if key in NEEDED or data.draw(st.booleans())}


@settings(ANY, max_examples=200)
@given(data=st.data())
def test_a_factory_refuses_before_tracing_or_works(data):
    name = data.draw(st.sampled_from(sorted(FACTORIES)))
    check_factory(name, arguments_of(data, name))


@pytest.mark.slow
@settings(ANY, max_examples=2_000, derandomize=False)
@given(data=st.data())
def test_many_arguments_of_factories(data):
    name = data.draw(st.sampled_from(sorted(FACTORIES)))
    check_factory(name, arguments_of(data, name))
