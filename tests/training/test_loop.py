"""Training on the digits, against NumPy and Optax."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from adamlab import models
from adamlab.data.batches import subset
from adamlab.hyperparameters import ConfigError, Hyperparameters
from adamlab.training import feed, train
from tests.faults.study import without_times
from tests.training.runs import CONFIG, PROTOCOL, program_and_state

PLAIN = replace(CONFIG, model="plain8")  # a net that learns, and in which bfloat16 is bfloat16
NO_SEEDS = np.zeros(4, np.uint32)  # of four steps without augmentation


@pytest.fixture(scope="module")
def uninterrupted(digits):
    return list(train(PLAIN, digits))


def test_one_record_per_epoch_and_the_loss_falls(uninterrupted):
    assert [record["epoch"] for record in uninterrupted] == [1, 2, 3]
    # ln 10 = 2.303 is the loss of a guess.
    assert uninterrupted[0]["train_loss"] > uninterrupted[-1]["train_loss"]
    assert uninterrupted[-1]["train_loss"] < np.log(10)


def test_same_seed_same_bits_other_seed_other_numbers(digits, uninterrupted):
    assert without_times(train(PLAIN, digits)) == without_times(uninterrupted)
    other = list(train(replace(PLAIN, seed=1), digits))
    assert other[0]["train_loss"] != uninterrupted[0]["train_loss"]


def test_order_is_a_permutation_that_changes_with_epoch_and_seed():
    orders = [feed.epoch_order(seed, epoch, 12, 3, 4) for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))]
    for order in orders:
        assert sorted(order.ravel()) == list(range(12))
    assert (orders[0] == orders[1]).all()
    assert (orders[0] != orders[2]).any()
    assert (orders[0] != orders[3]).any()


def test_every_test_image_counts_once(digits, monkeypatch):
    """70 images in batches of 32 are filled up with 26 blank ones, which must not count."""
    monkeypatch.setattr(feed, "EVALUATION_BATCH", 32)
    record = next(train(CONFIG, digits))

    model = models.create(CONFIG.model, 10)
    program, state = program_and_state(digits)
    order = feed.epoch_order(0, 1, 200, 4, 50)
    data_on_device = jax.device_put(subset(digits.train, 200))
    state, _ = program.train_chunk(state, data_on_device, order, NO_SEEDS)
    images = (digits.test["image"][:70] / 255 - np.array(digits.mean)) / np.array(digits.std)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = np.asarray(model.apply(variables, jnp.float32(images), train=False), np.float64)
    labels = digits.test["label"][:70]
    log_likelihood = logits[np.arange(70), labels] - np.log(np.exp(logits).sum(axis=1))
    assert record["test_loss"] == pytest.approx(-log_likelihood.mean(), rel=1e-5)
    assert record["test_accuracy"] == pytest.approx((logits.argmax(axis=1) == labels).mean())
    # A net of four steps is best divided by less or more than 1: found by a search in float64.
    best = minimize_scalar(lambda t: -log_softmax(logits / t, axis=1)[np.arange(70), labels].mean(), bounds=(1 / 4, 64))
    assert record["scaled_test_loss"] == pytest.approx(best.fun, abs=1e-4)
    assert record["scaled_test_loss"] < record["test_loss"] - 1e-3


def test_one_step_is_optax_on_the_gradient_of_the_mean_cross_entropy(digits):
    program, state = program_and_state(digits, PLAIN)
    model, params, batch_stats = models.create(PLAIN.model, 10), state.params, state.batch_stats
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
    assert sum(int(c.sum()) for c in jax.tree.leaves(clear)) > 20_000
    for c, ours, theirs in zip(*map(jax.tree.leaves, (clear, state.params, expected)), strict=True):
        np.testing.assert_allclose(np.asarray(ours)[c], theirs[c], atol=2e-6)


def test_augmentation_differs_from_step_to_step_and_depends_on_seed_and_epoch_alone():
    seeds = [feed.augmentation_seeds(seed, epoch, 50) for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))]
    assert all(len(set(steps.tolist())) == 50 for steps in seeds)
    assert (seeds[0] == seeds[1]).all()
    assert len({steps.tobytes() for steps in seeds}) == 3


def test_traced_run_trains_as_an_untraced_one_and_measures_what_numpy_does(digits):
    """Every second epoch, on the first images; the steps themselves are not touched."""
    untraced, records = (list(train(replace(CONFIG, trace_every=every), digits)) for every in (0, 2))
    assert without_times(untraced) == [
        {name: record[name] for name in expected}
        for record, expected in zip(records, without_times(untraced), strict=True)
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


def test_a_trace_sees_the_batch_norm_that_training_sees(digits):
    """That of the batch: before the first step the running averages are 0 and 1, and give other gradients."""
    program, state = program_and_state(digits)
    model, probe = models.create("small", 10), subset(digits.train, feed.PROBE)
    images = jnp.float32((probe["image"] / 255 - np.array(digits.mean)) / np.array(digits.std))

    def loss_and_logits(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(feed.PROBE), probe["label"]]), logits

    gradients, logits = jax.jit(jax.grad(loss_and_logits, has_aux=True))(state.params)
    measured = jax.device_get(program.trace(state, jax.device_put(probe)))
    squares = sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(gradients))
    assert measured["gradient_norm"] == pytest.approx(np.sqrt(squares), rel=1e-4)
    lengths = np.linalg.norm(np.asarray(logits, np.float64), axis=1)
    assert measured["logit_norm"] == pytest.approx(lengths.mean(), rel=1e-4)


def kernels_of(params):
    """The convolutions' and the head's kernels by path."""
    flat = jax.tree_util.tree_leaves_with_path(params)
    paths = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}
    return {path: leaf for path, leaf in paths.items() if path.endswith("/kernel")}


def test_bf16_computes_in_bfloat16_and_keeps_float32_parameters(digits, uninterrupted):
    config = replace(PLAIN, precision="bf16", protocol=replace(PROTOCOL, epochs=1))
    loss = next(train(config, digits))["train_loss"]
    # Eight bits of mantissa: near float32's, and not the same.
    assert 0 < abs(loss - uninterrupted[0]["train_loss"]) < 0.1
    _, state = program_and_state(digits, config)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype(np.float32)}


def test_a_constraint_holds_from_its_epoch_on(digits):
    """Adam-LAWN through the whole program: kernels' norms move in the free epoch and stay in the others."""
    config = replace(CONFIG, optimizer="adam_lawn", trace_every=1, hyperparameters=Hyperparameters(free_epochs=1.0))
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
        ({"test_images": 2000, "evaluate_on": "validation"}, "test_images must be at most 1437 for digits, got 2000"),
    ],
)
def test_a_data_set_that_does_not_fit_is_refused(digits, changed, message):
    """JAX would take the last image for each that is not there."""
    protocol = replace(PROTOCOL, **{name: value for name, value in changed.items() if name != "dataset"})
    config = replace(CONFIG, protocol=protocol, dataset=changed.get("dataset", "digits"))
    with pytest.raises(ConfigError, match=message):
        next(train(config, digits))
