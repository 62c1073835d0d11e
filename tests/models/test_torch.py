"""Every net, forward and backward, against PyTorch's with the same weights, both in float64.

Not in float32: there a ReLU's gate may flip on a rounding error, and whole-net gradients differ by up to 1e-2.
The PyTorch nets (`benchmarks/torch_nets.py`) name their modules as ours do, so that one function carries the weights
over.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamlab.models import create

torch = pytest.importorskip("torch")
from benchmarks.torch_nets import plain20, resnet, vgg19  # noqa: E402

pytestmark = pytest.mark.bench


NETS = [
    ("plain20", {"downsample": "last"}, partial(plain20, downsample="last")),
    ("plain20", {"downsample": "first"}, partial(plain20, downsample="first")),
    ("resnet34", {"stem": "imagenet"}, partial(resnet, bottleneck=False, stem="imagenet")),
    ("resnet34", {"stem": "cifar"}, partial(resnet, bottleneck=False, stem="cifar")),
    ("resnet50", {"stem": "imagenet"}, partial(resnet, bottleneck=True, stem="imagenet")),
    ("vgg19", {}, vgg19),
]


def flat(tree):
    """{dotted path: array} of a Flax tree."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


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
    for path, array in flat(tree).items():
        prefix, *leaf = path.rsplit(".", 2)
        name, axes = LEAVES[".".join(leaf)]
        result[f"{prefix}.{name}"] = array.transpose(axes)
    return result


def close(actual, expected):
    """Equal to 1e-8 of each array's largest element."""
    assert actual.keys() == expected.keys()
    for name, e in expected.items():
        np.testing.assert_allclose(actual[name], e, rtol=0, atol=1e-8 * np.abs(e).max(), err_msg=name)


@pytest.mark.parametrize(("name", "options", "peer"), NETS, ids=[f"{n} {'-'.join(o.values())}" for n, o, _ in NETS])
def test_forward_backward_and_running_averages_equal_pytorchs(name, options, peer):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        images, coefficients = rng.normal(size=(8, 32, 32, 3)), rng.normal(size=(8, 10))
        model = create(name, 10, dtype=jnp.float64, **options)

        def perturb(leaf):  # scales, biases and running averages start as ones and zeros, which would hide mistakes
            noise = rng.uniform(0.0, 0.2, leaf.shape) if leaf.ndim == 1 else 0.0
            return np.asarray(leaf, np.float64) + noise

        variables = jax.tree.map(perturb, jax.jit(model.init)(jax.random.key(0), images))

        @jax.jit
        def run(variables):
            def loss(params):
                logits, updates = model.apply(
                    variables | {"params": params}, images, train=True, mutable=["batch_stats"]
                )
                return jnp.vdot(logits, coefficients), (logits, updates["batch_stats"])

            gradients, (logits, stats) = jax.grad(loss, has_aux=True)(variables["params"])
            return gradients, logits, stats, model.apply(variables, images, train=False)

        gradients, logits, stats, evaluated = run(variables)

    net = peer(10).double()
    weights = as_torch(variables["params"]) | as_torch(variables["batch_stats"])
    state = {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert {k: v.shape for k, v in weights.items()} == {k: tuple(v.shape) for k, v in state.items()}
    net.load_state_dict({k: torch.tensor(v) for k, v in weights.items()}, strict=False)
    x = torch.tensor(images).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected_evaluated = net.eval()(x)
    expected = net.train()(x)
    (expected * torch.tensor(coefficients)).sum().backward()

    close({"logits": np.asarray(evaluated)}, {"logits": expected_evaluated.numpy()})
    close({"logits": np.asarray(logits)}, {"logits": expected.detach().numpy()})
    close(as_torch(stats), {k: v.numpy() for k, v in net.named_buffers() if k in as_torch(stats)})
    close(as_torch(gradients), {k: v.grad.numpy() for k, v in net.named_parameters()})
