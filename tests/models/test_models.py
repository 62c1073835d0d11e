"""The nets: parameter counts, shapes, dtypes, options and errors. The comparison with PyTorch: test_torch.py."""

from functools import cache, partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from adamlab.models import MODELS, create
from adamlab.models.plain import Plain
from adamlab.models.resnet import ResNet
from adamlab.models.vgg import VGG
from tests.models.test_layers import close

SMALL = {  # each architecture at a size that compiles in a second or two
    "plain": partial(Plain, set_size=1, widths=(4, 6, 8)),
    "basic blocks": partial(ResNet, stage_sizes=(1, 1), bottleneck=False, width=4),
    "bottlenecks, CIFAR stem": partial(ResNet, stage_sizes=(1, 1), bottleneck=True, width=4, stem="cifar"),
    "vgg": partial(VGG, stages=((4, 1), (6, 1), (8, 1), (8, 1))),
}


@cache  # Flax traces a net of 50 layers anew for every test
def shapes(model, image=(32, 32, 3)):
    """Variables as shapes, without computing anything."""
    images = jax.ShapeDtypeStruct((2, *image), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def conv(k, channels, features):
    """Parameters of a convolution without bias and the scale and bias of its BatchNorm."""
    return k * k * channels * features + 2 * features


def head(features, classes):
    return (features + 1) * classes


def plain20_count(classes):
    sets = [(16, 16), (16, 32), (32, 64)]  # 6 layers each, the first of which changes the width
    return conv(3, 3, 16) + sum(conv(3, i, o) + 5 * conv(3, o, o) for i, o in sets) + head(64, classes)


def resnet34_count(classes, stem_kernel):
    total, channels = conv(stem_kernel, 3, 64), 64
    for width, blocks in [(64, 3), (128, 4), (256, 6), (512, 3)]:
        projection = conv(1, channels, width) if width != channels else 0
        total += projection + conv(3, channels, width) + (2 * blocks - 1) * conv(3, width, width)
        channels = width
    return total + head(512, classes)


def resnet50_count(classes):
    total, channels = conv(7, 3, 64), 64
    for width, blocks in [(64, 3), (128, 4), (256, 6), (512, 3)]:
        total += conv(1, channels, 4 * width)  # the projection, in the first block of every stage
        total += conv(1, channels, width) + (blocks - 1) * conv(1, 4 * width, width)
        total += blocks * (conv(3, width, width) + conv(1, width, 4 * width))
        channels = 4 * width
    return total + head(2048, classes)


def vgg19_count(classes):
    features = [3, 64, 64, 128, 128, *[256] * 4, *[512] * 8]
    return sum(conv(3, i, o) for i, o in pairwise(features)) + head(512, classes)


@pytest.mark.parametrize(
    ("name", "options", "classes", "derived", "published"),
    [
        # He et al. 2015, table 6 says 0.27M for 20 layers.
        ("plain20", {}, 10, plain20_count(10), 269_722),
        ("plain20", {"downsample": "first"}, 10, plain20_count(10), 269_722),
        # torchvision.models.resnet34() and resnet50().
        ("resnet34", {}, 1000, resnet34_count(1000, 7), 21_797_672),
        ("resnet34", {"stem": "cifar"}, 10, resnet34_count(10, 3), None),
        ("resnet50", {}, 1000, resnet50_count(1000), 25_557_032),
        # 20.04 M: 3x3 convolutions 20,018,880, BatchNorm 11,008, head 5,130.
        ("vgg19", {}, 10, vgg19_count(10), 20_035_018),
    ],
)
def test_parameter_counts(name, options, classes, derived, published):
    params = shapes(create(name, classes, **options))["params"]
    assert count(params) == derived
    assert published is None or derived == published


@pytest.mark.parametrize("image", [(8, 8, 1), (33, 47, 3), (1, 1, 3)])
@pytest.mark.parametrize("name", MODELS)
def test_every_net_takes_every_image(name, image):
    model = create(name, 7)
    logits, updates = jax.eval_shape(
        partial(model.apply, train=True, mutable=["batch_stats"]),
        shapes(model, image),
        jax.ShapeDtypeStruct((5, *image), jnp.float32),
    )
    assert (logits.shape, logits.dtype) == ((5, 7), jnp.float32)
    stats = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes(model, image)["batch_stats"])
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), updates["batch_stats"]) == stats


def drawn(name, images=4, **options):
    """One of `SMALL`, its variables and images. Compiling `init` would take longer than the rest of a test."""
    model, rng = SMALL[name](num_classes=3, **options), np.random.default_rng(0)

    def draw(leaf):  # variances must be positive
        values = rng.uniform(0.5, 1.5, leaf.shape) if leaf.ndim == 1 else rng.normal(size=leaf.shape)
        return values.astype(np.float32)

    variables = jax.tree.map(draw, shapes(model, (8, 8, 1)))
    return model, variables, rng.normal(size=(images, 8, 8, 1)).astype(np.float32)


@pytest.mark.parametrize(("name", "dtype"), [*((name, "float32") for name in SMALL), ("plain", "bfloat16")])
def test_gradients_are_finite_float32_and_reach_every_parameter(name, dtype):
    model, variables, images = drawn(name, dtype=dtype)

    @jax.jit
    def step(variables):
        def loss(params):
            logits, updates = model.apply(variables | {"params": params}, images, train=True, mutable=["batch_stats"])
            return jnp.sum(jnp.square(logits - jnp.eye(4, 3))), (logits, updates["batch_stats"])

        return jax.grad(loss, has_aux=True)(variables["params"])

    gradients, (logits, stats) = step(variables)
    for leaf in jax.tree.leaves((gradients, stats, logits)):
        assert leaf.dtype == jnp.float32
        assert np.isfinite(leaf).all()
    assert [path for path, leaf in jax.tree.leaves_with_path(gradients) if not np.any(leaf)] == []
    moved = jax.tree.map(lambda before, after: np.any(before != after), variables["batch_stats"], stats)
    assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize("name", SMALL)
def test_statistics_are_those_of_all_devices(name):
    model, variables, images = drawn(name, 8)

    def statistics(model):
        return lambda images: model.apply(variables, images, train=True, mutable=["batch_stats"])[1]

    mesh = jax.make_mesh((4,), ("device",), axis_types=(AxisType.Auto,))
    spread = jax.shard_map(
        statistics(model.clone(axis_name="device")),
        mesh=mesh,
        in_specs=PartitionSpec("device"),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    close(jax.jit(spread)(images), jax.jit(statistics(model))(images), 1e-5)


def by_hand(params, stats, x):
    """The logits of `SMALL`'s VGG or bottlenecks, layer by layer."""

    def layer(path, x, stride=1):
        conv, norm, seen = params, params, stats
        for name in path.split("/"):
            conv, norm, seen = conv[name], norm[name], seen[name]
        kernel, norm, seen = conv["conv"]["kernel"], norm["norm"], seen["norm"]
        padding = 2 * [2 * (kernel.shape[0] // 2,)]
        y = lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return (np.asarray(y) - seen["mean"]) / np.sqrt(seen["var"] + 1e-5) * norm["scale"] + norm["bias"]

    def relu(x):
        return np.maximum(x, 0)

    if "stem" in params:
        x = relu(layer("stem", x))
        for block, stride in (("stage1_block1", 1), ("stage2_block1", 2)):
            y = relu(layer(f"{block}/layer1", x))
            y = relu(layer(f"{block}/layer2", y, stride))  # v1.5: not the first layer strides
            x = relu(layer(f"{block}/layer3", y) + layer(f"{block}/projection", x, stride))
    else:
        for stage in range(1, 5):
            x = relu(layer(f"stage{stage}_layer1", x))
            if (side := x.shape[1] // 2) > 0:
                x = x.reshape(len(x), side, 2, side, 2, -1).max((2, 4))
    head = params["head"]["linear"]
    return x.mean((1, 2)) @ head["kernel"] + head["bias"]


@pytest.mark.parametrize("name", ["vgg", "bottlenecks, CIFAR stem"])
def test_vgg_and_bottlenecks_are_their_layers_one_after_the_other(name):
    model, variables, images = drawn(name)
    expected = by_hand(variables["params"], variables["batch_stats"], images)
    close(jax.jit(model.apply)(variables, images), expected, 1e-4)


@pytest.mark.parametrize(("name", "dtype"), [*((name, jnp.bfloat16) for name in MODELS), ("resnet34", jnp.float32)])
def test_activations_have_the_dtype_asked_for(name, dtype):
    model = create(name, 10, dtype=dtype)
    _, intermediates = jax.eval_shape(
        partial(model.apply, train=True, capture_intermediates=True, mutable=["batch_stats", "intermediates"]),
        shapes(model),
        jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32),
    )
    activations = intermediates["intermediates"]
    del activations["__call__"], activations["head"]  # the logits
    assert {leaf.dtype for leaf in jax.tree.leaves(activations)} == {jnp.dtype(dtype)}


def map_sides(model, side=32):
    """Height of the map after each layer or block, sorted by name."""
    _, captured = jax.eval_shape(
        partial(model.apply, capture_intermediates=True, mutable=["intermediates"]),
        shapes(model),
        jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32),
    )
    layers = {
        name: inner for name, inner in sorted(captured["intermediates"].items()) if name not in ("head", "__call__")
    }
    return [inner["__call__"][0].shape[1] for inner in layers.values()]


def test_plain20_strides_where_the_paper_and_where_he_et_al_put_it():
    # The initial layer and 6 of set 1, 6 of set 2, 6 of set 3.
    assert map_sides(create("plain20", 10)) == [32] * 6 + [16] * 6 + [8] * 7  # last layer of sets 1 and 2
    assert map_sides(create("plain20", 10, downsample="first")) == [32] * 7 + [16] * 6 + [8] * 6


def test_resnet34_stems():
    # 3, 4, 6 and 3 blocks, then the stem, 32 / 2 in its convolution; the pool after it halves again.
    assert map_sides(create("resnet34", 10)) == [8] * 3 + [4] * 4 + [2] * 6 + [1] * 3 + [16]
    assert map_sides(create("resnet34", 10, stem="cifar")) == [32] * 3 + [16] * 4 + [8] * 6 + [4] * 3 + [32]


def test_vgg19_pools_between_stages():
    assert map_sides(create("vgg19", 10)) == [32] * 2 + [16] * 2 + [8] * 4 + [4] * 4 + [2] * 4


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("resnet18", 10), {}, ValueError, rf"{', '.join(MODELS)}, got 'resnet18'"),
        (("plain20", 0), {}, ValueError, r"num_classes.*at least 1.*0"),
        (("plain20", 10), {"stem": "cifar"}, TypeError, r"plain20 has no option stem; it has downsample"),
        (("vgg19", 10), {"widths": 3, "depth": 4}, TypeError, r"vgg19 has no option widths, depth; it has axis_name"),
        (("plain20", 10), {"downsample": "middle"}, ValueError, r"downsample.*first, last.*'middle'"),
        (("resnet34", 10), {"stem": "CIFAR"}, ValueError, r"stem.*imagenet, cifar.*'CIFAR'"),
        (("resnet50", 10), {"stem": None}, ValueError, r"stem.*imagenet, cifar.*None"),
    ],
)
def test_bad_arguments_are_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        create(*arguments, **options)
