"""Command lines and arguments at random: what is rejected gets one line and status 2, or a ValueError; the rest works.

In process and without training: a study's command line becomes its runs' configurations before anything heavy starts.
"""

import contextlib
import io
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import adamlab
from adamlab import command, data
from adamlab.config import Protocol, RunConfig, override, tuning
from adamlab.records import run_folder
from experiments import large_batch, sensitivity
from experiments.options import choose_protocol

DIGITS = data.load("digits")
# Of an option's value: sensible, extreme, senseless, and what a program might take for something else.
NUMBERS = ["1", "2", "50", "0", "-1", "1e3", "1e-3", "0.5", "nan", "inf", "-inf", "1e999", "1_0", "٣", "0x10", "²"]
WORDS = ["", ",", "all", "none", "../..", "/etc/passwd", "a b", "--", "%s", "{0}", "$(id)", "\x00", "é", "[red]", "[/]"]
OPTIMIZERS = ["adam", "adam_lawn", "adamw", "adamp", "sgd", "sgd_lawn", "lamb_lawn", "adam,sgd", "adam,", "Adam"]
COMMON = {
    "--dataset": ["digits", "cifar10", "auto", "mnist"],
    "--protocol": ["smoke", "laptop", "paper", "auto", "lawn-smoke"],
    "--train-images": [*NUMBERS, "200", "1437", "1438"],
    "--test-images": [*NUMBERS, "100", "360", "361"],
    "--epochs": [*NUMBERS, "3", "30"],
    "--seeds": ["1", "2", "0", "-1", "x", "1.5"],
    "--precision": ["float32", "bf16", "float64"],
    "--trace": NUMBERS,
    "--optimizer": OPTIMIZERS,
    "--batch-size": [*NUMBERS, "200", "201", "50,100"],
    "--checkpoint-minutes": NUMBERS,
}
STUDIES = {
    "sensitivity": {
        "--param": ["alpha", "beta1", "beta2", "epsilon", "free_epochs", "all", "gamma"],
        "--study": ["magnitude", "perturbation", "both"],
        "--values": [*NUMBERS, "1e-3,1e-2", "0.9,0.99", "1e-3,,1", "1e-45", "3e38", "1e39"],
        "--model": ["plain20", "resnet34", "plain20,resnet34", "vgg19"],
        "--stem": ["imagenet", "cifar", "other"],
        "--downsample": ["last", "first", "middle"],
        "--epsilon-placement": ["inside", "outside", "above"],
    },
    "large_batch": {
        "--table": ["1", "2", "3", "one"],
        "--free-epochs": [*NUMBERS, "0,1,2", "1,x"],
        "--weight-decay": [*NUMBERS, "0,1e-4"],
        "--model": ["plain20", "resnet34", "vgg19", "plain20,vgg19"],
        "--tune": [None],
    },
}


@st.composite
def command_lines(draw, study):
    """Some of a study's options, each with a value that it expects or with any."""
    options = COMMON | STUDIES[study]
    line = []
    for name in draw(st.lists(st.sampled_from(sorted(options)), unique=True, max_size=6)):
        value = draw(st.sampled_from(options[name]) | st.sampled_from(WORDS + NUMBERS) | st.text(max_size=8))
        line += [name] if value is None else [f"{name}={value}"] if draw(st.booleans()) else [name, value]
    return line + draw(st.sampled_from([[], [], [], ["--unknown"], ["stray"]]))


def configurations(study: str) -> list[RunConfig]:
    """What a study's `main` does before it trains, on the digits."""
    if study == "sensitivity":
        arguments = sensitivity.parse_arguments()
        protocol = override(choose_protocol(arguments, DIGITS, False), batch_size=arguments.batch_size)
        return sensitivity.make_configs(arguments, sensitivity.make_grid(arguments, protocol), DIGITS.name, protocol)
    arguments = large_batch.parse_arguments()
    large_batch.make_configs(arguments, "digits", Protocol("unknown", 10**9, 1, epochs=10**6, schedule="phases"))
    protocol = choose_protocol(arguments, DIGITS, False, large_batch.PREFIX)
    protocol = tuning(protocol, len(DIGITS.train["label"])) if arguments.tune else protocol
    return large_batch.make_configs(arguments, DIGITS.name, protocol)


def check_command_line(study: str, line: list[str]) -> None:
    """A line is refused in one line with status 2, or stands for runs that can be written down and start."""
    made: list[RunConfig] = []
    errors, before = io.StringIO(), sys.argv
    sys.argv = [study, *line]
    try:
        with contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as stop:
            command.run_main(lambda: made.extend(configurations(study)), f"experiments.{study}")
    finally:
        sys.argv = before
    if stop.value.code == 2:
        assert errors.getvalue().startswith("error: ")
        assert errors.getvalue().count("\n") == 1
        return
    assert stop.value.code == 0
    assert made
    for config in made:
        assert RunConfig.from_dict(config.to_dict()) == config
        protocol = config.protocol
        assert 1 <= protocol.batch_size <= protocol.train_images <= len(DIGITS.train["label"])
        assert 1 <= protocol.test_images <= len(DIGITS.test["label"])
        folder = run_folder(Path("/results"), config)
        assert folder.is_relative_to("/results")
        assert ".." not in folder.parts
        assert len(folder.relative_to("/results").parts) == 4


FEW = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=1_000)


@pytest.mark.parametrize("study", STUDIES)
@FEW
@given(data=st.data())
def test_a_command_line_is_refused_in_one_line_or_stands_for_runs(study, data):
    check_command_line(study, data.draw(command_lines(study)))


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
@MANY
@given(data=st.data())
def test_many_command_lines(study, data):
    check_command_line(study, data.draw(command_lines(study)))


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
    try:
        made = getattr(adamlab, name)(**arguments)
        state = None if name.endswith("schedule") else made.init(PARAMS)
    except (ValueError, TypeError):
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


@settings(FEW, max_examples=200)
@given(data=st.data())
def test_a_factory_refuses_before_tracing_or_works(data):
    name = data.draw(st.sampled_from(sorted(FACTORIES)))
    check_factory(name, arguments_of(data, name))


@pytest.mark.slow
@settings(FEW, max_examples=2_000)
@given(data=st.data())
def test_many_arguments_of_factories(data):
    name = data.draw(st.sampled_from(sorted(FACTORIES)))
    check_factory(name, arguments_of(data, name))
