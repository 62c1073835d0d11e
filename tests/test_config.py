"""What a configuration accepts, and that it survives JSON."""

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adamlab.config import RunConfig, difference
from adamlab.hyperparameters import ABLATIONS, MAGNITUDE, OPTIMIZERS, PERTURBATION, ConfigError, Hyperparameters
from adamlab.protocol import PROTOCOLS, Protocol, tuning


def can_be(optimizer, protocol):
    """An ablation of the learning rate's phases needs such a one."""
    return protocol.schedule == "phases" or optimizer not in ABLATIONS


@st.composite
def configs(draw):
    """With any of what its optimizer and protocol have; numbers near each other, and whole ones, too."""
    protocol = draw(st.sampled_from(list(PROTOCOLS.values())))
    optimizer = draw(st.sampled_from([name for name in OPTIMIZERS if can_be(name, protocol)]))
    positive = st.one_of(st.floats(1e-10, 1e3), st.integers(1, 3), st.sampled_from([1e-3, 1e-3 * (1 + 1e-9)]))
    numbers = {
        "alpha": positive,
        "beta1": st.floats(0, 1 - 2**-24),
        "beta2": st.floats(0, 1 - 2**-24),
        "epsilon": st.one_of(st.just(0), st.floats(2.0**-126, 1e3)),
        "weight_decay": positive,
        "free_epochs": st.sampled_from([0, 0.5, 1, 1.0]),
    }
    names = [name for name in numbers if name in OPTIMIZERS[optimizer].names]
    chosen = draw(st.fixed_dictionaries({}, optional={name: numbers[name] for name in names}))
    if protocol.schedule == "phases":
        chosen |= draw(st.fixed_dictionaries({}, optional={"warmup_epochs": st.sampled_from([0.5, 1, 1.0])}))
    return RunConfig(
        dataset=draw(st.sampled_from(["cifar10", "digits"])),
        model=draw(st.sampled_from(["plain20", "resnet34"])),
        protocol=protocol,
        hyperparameters=replace(OPTIMIZERS[optimizer].defaults, **chosen),
        seed=draw(st.integers(0, 2**31 - 1)),
        stem=draw(st.sampled_from([None, "imagenet", "cifar"])),
        optimizer=optimizer,
    )


@given(configs())
def test_json_round_trip_is_exact(config):
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@given(configs(), configs())
def test_equal_settings_have_equal_names_and_only_they(a, b):
    """Those of one protocol and so of one study."""
    assume(can_be(b.optimizer, a.protocol))
    b = replace(b, hyperparameters=replace(b.hyperparameters, warmup_epochs=0), protocol=a.protocol)
    same = (a.optimizer, a.hyperparameters) == (b.optimizer, b.hyperparameters)
    assert (a.setting == b.setting) == same


def test_a_whole_number_is_the_same_setting_as_its_float():
    protocol = PROTOCOLS["lawn-laptop"]
    configs = [RunConfig("cifar10", "plain20", protocol, Hyperparameters(alpha=x, warmup_epochs=x)) for x in (1, 1.0)]
    assert configs[0].setting == configs[1].setting == "alpha=1.0,warmup_epochs=1.0"


@given(configs(), configs())
def test_difference_is_empty_only_between_equals(a, b):
    assert (difference(a, b) == "") == (a == b)


@given(configs(), st.data())
def test_each_difference_is_named(config, data):
    """One entry changed at a time, of all that there are."""
    other = data.draw(configs())
    for field in fields(RunConfig):
        changed = {field.name: getattr(other, field.name)}
        try:
            one = replace(config, **changed)
        except ConfigError:  # not with the rest
            continue
        assert (difference(config, one) == "") == (config == one)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
@pytest.mark.parametrize("name", ["alpha", "beta1", "beta2", "epsilon"])
def test_refuses_what_no_hyperparameter_can_be(name, value):
    with pytest.raises(ConfigError, match=rf"^{name} must be .*, got {value}$"):
        Hyperparameters(**{name: value})


def test_the_edges_of_what_is_accepted():
    Hyperparameters(beta1=0.0, beta2=0.0, epsilon=0.0)
    with pytest.raises(ConfigError, match="alpha must be a finite number > 0, got 0"):
        Hyperparameters(alpha=0.0)
    with pytest.raises(ConfigError, match="beta2 must be in"):
        Hyperparameters(beta2=1.0)
    with pytest.raises(ConfigError, match=r"alpha must be a number that float32 holds, from .* to 3\.4e38, got 1e-46"):
        Hyperparameters(alpha=1e-46)  # which training would round to 0
    with pytest.raises(ConfigError, match=r"alpha must be a number that a float holds, got one beyond 1\.8e308"):
        Hyperparameters(alpha=10**400)
    with pytest.raises(ConfigError, match="alpha must be a number that float32 holds"):
        Hyperparameters(alpha=3.5e38)  # and this to infinity
    Hyperparameters(alpha=3.4e38)
    for name in ("epsilon", "weight_decay"):
        for value in (1e-50, 1e39):
            with pytest.raises(ConfigError, match=f"{name} must be a number that float32 holds"):
                Hyperparameters(**{name: value})


def test_numpys_numbers_are_pythons_in_records():
    protocol = Protocol("smoke", np.int32(100), np.int64(10), np.uint8(10), np.int64(2), image_size=np.int16(8))
    numbers = {"seed": np.int64(1), "trace_every": np.int8(2), "microbatch": np.int64(5)}
    config = RunConfig("digits", "plain20", protocol, Hyperparameters(alpha=np.float32(0.5)), **numbers)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_what_is_no_number_is_refused():
    with pytest.raises(ConfigError, match=r"alpha must be a number, got '0\.1'"):
        Hyperparameters(alpha="0.1")
    with pytest.raises(ConfigError, match=r"batch_size must be a whole number, got 10\.5"):
        Protocol("smoke", train_images=100, test_images=10, batch_size=10.5)
    for name in ("seed", "trace_every", "microbatch", "norm_group"):
        for value in (2.5, 25.0):
            with pytest.raises(ConfigError, match=f"{name} must be a whole number, got {value}"):
                RunConfig("digits", "plain20", PROTOCOLS["smoke"], **{name: value})


def test_a_batch_that_is_cut_into_one_piece_is_whole():
    whole = RunConfig("digits", "plain20", PROTOCOLS["smoke"])
    batch_size = whole.protocol.batch_size
    assert replace(whole, microbatch=batch_size) == replace(whole, norm_group=batch_size) == whole
    cut = replace(whole, microbatch=10)
    assert replace(cut, norm_group=10) == cut != whole


def test_what_float32_or_whole_steps_make_impossible_is_refused():
    """A decay rate of 1 divides by 0; so does a phase without a step."""
    Hyperparameters(beta2=1 - 2**-24)  # the largest that float32 has
    with pytest.raises(ConfigError, match=r"beta2 must be in \[0, 1\), got 0.99999999, which float32 rounds to 1"):
        Hyperparameters(beta2=0.99999999)
    protocol = PROTOCOLS["lawn-smoke"]
    free, warmup = 1.4, protocol.epochs - 1.41
    assert free + warmup < protocol.epochs
    for phases in ({"free_epochs": free, "warmup_epochs": warmup}, {"warmup_epochs": 1e38}):
        with pytest.raises(ConfigError, match="free_epochs \\+ warmup_epochs must be less than"):
            RunConfig("digits", "plain20", protocol, Hyperparameters(**phases), optimizer="adam_lawn")
    with pytest.raises(ConfigError, match="free_epochs must be at most the 3 epochs, got 1e\\+38"):
        RunConfig("digits", "plain20", protocol, Hyperparameters(free_epochs=1e38), optimizer="adam_lawn")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(PROTOCOLS["smoke"], test_images=0), "test_images must be at least 1, got 0"),
        (lambda: replace(PROTOCOLS["smoke"], schedule="cosine"), "schedule must be one of .*, got 'cosine'"),
        (lambda: replace(PROTOCOLS["smoke"], evaluate_on="train"), "evaluate_on must be one of .*, got 'train'"),
        (lambda: Hyperparameters(weight_decay=-1.0), "weight_decay must be .*, got -1.0"),
        (lambda: Hyperparameters(warmup_epochs=-1.0), "warmup_epochs must be .*, got -1.0"),
        (lambda: RunConfig("digits", "plain20", PROTOCOLS["smoke"], precision="fp16"), "precision must be .* 'fp16'"),
        (lambda: RunConfig("digits", "plain20", PROTOCOLS["smoke"], epsilon_placement="in"), "epsilon_placement must"),
        (lambda: replace(PROTOCOLS["smoke"], epochs=10**400), "epochs must be below 2.*, got 1000"),
        (
            lambda: RunConfig("digits", "plain20", PROTOCOLS["smoke"], seed=2**31),
            "seed must be below 2.*, got 2147483648",
        ),
        (
            lambda: RunConfig("digits", "plain20", PROTOCOLS["smoke"], Hyperparameters(warmup_epochs=1)),
            "warmup_epochs must be 0 for a constant learning rate, got 1.0",
        ),
        (
            lambda: RunConfig("digits", "plain20", PROTOCOLS["smoke"], Hyperparameters(), optimizer="adam_three_phase"),
            "adam_three_phase needs a learning rate in phases, got a constant one",
        ),
    ],
)
def test_what_no_command_line_lets_through_is_refused_in_python_too(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(ConfigError, match="batch_size must be at most the number of training images, 10, got 11"):
        Protocol("smoke", train_images=10, test_images=10, batch_size=11)


@pytest.mark.parametrize("damage", [{"model": ...}, {"hyperparameters": {"gamma": 1}}, {"extra": 1}, {"protocol": 3}])
def test_a_damaged_dictionary_is_refused(damage):
    values = RunConfig("digits", "plain20", PROTOCOLS["smoke"]).to_dict() | damage
    if damage == {"model": ...}:
        del values["model"]
    with pytest.raises(ConfigError):
        RunConfig.from_dict(values)


def test_paper_protocol_is_the_papers():
    """Section 4: batch 100, 15 epochs; all of CIFAR-10."""
    paper = PROTOCOLS["paper"]
    assert (paper.train_images, paper.test_images, paper.batch_size, paper.epochs) == (50_000, 10_000, 100, 15)
    assert paper.steps_per_epoch == 500


def test_the_lawn_papers_protocol_is_the_papers():
    """Section 3: CIFAR at batch 256, 300 epochs."""
    paper = PROTOCOLS["lawn-paper"]
    assert (paper.train_images, paper.batch_size, paper.epochs, paper.schedule) == (50_000, 256, 300, "phases")
    assert paper.augment


def test_tuning_holds_out_at_least_one_image():
    protocol = tuning(replace(PROTOCOLS["smoke"], batch_size=1), available=5)
    assert (protocol.train_images, protocol.test_images) == (4, 1)


def test_optimizers_start_from_the_defaults_of_those_who_made_them():
    """AdamW as in PyTorch; SGD as He et al. 2015 trained; LAMB as Optax's, at a learning rate of ours."""
    defaults = {name: optimizer.defaults for name, optimizer in OPTIMIZERS.items()}
    assert (defaults["adamw"].alpha, defaults["adamw"].weight_decay) == (1e-3, 1e-2)
    for name in ("sgd", "sgd_lawn"):
        assert (defaults[name].alpha, defaults[name].beta1, defaults[name].weight_decay) == (0.1, 0.9, 1e-4)
    assert (defaults["lamb_lawn"].alpha, defaults["lamb_lawn"].epsilon) == (1e-2, 1e-6)


def test_every_grid_holds_the_default_and_perturbations_are_small():
    defaults = Hyperparameters()
    for grids in (MAGNITUDE, PERTURBATION):
        for name, values in grids.items():
            assert getattr(defaults, name) in values, name
            assert len(set(values)) == 5
    assert "epsilon" not in PERTURBATION  # section 3.3
    # Alpha x 0.8 ... 1.2; a decay's distance from 1 likewise: 0.9 gives 0.92 ... 0.88.
    assert PERTURBATION["alpha"] == (0.0008, 0.0009, 0.001, 0.0011, 0.0012)
    assert PERTURBATION["beta1"] == (0.92, 0.91, 0.9, 0.89, 0.88)
    assert PERTURBATION["beta2"] == (0.9992, 0.9991, 0.999, 0.9989, 0.9988)
