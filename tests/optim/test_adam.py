"""Adam against a float64 reference of Algorithm 1, Optax and PyTorch; traced hyperparameters; refused values."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamlab

SETTINGS = [
    {},
    {"b1": 0.0},
    {"b1": 0.999},
    {"b2": 0.1},
    {"b2": 0.99999},
    {"eps": 1e-2},
    {"eps": 0.0, "eps_root": 1e-4},
    {"b1": 0.5, "b2": 0.9, "eps": 1.0},
]


def algorithm_1(theta, gradients, alpha=1e-3, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0):
    """Algorithm 1, line by line, in float64, with epsilon outside and inside the root."""
    theta = np.asarray(theta, np.float64)
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for t, g in enumerate(np.asarray(gradients, np.float64), start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        theta = theta - alpha * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
    return theta


def run(optimizer, theta, gradients):
    """The parameters after all gradients, in one compiled scan."""

    def step(carry, gradient):
        theta, state = carry
        updates, state = optimizer.update({"w": gradient}, state, {"w": theta})
        return (optax.apply_updates({"w": theta}, updates)["w"], state), None

    (theta, _), _ = jax.lax.scan(step, (theta, optimizer.init({"w": theta})), gradients)
    return theta


@pytest.fixture(scope="module")
def problem():
    """Start and 1,000 gradients of very different sizes, some zero: what tells the settings apart."""
    generator = np.random.default_rng(0)
    gradients = generator.normal(size=(1000, 7)) * 10.0 ** np.arange(-3, 4) * (generator.random((1000, 7)) > 0.3)
    return jnp.asarray(generator.normal(size=7), jnp.float32), jnp.asarray(gradients, jnp.float32)


def test_takes_python_numbers_as_optax_does():
    optimizer = adamlab.adam(0.1)
    update, _ = optimizer.update(2.0, optimizer.init(1.0), 1.0)
    np.testing.assert_allclose(update, -0.1, rtol=1e-6)  # the first step is the sign's


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_matches_algorithm_1_in_float64(problem, setting):
    theta, gradients = problem
    expected = algorithm_1(theta, gradients, alpha=1e-2, **setting)
    np.testing.assert_allclose(run(adamlab.adam(1e-2, **setting), theta, gradients), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_traced_hyperparameters_match_algorithm_1_of_their_float32_values(problem, setting):
    theta, gradients = problem
    arrays = {name: jnp.float32(value) for name, value in setting.items()}
    result = jax.jit(lambda alpha, arrays: run(adamlab.adam(alpha, **arrays), theta, gradients))(1e-2, arrays)
    # An array is what it is in float32: float32(0.99999) is 0.999989986. The reference gets the same number.
    rounded = {name: float(np.float32(value)) for name, value in setting.items()}
    expected = algorithm_1(theta, gradients, alpha=float(np.float32(1e-2)), **rounded)
    np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_matches_optax(problem, setting):
    theta, gradients = problem
    ours, theirs = (
        run(adamlab.adam(1e-2, **setting), theta, gradients),
        run(optax.adam(1e-2, **setting), theta, gradients),
    )
    # Optax corrects the bias by 1 - b2**t in float32, which at b2 = 0.99999 is off by up to 3e-3 in the first steps.
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.bench
@pytest.mark.parametrize("setting", [s for s in SETTINGS if "eps_root" not in s], ids=str)
def test_matches_pytorch(problem, setting):
    torch = pytest.importorskip("torch")
    theta, gradients = problem
    parameter = torch.nn.Parameter(torch.tensor(np.array(theta), dtype=torch.float64))
    values = {"b1": 0.9, "b2": 0.999, "eps": 1e-8} | setting
    optimizer = torch.optim.Adam([parameter], lr=1e-2, betas=(values["b1"], values["b2"]), eps=values["eps"])
    for gradient in np.array(gradients):
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    result = run(adamlab.adam(1e-2, **setting), theta, gradients)
    np.testing.assert_allclose(result, parameter.detach().numpy(), rtol=2e-5, atol=2e-5)


def test_bias_correction_keeps_its_digits_for_beta2_near_one():
    """With equal gradients v_t / (1 - beta2^t) is g^2 at every t, so each step is alpha, whatever beta2."""
    gradients = jnp.full((3, 1), 0.5)
    moved = jax.jit(lambda b2: run(adamlab.adam(1.0, b2=b2, eps=0.0), jnp.zeros(1), gradients))(jnp.float32(0.99999))
    np.testing.assert_allclose(moved, [-3.0], rtol=1e-6)


def test_one_compilation_serves_a_grid_and_vmaps(problem):
    theta, gradients = problem
    final = jax.jit(lambda alpha, b1, b2, eps: run(adamlab.adam(alpha, b1, b2, eps), theta, gradients))
    grid = jnp.asarray([[1e-3, 0.9, 0.999, 1e-8], [1e-2, 0.0, 0.9, 1e-2], [1e-4, 0.99, 0.9999, 1.0]])
    one_by_one = jnp.stack([final(*setting) for setting in grid])
    assert final._cache_size() == 1
    at_once = jax.vmap(lambda s: run(adamlab.adam(*s), theta, gradients))(grid)
    np.testing.assert_allclose(at_once, one_by_one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("b1", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("b2", [0.0, 0.999])
def test_derivatives_by_the_decays_are_those_of_float64(b1, b2):
    """At 0, too, where a logarithm of the decay has none."""
    theta, gradients = jnp.ones(3), jnp.array([[1.0, 2.0, 3.0], [-2.0, 1.0, 4.0], [1.0, -3.0, 0.5]])
    final = jax.jacobian(lambda b1, b2: run(adamlab.adam(0.1, b1, b2), theta, gradients), argnums=(0, 1))
    h = 1e-5
    by_b1 = algorithm_1(theta, gradients, 0.1, b1 + h, b2) - algorithm_1(theta, gradients, 0.1, b1 - h, b2)
    by_b2 = algorithm_1(theta, gradients, 0.1, b1, b2 + h) - algorithm_1(theta, gradients, 0.1, b1, b2 - h)
    for ours, difference in zip(final(b1, b2), (by_b1, by_b2), strict=True):
        np.testing.assert_allclose(ours, difference / (2 * h), rtol=1e-4, atol=1e-4)


def test_schedule_is_counted_from_zero():
    schedule = optax.piecewise_constant_schedule(1.0, {2: 0.0})  # 1 for steps 0 and 1, then 0
    moved = run(adamlab.adam(schedule), jnp.zeros(1), jnp.ones((5, 1)))
    np.testing.assert_allclose(moved, [-2.0], rtol=1e-5)


def test_complex_parameters_are_optaxs():
    theta, gradients = jnp.array([1.0 + 2.0j, 3.0]), jnp.array([[1.0j, 1.0], [0.5 - 1.0j, 2.0], [1.0j, -1.0 + 1.0j]])
    np.testing.assert_allclose(
        run(adamlab.adam(0.1), theta, gradients), run(optax.adam(0.1), theta, gradients), rtol=1e-5
    )


def test_a_fresh_state_can_be_donated():
    """Each buffer of the state exists once: XLA refuses to be given the same one twice."""
    params = {"w": jnp.ones(3)}
    optimizer = adamlab.adam(1e-3)
    step = jax.jit(lambda params, state: optimizer.update(params, state, params), donate_argnums=(0, 1))
    updates, _ = step(params, optimizer.init(params))
    np.testing.assert_allclose(updates["w"], -1e-3, rtol=1e-5)  # the first step is alpha, whatever the gradient


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": -0.1}, "learning_rate must be a finite number >= 0, got -0.1"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number >= 0, got nan"),
        ({"learning_rate": float("inf")}, "learning_rate must be a finite number >= 0, got inf"),
        ({"b1": 1.0}, r"b1 must be in \[0, 1\), got 1.0"),
        ({"b2": -0.1}, r"b2 must be in \[0, 1\), got -0.1"),
        ({"b2": np.float32(1.5)}, r"b2 must be in \[0, 1\), got 1.5"),
        ({"eps": -1e-8}, "eps must be a finite number >= 0, got -1e-08"),
        ({"eps_root": float("nan")}, "eps_root must be a finite number >= 0, got nan"),
        ({"learning_rate": "1e-3"}, "learning_rate must be a finite number >= 0, got '1e-3'"),
        ({"b1": None}, r"b1 must be in \[0, 1\), got None"),
        ({"b1": np.array([0.9])}, r"b1 must be in \[0, 1\), got \[0.9\]"),
    ],
)
def test_refuses_values_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        adamlab.adam(**({"learning_rate": 1e-3} | arguments))
