"""From a configuration to its program: what reaches it, and when it is another one."""

from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import DTypeLike

from adamlab import models
from adamlab.config import RunConfig
from adamlab.data.augment import crop_and_flip
from adamlab.data.batches import subset
from adamlab.hyperparameters import MAGNITUDE, Hyperparameters
from adamlab.models.layers import Conv, Head
from adamlab.training import build, train
from adamlab.training.feed import make_feed
from adamlab.training.optimizers import Recipe, traced
from adamlab.training.parallel import Devices
from adamlab.training.step import Normalisation
from tests.training.runs import CONFIG, PROTOCOL, program_and_state


@pytest.fixture
def built(monkeypatch):
    """The function that builds the program of a configuration, and returns of which network, optimizer and so on."""
    found = {}

    def make_train_step(model, recipe, normalise, axis_name=None, pieces=1):
        found.update(model=model, recipe=recipe, normalise=normalise)
        return lambda state, batch: None

    def compile_training(devices, train_step, augment, pieces, runs):
        found.update(augment=augment)

    def build_from(config):
        build.build_program(config, 7, (8, 8, 1), (0.1,), (0.2,))
        return found

    monkeypatch.setattr(build, "make_train_step", make_train_step)
    monkeypatch.setattr(build, "compile_training", compile_training)
    monkeypatch.setattr(build, "_build", build._build.__wrapped__)  # which keeps nothing
    return build_from


def test_a_configuration_reaches_its_program(built):
    protocol = replace(PROTOCOL, schedule="phases")
    lawn = Hyperparameters(free_epochs=1.0)
    config = RunConfig("digits", "resnet34", protocol, lawn, stem="cifar", optimizer="adam_lawn")
    found = built(config)
    assert found["recipe"] == Recipe("adam_lawn", "phases", "outside")
    assert found["model"] == models.create("resnet34", 7, stem="cifar")
    assert found["normalise"] == Normalisation((0.1,), (0.2,))
    found = built(replace(CONFIG, model="plain20", downsample="first", precision="bf16", epsilon_placement="inside"))
    assert found["recipe"] == Recipe("adam", "constant", "inside")
    assert found["model"] == models.create("plain20", 7, downsample="first", dtype=jnp.bfloat16)


def test_images_are_augmented_on_the_device_but_for_photographs(built):
    """Which are cropped and flipped as they are read, and would be twice."""
    for augment, image_size, expected in ((True, None, crop_and_flip), (True, 32, None), (False, None, None)):
        protocol = replace(PROTOCOL, augment=augment, image_size=image_size)
        assert built(replace(CONFIG, protocol=protocol))["augment"] is expected


def test_a_network_that_is_defined_anew_is_the_one_that_is_trained(digits, monkeypatch):
    """As in a notebook: edit the class, enter it again under its name, train."""
    config, shapes = replace(CONFIG, model="edited"), []
    for kernel_size in (1, 3):

        class Edited(nn.Module):
            num_classes: int
            axis_name: str | None = None
            dtype: DTypeLike = jnp.float32
            size: int = kernel_size

            @nn.compact
            def __call__(self, images, train=False):
                return Head(self.num_classes)(Conv(4, self.size)(images))

        monkeypatch.setitem(models.MODELS, "edited", Edited)
        _, state = program_and_state(digits, config)
        shapes.append(state.params["Conv_0"]["kernel"].shape[:2])
    assert shapes == [(1, 1), (3, 3)]


def test_one_compilation_serves_the_whole_study(digits):
    """Five values each of four parameters, and several seeds: one program per network and shape."""
    program, _ = program_and_state(digits)
    data_on_device = jax.device_put(subset(digits.train, 200))
    program.train_chunk.clear_cache()  # other tests train chunks of other lengths
    for name in ("alpha", "beta1", "beta2", "epsilon"):
        values = MAGNITUDE[name]
        for seed, value in enumerate(values):
            config = replace(CONFIG, seed=seed, hyperparameters=Hyperparameters(**{name: value}))
            other, state = program_and_state(digits, config)
            assert other is program
            program.train_chunk(state, data_on_device, np.zeros((4, 50), np.int32), np.zeros(4, np.uint32))
    assert program.train_chunk._cache_size() == 1


def test_normalisation_is_that_of_numpy():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    expected = (images / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(Normalisation(mean, std)(jnp.asarray(images)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("placement", ["outside", "inside"])
@pytest.mark.parametrize("name", ["adam", "adam_lawn", "adamw"])
def test_epsilon_stands_where_it_was_asked_for(name, placement):
    """With one gradient g, the first step is alpha g / (|g| + eps) or alpha g / sqrt(g^2 + eps).

    It is that of a bias of 0, which LAWN does not hold and no weight decay moves.
    """
    config = replace(CONFIG, optimizer=name, hyperparameters=Hyperparameters(alpha=0.1, epsilon=1e-2))
    optimizer, g = Recipe(name, epsilon_placement=placement)(traced(config)), 0.3
    params = {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, g), params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    denominator = g + 1e-2 if placement == "outside" else np.sqrt(g**2 + 1e-2)
    assert float(updates["bias"][0]) == pytest.approx(-0.1 * g / denominator, rel=1e-5)


def test_hyperparameters_change_neither_initial_weights_nor_order(digits):
    """Runs are compared in pairs: what differs between two of them comes from the hyperparameter."""
    _, state = program_and_state(digits)
    changed = replace(CONFIG, hyperparameters=Hyperparameters(alpha=0.1, beta1=0.5))
    _, other = program_and_state(digits, changed)
    jax.tree.map(np.testing.assert_array_equal, state.params, other.params)
    feeds = [make_feed(digits, [config], Devices()) for config in (CONFIG, changed)]
    first, second = ([chunk.indices for chunk in feed.chunks(2, 0)] for feed in feeds)
    np.testing.assert_array_equal(first, second)


def test_each_seed_has_initial_weights_of_its_own(digits):
    (_, one), (_, other) = (program_and_state(digits, replace(CONFIG, seed=seed)) for seed in (0, 1))
    assert (one.params["first"]["kernel"] != other.params["first"]["kernel"]).all()


def test_a_configuration_cuts_its_batches(digits):
    """Four devices of which each normalises its own images see what microbatches of as many see."""
    config = replace(CONFIG, protocol=replace(PROTOCOL, batch_size=40, epochs=1))
    [whole], [cut] = (list(train(replace(config, microbatch=size), digits)) for size in (None, 10))
    [local] = train(replace(config, norm_group=10), digits, devices=Devices(4))
    assert local["train_loss"] == pytest.approx(cut["train_loss"], abs=1e-5)
    assert abs(cut["train_loss"] - whole["train_loss"]) > 1e-4
