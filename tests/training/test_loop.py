"""Training on the digits: against NumPy and Optax, to the same bits when resumed, with one compilation for a grid."""

from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.typing import DTypeLike

from adamlab import data, models
from adamlab.config import Protocol, RunConfig
from adamlab.data.batches import evaluation_images, subset
from adamlab.hyperparameters import MAGNITUDE, ConfigError, Hyperparameters
from adamlab.models.layers import Conv, Head
from adamlab.training import Diverged, Interrupted, build, feed, loop, train
from adamlab.training.checkpoint import Checkpoints
from adamlab.training.optimizers import Recipe, traced
from adamlab.training.step import Normalisation
from tests.training import small

PROTOCOL = Protocol("smoke", train_images=200, test_images=70, batch_size=50, epochs=3)
CONFIG = RunConfig("digits", "plain20", PROTOCOL)
TIMES = {"seconds", "images_per_second", "trace_seconds"}


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def uninterrupted(digits):
    return list(train(CONFIG, digits))


def without_times(records):
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


def program_and_state(digits, config=CONFIG):
    program = build.build_program(config, 10, (8, 8, 1), digits.mean, digits.std)
    return program, program.init(jnp.int32(config.seed), traced(config))


NO_SEEDS = np.zeros(4, np.uint32)  # of four steps without augmentation


def test_one_record_per_epoch_and_the_loss_falls(uninterrupted):
    assert [record["epoch"] for record in uninterrupted] == [1, 2, 3]
    # ln 10 = 2.303 is the loss of a guess.
    assert uninterrupted[0]["train_loss"] > uninterrupted[-1]["train_loss"]
    assert uninterrupted[-1]["train_loss"] < np.log(10)


def test_same_seed_same_bits_other_seed_other_numbers(digits, uninterrupted):
    assert without_times(train(CONFIG, digits)) == without_times(uninterrupted)
    other = list(train(replace(CONFIG, seed=1), digits))
    assert other[0]["train_loss"] != uninterrupted[0]["train_loss"]


@pytest.mark.parametrize("stop_after", [1, 2])
def test_resumed_run_repeats_the_uninterrupted_one_bit_for_bit(digits, uninterrupted, tmp_path, stop_after):
    checkpoints = Checkpoints(tmp_path / "checkpoint", minutes=0)
    first = train(CONFIG, digits, checkpoints)
    records = [next(first) for _ in range(stop_after + 1)]  # the record after the checkpoint is lost in a crash
    first.close()
    checkpoints.close()
    resumed = list(train(CONFIG, digits, Checkpoints(tmp_path / "checkpoint")))
    assert without_times(records[:stop_after] + resumed) == without_times(uninterrupted)


@pytest.fixture(scope="module")
def step_by_step(digits):
    """The uninterrupted records in `one_step_chunks`: of another program, so perhaps of other last bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "MAX_CHUNK", 1)
        return list(train(CONFIG, digits))


class StopAfter:
    """Says stop once so many chunks are done, and when it last did not."""

    def __init__(self, chunks):
        self.left = chunks

    def __call__(self):
        self.left -= 1
        return self.left <= 0


@pytest.fixture
def one_step_chunks(monkeypatch):
    """An epoch of four chunks instead of one."""
    monkeypatch.setattr(feed, "MAX_CHUNK", 1)


@pytest.mark.parametrize("chunks", [1, 3, 4, 5, 6])  # of the first epoch: 4; the fifth question is asked at its end
def test_stopped_anywhere_and_resumed_is_the_same_as_uninterrupted(
    digits, tmp_path, step_by_step, one_step_chunks, chunks
):
    records, checkpoints = [], Checkpoints(tmp_path / "checkpoint")
    with pytest.raises(Interrupted):
        records.extend(record for record in train(CONFIG, digits, checkpoints, stop=StopAfter(chunks)))
    checkpoints.close()
    position = Checkpoints(tmp_path / "checkpoint").find(CONFIG)
    assert (position.epochs, len(position.losses)) == {1: (0, 1), 3: (0, 3), 4: (0, 4), 5: (1, 0), 6: (1, 1)}[chunks]
    resumed = list(train(CONFIG, digits, Checkpoints(tmp_path / "checkpoint")))
    assert without_times(step_by_step)[position.epochs :] == without_times(resumed)


def test_a_checkpoint_within_an_epoch_holds_what_its_steps_took(digits, tmp_path, one_step_chunks):
    checkpoints = Checkpoints(tmp_path / "checkpoint")
    with pytest.raises(Interrupted):
        list(train(CONFIG, digits, checkpoints, stop=StopAfter(2)))
    position = checkpoints.find(CONFIG)
    record = next(train(CONFIG, digits, checkpoints))
    assert record["seconds"] >= position.seconds > 0


def test_checkpoints_fall_within_an_epoch_when_they_are_due(digits, tmp_path, one_step_chunks):
    """With 0 minutes between two: after each step but an epoch's last, whose checkpoint is the epoch's."""
    saved = []

    class Watched(Checkpoints):
        def save(self, config, position, state):
            saved.append((position.epochs, len(position.losses)))

    list(train(replace(CONFIG, protocol=replace(PROTOCOL, epochs=2)), digits, Watched(tmp_path / "c", minutes=0)))
    assert saved == [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)]


def test_checkpoints_fall_between_epochs_when_they_are_due_there(digits, tmp_path, one_step_chunks):
    """And only then: within the epochs these are not."""
    saved = []

    class Watched(Checkpoints):
        def due(self, epoch_ended):
            return epoch_ended and not saved

        def save(self, config, position, state):
            saved.append((position.epochs, len(position.losses)))

    list(train(CONFIG, digits, Watched(tmp_path / "c")))
    assert saved == [(1, 0)]


def test_hyperparameters_change_neither_initial_weights_nor_order(digits):
    """Runs are compared in pairs: what differs between two of them comes from the hyperparameter."""
    _, state = program_and_state(digits)
    _, other = program_and_state(digits, replace(CONFIG, hyperparameters=Hyperparameters(alpha=0.1, beta1=0.5)))
    jax.tree.map(np.testing.assert_array_equal, state.params, other.params)


def test_order_is_a_permutation_that_changes_with_epoch_and_seed():
    orders = [feed.epoch_order(seed, epoch, 12, 3, 4) for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))]
    for order in orders:
        assert sorted(order.ravel()) == list(range(12))
    assert (orders[0] == orders[1]).all()
    assert (orders[0] != orders[2]).any()
    assert (orders[0] != orders[3]).any()


def test_chunks_divide_an_epoch():
    for steps in range(1, 600):
        assert steps % feed.chunk_size(steps) == 0
        assert 1 <= feed.chunk_size(steps) <= feed.MAX_CHUNK


def test_every_test_image_counts_once(digits, monkeypatch):
    """70 images in batches of 32 are filled up with 26 blank ones, which must not count."""
    monkeypatch.setattr(feed, "EVALUATION_BATCH", 32)
    record = next(train(CONFIG, digits))

    model = models.create("plain20", 10)
    program, state = program_and_state(digits)
    order = feed.epoch_order(0, 1, 200, 4, 50)
    data_on_device = jax.device_put(subset(digits.train, 200))
    for indices in np.split(order, 4 // feed.chunk_size(4)):
        state, _ = program.train_chunk(state, data_on_device, indices, NO_SEEDS)
    images = (digits.test["image"][:70] / 255 - np.array(digits.mean)) / np.array(digits.std)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = np.asarray(model.apply(variables, jnp.float32(images), train=False), np.float64)
    labels = digits.test["label"][:70]
    log_likelihood = logits[np.arange(70), labels] - np.log(np.exp(logits).sum(axis=1))
    assert record["test_loss"] == pytest.approx(-log_likelihood.mean(), rel=1e-5)
    assert record["test_accuracy"] == pytest.approx((logits.argmax(axis=1) == labels).mean())


def test_one_step_is_optax_on_the_gradient_of_the_mean_cross_entropy(digits):
    program, state = program_and_state(digits)
    model, params, batch_stats = models.create("plain20", 10), state.params, state.batch_stats
    images = jnp.float32((digits.train["image"][:50] / 255 - np.array(digits.mean)) / np.array(digits.std))
    labels = digits.train["label"][:50]

    @jax.jit
    @jax.value_and_grad
    def loss_fn(params):
        variables = {"params": params, "batch_stats": batch_stats}
        logits, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(50), labels])

    expected_loss, gradients = loss_fn(params)
    # Far from 0, Adam's first step is alpha * g / (|g| + epsilon): the sign of g, scaled. Gradients near 0 may change
    # their sign between two programs, in which rounding lets other ReLUs through.
    updates, _ = optax.adam(1e-3).update(gradients, optax.adam(1e-3).init(params), params)
    expected = jax.tree.map(np.asarray, optax.apply_updates(params, updates))
    data_on_device = jax.device_put(subset(digits.train, 200))
    state, losses = program.train_chunk(state, data_on_device, np.arange(50, dtype=np.int32)[None], NO_SEEDS[:1])
    assert losses[0] == pytest.approx(float(expected_loss), rel=1e-5)
    clear = jax.tree.map(lambda g: np.abs(g) > 3e-3, gradients)
    assert sum(int(c.sum()) for c in jax.tree.leaves(clear)) > 50_000
    for c, ours, theirs in zip(*map(jax.tree.leaves, (clear, state.params, expected)), strict=True):
        np.testing.assert_allclose(np.asarray(ours)[c], theirs[c], atol=2e-6)


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
            program.train_chunk(state, data_on_device, np.zeros((4, 50), np.int32), NO_SEEDS)
    assert program.train_chunk._cache_size() == 1


def test_augmented_and_resumed_is_the_same_as_uninterrupted(digits, tmp_path):
    config = replace(CONFIG, protocol=replace(PROTOCOL, augment=True))
    whole = list(train(config, digits))
    first = train(config, digits, Checkpoints(tmp_path / "checkpoint", minutes=0))
    records = [next(first) for _ in range(2)]
    first.close()
    resumed = list(train(config, digits, Checkpoints(tmp_path / "checkpoint")))
    assert without_times(records[:1] + resumed) == without_times(whole)
    assert whole[0]["train_loss"] != next(train(CONFIG, digits))["train_loss"]


def test_augmentation_differs_from_step_to_step_and_depends_on_seed_and_epoch_alone():
    seeds = [feed.augmentation_seeds(seed, epoch, 50) for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))]
    assert all(len(set(steps.tolist())) == 50 for steps in seeds)
    assert (seeds[0] == seeds[1]).all()
    assert len({steps.tobytes() for steps in seeds}) == 3


def test_validation_images_are_the_last_training_images(digits):
    protocol = replace(PROTOCOL, evaluate_on="validation")
    held_out = evaluation_images(digits, protocol)
    np.testing.assert_array_equal(held_out["image"], digits.train["image"][-70:])
    assert len(digits.train["label"]) - 70 >= protocol.train_images


def test_traced_run_trains_as_an_untraced_one_and_measures_what_numpy_does(digits, uninterrupted):
    """Every second epoch, on the first images; the steps themselves are not touched."""
    records = list(train(replace(CONFIG, trace_every=2), digits))
    assert without_times(uninterrupted) == [
        {name: record[name] for name in expected}
        for record, expected in zip(records, without_times(uninterrupted), strict=True)
    ]
    assert ["gradient_norm" in record for record in records] == [False, True, False]

    program, state = program_and_state(digits)
    probe = jax.device_put(subset(digits.train, feed.PROBE))
    measured = jax.device_get(program.trace(state, probe))
    kernels = {path: np.asarray(leaf, np.float64) for path, leaf in kernels_of(state.params).items()}
    assert measured["layer_weight_norms"] == pytest.approx({p: np.linalg.norm(k) for p, k in kernels.items()}, rel=1e-5)
    total = np.sqrt(sum(np.sum(kernel**2) for kernel in kernels.values()))
    assert measured["weight_norm"] == pytest.approx(total, rel=1e-5)
    # Adam's first step moves each of the net's parameters by alpha, where their gradient is not 0.
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert measured["update_norm"] == pytest.approx(1e-3 * np.sqrt(count), rel=0.02)
    assert np.isfinite(measured["hessian_eigenvalue"])


def kernels_of(params):
    """The convolutions' and the head's kernels by path."""
    flat = jax.tree_util.tree_leaves_with_path(params)
    paths = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}
    return {path: leaf for path, leaf in paths.items() if path.endswith("/kernel")}


def test_divergence_is_reported_with_its_step(digits):
    config = replace(CONFIG, hyperparameters=Hyperparameters(alpha=3e38))
    with pytest.raises(Diverged) as diverged:
        list(train(config, digits))
    # The first loss is that of the initial weights. The first update sets BatchNorm's scales to +-3e38, so that the
    # next convolution overflows float32 to infinities of both signs, whose sum is NaN: the second loss.
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


def test_bf16_computes_in_bfloat16_and_keeps_float32_parameters(digits, uninterrupted):
    config = replace(CONFIG, precision="bf16", protocol=replace(PROTOCOL, epochs=1))
    loss = next(train(config, digits))["train_loss"]
    # Eight bits of mantissa: near float32's, and not the same.
    assert 0 < abs(loss - uninterrupted[0]["train_loss"]) < 0.1
    _, state = program_and_state(digits, config)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype(np.float32)}


@pytest.fixture
def built(monkeypatch):
    """The function that builds the program of a configuration, and returns of what network and optimizer."""
    found = {}

    def make_train_step(model, recipe, normalise, axis_name=None, pieces=1):
        found.update(model=model, recipe=recipe, normalise=normalise)
        return lambda state, batch: None

    def build_from(config):
        build.build_program(config, 7, (8, 8, 1), (0.1,), (0.2,))
        return found

    monkeypatch.setattr(build, "make_train_step", make_train_step)
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
    found = built(replace(CONFIG, downsample="first", precision="bf16", epsilon_placement="inside"))
    assert found["recipe"] == Recipe("adam", "constant", "inside")
    assert found["model"] == models.create("plain20", 7, downsample="first", dtype=jnp.bfloat16)


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


def test_a_constraint_holds_from_its_epoch_on(digits, monkeypatch):
    """Adam-LAWN through the whole program: kernels' norms move in the free epoch and stay in the others."""
    monkeypatch.setitem(models.MODELS, "small", small.Net)
    config = replace(CONFIG, model="small", optimizer="adam_lawn", trace_every=1)
    config = replace(config, hyperparameters=Hyperparameters(free_epochs=1.0))
    norms = [np.array(list(record["layer_weight_norms"].values())) for record in train(config, digits)]
    np.testing.assert_allclose(norms[1:], [norms[0]] * 2, rtol=1e-6)
    _, state = program_and_state(digits, config)
    start = np.array([np.linalg.norm(kernel) for kernel in kernels_of(state.params).values()])
    assert np.abs(norms[0] / start - 1).min() > 1e-5  # far above rounding


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dataset": "cifar10"}, "dataset must be the configuration's, cifar10, got digits"),
        ({"train_images": 1438}, "train_images must be at most 1437 for digits, got 1438"),
        ({"test_images": 361}, "test_images must be at most 360 for digits, got 361"),
        ({"train_images": 1400, "evaluate_on": "validation"}, "train_images must be at most 1367 for digits, got 1400"),
    ],
)
def test_a_data_set_that_does_not_fit_is_refused(digits, changed, message):
    """JAX would take the last image for each that is not there."""
    protocol = replace(PROTOCOL, **{name: value for name, value in changed.items() if name != "dataset"})
    config = replace(CONFIG, protocol=protocol, dataset=changed.get("dataset", "digits"))
    with pytest.raises(ConfigError, match=message):
        next(train(config, digits))


def test_a_test_loss_that_is_not_finite_is_a_divergence(digits, monkeypatch):
    program, _ = program_and_state(digits)
    sums = {"loss": np.float32(np.inf), "correct": np.int32(7), "count": np.int32(70)}
    monkeypatch.setattr(
        loop, "build_program", lambda *arguments: program._replace(evaluate=lambda state, batches: sums)
    )
    with pytest.raises(Diverged) as diverged:
        next(train(CONFIG, digits))
    assert (diverged.value.epoch, diverged.value.step) == (1, 4)


def test_normalisation_is_that_of_numpy():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    expected = (images / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(Normalisation(mean, std)(jnp.asarray(images)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("placement", ["outside", "inside"])
def test_epsilon_stands_where_it_was_asked_for(placement):
    """With one gradient g, the first step is alpha g / (|g| + eps) or alpha g / sqrt(g^2 + eps)."""
    config = replace(CONFIG, hyperparameters=Hyperparameters(alpha=0.1, epsilon=1e-2))
    optimizer, g = Recipe(epsilon_placement=placement)(traced(config)), 0.3
    update, _ = optimizer.update(jnp.float32(g), optimizer.init(jnp.float32(0.0)), jnp.float32(0.0))
    denominator = g + 1e-2 if placement == "outside" else np.sqrt(g**2 + 1e-2)
    assert float(update) == pytest.approx(-0.1 * g / denominator, rel=1e-5)
