"""Every net, forward and backward, against PyTorch's with the same weights, both in float64.

Not in float32: there a ReLU's gate may flip on a rounding error, and whole-net gradients differ by up to 1e-2.
The PyTorch nets (`benchmarks/torch_nets.py`) name their modules as ours do, so that one function carries the weights
over. PyTorch's numbers are in `pytorch.npz`, since not everybody has PyTorch; with it,

  python -m tests.models.test_torch

writes them, and `pytest -m bench` looks whether they still are PyTorch's.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamlab.models import create

STORED = Path(__file__).with_name("pytorch.npz")
NETS = {
    "plain20": ("plain20", {"downsample": "last"}),
    "plain20 first": ("plain20", {"downsample": "first"}),
    "resnet34": ("resnet34", {"stem": "imagenet"}),
    "resnet34 cifar": ("resnet34", {"stem": "cifar"}),
    "resnet50": ("resnet50", {"stem": "imagenet"}),
    "vgg19": ("vgg19", {}),
}
QUICK = ("plain20", "plain20 first", "resnet34")

LEAVES = {  # Flax's name of a leaf: PyTorch's, and the axes that take Flax's layout to PyTorch's
    "conv.kernel": ("conv.weight", (3, 2, 0, 1)),
    "linear.kernel": ("linear.weight", (1, 0)),
    "linear.bias": ("linear.bias", (0,)),
    "norm.scale": ("norm.weight", (0,)),
    "norm.bias": ("norm.bias", (0,)),
    "norm.mean": ("norm.running_mean", (0,)),
    "norm.var": ("norm.running_var", (0,)),
}


def as_torch(tree):
    """{PyTorch's name: array in PyTorch's layout} of a Flax tree."""
    result = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        prefix, *kind = jax.tree_util.keystr(path, simple=True, separator=".").rsplit(".", 2)
        name, axes = LEAVES[".".join(kind)]
        result[f"{prefix}.{name}"] = np.asarray(leaf).transpose(axes)
    return result


def problem(model):
    """Variables, images and coefficients of the logits: NumPy's, so that they are the same everywhere."""
    rng = np.random.default_rng(0)
    images, coefficients = rng.normal(size=(4, 32, 32, 3)), rng.normal(size=(4, 10))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(images.shape))

    def draw(leaf):  # not the ones and zeros that scales, biases and averages start with, which would hide mistakes
        if leaf.ndim == 1:
            return rng.uniform(0.5, 1.5, leaf.shape)
        return rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))

    return jax.tree.map(draw, shapes), images, coefficients


def summarise(evaluated, logits, stats, gradients):
    """Both logits, and of each other array the product with one of random numbers, which no transposition keeps."""
    rng, found = np.random.default_rng(1), {"evaluated": evaluated, "logits": logits}
    for kind, arrays in (("stats", stats), ("gradients", gradients)):
        sizes = [
            (np.vdot(array, rng.normal(size=array.shape)), np.abs(array).sum()) for _, array in sorted(arrays.items())
        ]
        found[kind], found[f"{kind}, sizes"] = np.array(sizes).T
    return found


def ours(name, options):
    """What our net gives."""
    with jax.enable_x64(True):
        model = create(name, 10, dtype=jnp.float64, **options)
        variables, images, coefficients = problem(model)

        def loss(params):
            logits, updates = model.apply(variables | {"params": params}, images, train=True, mutable=["batch_stats"])
            return jnp.vdot(logits, coefficients), (logits, updates["batch_stats"])

        # Op by op: to compile a whole net takes twice as long as this.
        gradients, (logits, stats) = jax.grad(loss, has_aux=True)(variables["params"])
        evaluated = model.apply(variables, images, train=False)
        return summarise(np.asarray(evaluated), np.asarray(logits), as_torch(stats), as_torch(gradients))


def pytorchs(name, options):
    """What PyTorch's net gives."""
    import torch

    from benchmarks import torch_nets

    with jax.enable_x64(True):
        variables, images, coefficients = problem(create(name, 10, dtype=jnp.float64, **options))
    net = torch_nets.create(name, 10, **options).double()
    weights = as_torch(variables["params"]) | as_torch(variables["batch_stats"])
    state = {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert {k: v.shape for k, v in weights.items()} == {k: tuple(v.shape) for k, v in state.items()}
    net.load_state_dict({k: torch.tensor(v) for k, v in weights.items()}, strict=False)
    x = torch.tensor(images).permute(0, 3, 1, 2)
    with torch.no_grad():
        evaluated = net.eval()(x).numpy()
    logits = net.train()(x)
    (logits * torch.tensor(coefficients)).sum().backward()
    stats = {k: v.numpy() for k, v in net.named_buffers() if not k.endswith("num_batches_tracked")}
    return summarise(evaluated, logits.detach().numpy(), stats, {k: v.grad.numpy() for k, v in net.named_parameters()})


def assert_close(found, expected):
    """Equal to 1e-8 of the largest logit, and of the sum of an array's sizes."""
    assert found.keys() == expected.keys()
    for name in ("evaluated", "logits"):
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-8 * np.abs(expected[name]).max())
    for name in ("stats", "gradients"):
        sizes = expected[f"{name}, sizes"]
        sizes = np.maximum(sizes, 1e-3 * sizes.max())  # a gradient of ResNet-50 is 0, but for rounding
        assert np.all(np.abs(found[name] - expected[name]) <= 1e-8 * sizes), name


def stored(net):
    """PyTorch's numbers."""
    with np.load(STORED) as content:
        return {key.partition("/")[2]: content[key] for key in content.files if key.startswith(f"{net}/")}


@pytest.mark.parametrize("net", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NETS])
def test_forward_backward_and_running_averages_equal_pytorchs(net):
    assert_close(ours(*NETS[net]), stored(net))


@pytest.mark.bench
@pytest.mark.parametrize("net", NETS)
def test_the_stored_numbers_are_pytorchs(net):
    pytest.importorskip("torch")
    assert_close(pytorchs(*NETS[net]), stored(net))


if __name__ == "__main__":
    numbers = {f"{net}/{key}": array for net, made in NETS.items() for key, array in pytorchs(*made).items()}
    np.savez_compressed(STORED, **numbers)
