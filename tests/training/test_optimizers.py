"""The papers' names give the optimizers that the papers mean, against float64 NumPy and Optax with Python numbers."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adamlab import adamp
from adamlab.config import RunConfig
from adamlab.hyperparameters import OPTIMIZERS, ConfigError, Hyperparameters
from adamlab.protocol import PROTOCOLS, Protocol
from adamlab.training.optimizers import Recipe, traced

# Four steps an epoch; 12 in all, of which LAWN's are free for 4.
PROTOCOL = Protocol("test", train_images=40, test_images=1, batch_size=10, epochs=3)
STEPS = 12
PARAMS = {
    "kernel": jax.random.normal(jax.random.key(0), (3, 4)),
    "bias": jnp.ones(4),
    "head": jax.random.normal(jax.random.key(1), (4, 2)),
}


def config_of(optimizer, schedule="constant", **hyperparameters):
    values = replace(OPTIMIZERS[optimizer].defaults, **hyperparameters)
    return RunConfig("none", "none", replace(PROTOCOL, schedule=schedule), values, optimizer=optimizer)


def gradients(params, step):
    return jax.tree.map(lambda p: jnp.sin(3 * p + step), params)


def trajectory(optimizer):
    """The parameters before and after each of the 12 steps."""
    params, state = PARAMS, optimizer.init(PARAMS)
    update, visited = jax.jit(optimizer.update), [PARAMS]
    for step in range(STEPS):
        updates, state = update(gradients(params, step), state, params)
        params = optax.apply_updates(params, updates)
        visited.append(params)
    return visited


def run(config):
    return trajectory(Recipe(config.optimizer, config.protocol.schedule)(traced(config)))


def assert_same(ours, theirs, steps=STEPS):
    for a, b in zip(ours[: steps + 1], theirs[: steps + 1], strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


def test_adam_decays_through_the_gradient_and_adamw_apart_from_it():
    decayed = optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.01, 0.8, 0.99, 1e-3))
    values = {"alpha": 0.01, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-3, "weight_decay": 0.1}
    assert_same(run(config_of("adam", **values)), trajectory(decayed))
    ours = run(config_of("adamw", **values))
    assert_same(ours, trajectory(optax.adamw(0.01, 0.8, 0.99, 1e-3, weight_decay=0.1)))


def test_adamp_is_the_librarys():
    ours = run(config_of("adamp", alpha=0.01, beta1=0.8, beta2=0.99, epsilon=1e-3, weight_decay=0.1))
    assert_same(ours, trajectory(adamp(0.01, 0.8, 0.99, 1e-3, 0.1)))


def test_sgd_is_pytorchs():
    """torch.optim.SGD: v <- mu v + g + decay w, w <- w - alpha v."""
    ours = run(config_of("sgd", alpha=0.1, beta1=0.8, weight_decay=0.05))
    weights = {name: np.asarray(value, np.float64) for name, value in PARAMS.items()}
    velocity = {name: np.zeros_like(value) for name, value in weights.items()}
    for step in range(STEPS):
        for name, w in weights.items():
            velocity[name] = 0.8 * velocity[name] + np.sin(3 * w + step) + 0.05 * w
            weights[name] = w - 0.1 * velocity[name]
            np.testing.assert_allclose(ours[step + 1][name], weights[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("lawn", "values", "base"),
    [
        ("adam_lawn", {"beta2": 0.99, "epsilon": 1e-3}, optax.adam(0.05, 0.8, 0.99, 1e-3)),
        (
            "sgd_lawn",
            {"weight_decay": 0.05},
            optax.chain(optax.add_decayed_weights(0.05), optax.sgd(0.05, 0.8)),
        ),
        ("lamb_lawn", {"beta2": 0.99, "epsilon": 1e-3}, optax.lamb(0.05, 0.8, 0.99, 1e-3)),
    ],
)
def test_lawn_is_its_base_for_the_free_epochs_and_holds_norms_after_them(lawn, values, base):
    visited = run(config_of(lawn, alpha=0.05, beta1=0.8, free_epochs=1.0, **values))
    assert_same(visited, trajectory(base), steps=4)
    norms = [float(jnp.linalg.norm(params["kernel"])) for params in visited]
    np.testing.assert_allclose(norms[4:], norms[4], rtol=1e-6)
    assert abs(norms[1] / norms[0] - 1) > 1e-4  # it moved while free
    assert abs(float(jnp.linalg.norm(visited[-1]["bias"])) / float(jnp.linalg.norm(visited[4]["bias"])) - 1) > 1e-4


@pytest.mark.parametrize("optimizer", ["sgd", "sgd_lawn", "sgd_three_phase"])
def test_phases_are_a_warm_up_and_a_cosine_after_a_constant_free_phase(optimizer):
    """SGD without momentum on a bias, which is never held: its step is the learning rate times the gradient."""
    free = {"free_epochs": 1.0} if optimizer != "sgd" else {}
    visited = run(config_of(optimizer, "phases", alpha=0.1, beta1=0.0, weight_decay=0.0, warmup_epochs=0.5, **free))
    free_steps, warmup = (4 if free else 0), 2
    for step in range(STEPS):
        t, length = step - free_steps, STEPS - free_steps
        cosine = 0.05 * (1 + np.cos(np.pi * (t - warmup) / (length - warmup)))
        expected = 0.1 if t < 0 else 0.1 * t / warmup if t < warmup else cosine
        moved = np.asarray(visited[step]["bias"] - visited[step + 1]["bias"], np.float64)
        np.testing.assert_allclose(moved, expected * np.sin(3 * np.asarray(visited[step]["bias"]) + step), atol=2e-6)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_an_ablation_is_its_lawn_variant_but_for_the_norms_after_the_switch(name):
    """A bias is free, and its gradients depend on itself alone: the end of the weight decay is in both."""
    phases = {"alpha": 0.1, "free_epochs": 1.0, "warmup_epochs": 0.5} | ({"weight_decay": 0.1} if name == "sgd" else {})
    ablation, lawn = (run(config_of(f"{name}_{kind}", "phases", **phases)) for kind in ("three_phase", "lawn"))
    assert_same(ablation, lawn, steps=4)
    assert_same([p["bias"] for p in ablation], [p["bias"] for p in lawn])
    held, grown = (float(jnp.linalg.norm(visited[-1]["kernel"])) for visited in (lawn, ablation))
    assert held == pytest.approx(float(jnp.linalg.norm(lawn[4]["kernel"])), rel=1e-6)
    assert abs(grown / held - 1) > 1e-4


@pytest.mark.parametrize(("optimizer", "held", "free"), [("head", "head", "kernel"), ("body", "kernel", "head")])
def test_a_part_of_lawn_holds_one_part_and_leaves_the_other_to_adam(optimizer, held, free):
    """Gradients of a leaf depend on it alone, so each part goes where it would under the whole, or under none."""
    phases = {"alpha": 0.1, "free_epochs": 1.0, "warmup_epochs": 0.5}
    names = (f"adam_lawn_{optimizer}", "adam_lawn", "adam_three_phase")
    part, whole, none = (run(config_of(name, "phases", **phases)) for name in names)
    assert_same([p[held] for p in part], [p[held] for p in whole])
    assert_same([p[free] for p in part], [p[free] for p in none])
    norms = {name: [float(jnp.linalg.norm(p[name])) for p in part[4:]] for name in (held, free)}
    np.testing.assert_allclose(norms[held], norms[held][0], rtol=1e-6)
    assert abs(norms[free][-1] / norms[free][0] - 1) > 1e-4


def test_a_part_of_lawn_needs_a_head():
    optimizer = Recipe("adam_lawn_body", "phases")(traced(config_of("adam_lawn_body", "phases")))
    with pytest.raises(ConfigError, match="needs a net with a layer named head, got first, last"):
        optimizer.init({"first": jnp.ones((2, 2)), "last": jnp.ones((2, 2))})


def test_lengths_are_given_in_steps():
    phases = Hyperparameters(free_epochs=5, warmup_epochs=0.5)
    config = RunConfig("cifar10", "vgg19", PROTOCOLS["lawn-paper"], phases, optimizer="adam_lawn")
    # 50,000 images in batches of 256 make 195 whole batches an epoch.
    lengths = {name: float(value) for name, value in traced(config).items() if name.endswith("steps")}
    assert lengths == {"free_steps": 975, "warmup_steps": 98, "total_steps": 195 * 300}


def test_every_optimizer_can_be_made_and_an_unknown_one_is_refused():
    for name in OPTIMIZERS:
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run(config_of(name, "phases"))[-1]))
    with pytest.raises(ValueError, match=r"optimizer must be one of adam, .*, got 'rmsprop'"):
        Recipe("rmsprop")(traced(config_of("adam")))
