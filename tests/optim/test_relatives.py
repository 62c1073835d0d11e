"""AdamP against a float64 reference and its authors' package; fixed_norm."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adamlab.optim.adam import adam
from adamlab.optim.relatives import adamp, fixed_norm
from tests.optim import reference, toy

SETTINGS = [
    {},
    {"weight_decay": 0.1},
    {"delta": 100.0, "weight_decay": 0.1},  # cosines are below 1: every unit is projected
    {"delta": 1.0, "weight_decay": 0.1, "wd_ratio": 0.5, "b1": 0.8},
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_adamp_matches_the_reference(setting):
    trajectory, _ = toy.run(adamp(0.03, **setting))
    params, inner = toy.PARAMS64, reference.AdamP(0.03, **setting)
    for step in range(toy.STEPS):
        updates = inner(toy.gradients64(params, step), params)
        params = {k: w + updates[k] for k, w in params.items()}
    for name, w in params.items():
        np.testing.assert_allclose(trajectory[name][-1], w, rtol=1e-5, atol=1e-5)


def scale_invariant(w, targets):
    """A loss that does not depend on the length of each unit of w (last axis), as under weight standardisation."""
    return jnp.sum((w / jnp.sqrt(jnp.sum(w**2, axis=(0, 1, 2), keepdims=True)) - targets) ** 2)


@pytest.mark.bench
@pytest.mark.parametrize("setting", [*SETTINGS, {"nesterov": True, "weight_decay": 0.1}], ids=str)
def test_adamp_matches_its_authors_package(setting):
    torch, package = pytest.importorskip("torch"), pytest.importorskip("adamp")
    rng = np.random.default_rng(0)
    w0 = {"kernel": rng.normal(size=(3, 3, 2, 4)), "dense": rng.normal(size=(6, 5)), "bias": rng.normal(size=5)}
    target = rng.normal(size=(3, 3, 2, 4))
    noise = {k: rng.normal(size=(200, *w.shape)) for k, w in w0.items()}

    def gradients(params, step):
        # The kernel's loss is scale-invariant; its gradients are projected at the package's defaults.
        grads = {k: 0.5 * w + jnp.asarray(noise[k], jnp.float32)[step] for k, w in params.items()}
        return {**grads, "kernel": jax.grad(scale_invariant)(params["kernel"], jnp.float32(target))}

    params = {k: jnp.float32(w) for k, w in w0.items()}
    trajectory, _ = toy.run(adamp(0.01, **setting), params, 200, gradients)

    # PyTorch's layouts have the output units first.
    theirs = {k: torch.nn.Parameter(torch.tensor(np.moveaxis(w, -1, 0).copy())) for k, w in w0.items()}
    options = dict(setting)
    betas = (options.pop("b1", 0.9), options.pop("b2", 0.999))
    optimizer = package.AdamP(list(theirs.values()), lr=0.01, betas=betas, **options)
    for step in range(200):
        kernel = theirs["kernel"]
        unit = kernel / kernel.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
        loss = (unit - torch.tensor(np.moveaxis(target, -1, 0).copy())).square().sum()
        kernel.grad = torch.autograd.grad(loss, kernel)[0]
        for name in ("dense", "bias"):
            w = theirs[name].detach()
            w_noise = torch.tensor(np.moveaxis(noise[name][step], -1, 0).copy())
            theirs[name].grad = 0.5 * w + w_noise
        optimizer.step()
    for name, w in theirs.items():
        expected = np.moveaxis(w.detach().numpy(), 0, -1)
        np.testing.assert_allclose(trajectory[name][-1], expected, rtol=1e-5, atol=1e-5)


def test_adamp_projects_where_the_loss_is_scale_invariant_and_only_there():
    targets = jax.random.normal(jax.random.key(0), (72,)).reshape(3, 3, 2, 4)

    def gradients(params, step):
        return {"invariant": jax.grad(scale_invariant)(params["invariant"], targets), "other": 0.5 * params["other"]}

    params = {"invariant": toy.PARAMS["conv/kernel"], "other": toy.PARAMS["conv/kernel"]}
    trajectory, _ = toy.run(adamp(0.03), params, 1, gradients)
    expected, _ = toy.run(adam(0.03), params, 1, gradients)
    np.testing.assert_allclose(trajectory["other"], expected["other"], rtol=1e-5, atol=1e-6)
    step = trajectory["invariant"][0] - params["invariant"]
    along = np.sum(step * params["invariant"], axis=(0, 1, 2)) / np.sum(params["invariant"] ** 2, axis=(0, 1, 2))
    np.testing.assert_allclose(along, 0.0, atol=1e-6)


def test_adamp_takes_equinox_layouts():
    trajectory, _ = toy.run(adamp(0.03, delta=1.0), steps=10)
    transposed = {name: jnp.moveaxis(w, -1, 0) if w.ndim else w for name, w in toy.PARAMS.items()}

    def gradients(params, step):
        back = {k: jnp.moveaxis(w, 0, -1) if w.ndim else w for k, w in params.items()}
        return {k: jnp.moveaxis(g, -1, 0) if g.ndim else g for k, g in toy.gradients(back, step).items()}

    mirrored, _ = toy.run(adamp(0.03, delta=1.0, unit_axis=0), transposed, 10, gradients)
    np.testing.assert_allclose(np.moveaxis(mirrored["conv/kernel"], 1, -1), trajectory["conv/kernel"], rtol=1e-5)


def test_adamp_leaves_a_weight_of_zero_where_adam_takes_it():
    optimizer, w, g = adamp(0.1, eps=1e-20), jnp.zeros((3, 2)), jnp.ones((3, 2))
    updates, _ = optimizer.update(g, optimizer.init(w), w)
    np.testing.assert_allclose(updates, np.full((3, 2), -0.1), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": -0.1}, "learning_rate must be a finite number >= 0, got -0.1"),
        ({"b1": 1.0}, r"b1 must be in \[0, 1\), got 1.0"),
        ({"b2": -0.1}, r"b2 must be in \[0, 1\), got -0.1"),
        ({"eps": 0.0}, "eps must be a finite number > 0, got 0.0"),
        ({"weight_decay": -1e-4}, "weight_decay must be a finite number >= 0, got -0.0001"),
        ({"delta": -1}, "delta must be a finite number >= 0, got -1"),
        ({"wd_ratio": -0.1}, "wd_ratio must be a finite number >= 0, got -0.1"),
    ],
)
def test_adamp_refuses_values_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        adamp(**({"learning_rate": 0.1} | arguments))


def test_adamp_keeps_dtypes_and_needs_the_parameters():
    params = {name: w.astype(jnp.bfloat16) for name, w in toy.PARAMS.items()}
    optimizer = adamp(0.03, jnp.float32(0.9))
    updates, state = jax.jit(optimizer.update)(params, optimizer.init(params), params)
    arrays = jax.tree.leaves((updates, state[0].mu, state[0].nu))
    assert {array.dtype for array in arrays} == {jnp.dtype(jnp.bfloat16)}
    with pytest.raises(ValueError, match="needs the parameters"):
        optimizer.update(params, optimizer.init(params))


@pytest.mark.parametrize("unit_axis", [None, -1])
def test_fixed_norm_holds_the_initial_norms(unit_axis):
    trajectory, state = toy.run(fixed_norm(adam(0.03), unit_axis=unit_axis))
    for name in toy.KERNELS:
        axes = None if unit_axis is None else tuple(range(toy.PARAMS[name].ndim - 1))
        norms = [np.sqrt(np.sum(np.square(w, dtype=np.float64), axis=axes)) for w in trajectory[name]]
        initial = np.sqrt(np.sum(np.square(toy.PARAMS[name], dtype=np.float64), axis=axes))
        np.testing.assert_allclose(norms, np.broadcast_to(initial, np.shape(norms)), rtol=1e-6)
    assert state.drift < 1e-6


def test_fixed_norm_holds_what_the_mask_selects():
    mask = {name: name == "dense/kernel" for name in toy.PARAMS}
    assert set(fixed_norm(adam(0.1), mask=mask).init(toy.PARAMS).radius) == {"dense/kernel"}


def test_adamp_composes():
    optimizer = optax.inject_hyperparams(adamp, static_args=("unit_axis",))(0.03)
    trajectory, _ = toy.run(optimizer, steps=10)
    expected, _ = toy.run(adamp(0.03), steps=10)
    toy.assert_close(trajectory, expected, rtol=1e-5)


@pytest.mark.parametrize("make", [adamp, lambda rate, unit_axis=-1: fixed_norm(adam(rate), unit_axis=unit_axis)])
def test_an_axis_is_no_number_to_inject(make):
    """Optax takes every int for one; under jit it would be traced."""
    optimizer = optax.inject_hyperparams(make)(0.03)
    with pytest.raises(
        ValueError, match=r"unit_axis must be a Python int, got .*: in inject_hyperparams it is a static"
    ):
        toy.run(optimizer, steps=1)


def test_complex_and_empty_leaves():
    """Where nothing is projected, AdamP is Adam."""
    params = {"w": jnp.array([1 + 2j, 3 - 1j]), "empty": jnp.zeros((3, 0))}
    gradients = {"w": jnp.array([1j, 1 + 1j]), "empty": jnp.zeros((3, 0))}
    for make in (adam(0.1), adamp(0.1)):
        updates, _ = make.update(gradients, make.init(params), params)
        # The first step is along the gradient, of the learning rate's length, whatever the gradient's.
        np.testing.assert_allclose(updates["w"], -0.1 * gradients["w"] / np.abs(gradients["w"]), rtol=1e-5)
        assert updates["empty"].shape == (3, 0)
    optimizer = fixed_norm(adam(0.1), mask={"w": False, "empty": True}, unit_axis=-1)
    updates, state = optimizer.update(gradients, optimizer.init(params), params)
    assert (updates["empty"].shape, state.drift) == ((3, 0), 0)


def test_parameters_may_be_python_numbers():
    for optimizer in (adam(0.1), adamp(0.1)):
        updates, _ = optimizer.update(2.0, optimizer.init(3.0), 3.0)
        np.testing.assert_allclose(updates, -0.1, rtol=1e-6)


def test_adamp_has_nesterovs_numerator_and_epsilon_outside_the_root():
    """With delta=0 it projects nothing, and is Adam. One gradient is 0 at every step, as of a dead ReLU."""
    b1, eps, theta, m, v = 0.9, 1e-2, np.array([1.0, -2.0, 3.0]), np.zeros(3), np.zeros(3)
    optimizer, params = adamp(0.1, b1, 0.99, eps, delta=0.0, nesterov=True), jnp.float32(theta)
    state = optimizer.init(params)
    for t in range(1, 6):
        g = np.array([np.sin(t), 1e-3 * t, 0.0])
        m, v = b1 * m + (1 - b1) * g, 0.99 * v + 0.01 * g**2
        theta = theta - 0.1 * (b1 * m + (1 - b1) * g) / (1 - b1**t) / (np.sqrt(v / (1 - 0.99**t)) + eps)
        updates, state = optimizer.update(jnp.float32(g), state, params)
        params = params + updates
        np.testing.assert_allclose(params, theta, rtol=1e-5, atol=1e-6)
