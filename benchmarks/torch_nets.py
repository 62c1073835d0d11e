"""The networks in PyTorch: the peers of `benchmarks.step`, and what `tests/models/test_torch.py` compares ours with.

Modules are named as ours are, so that weights can be carried over.
"""

from functools import partial

from torch import nn


def layer(channels, features, kernel_size=3, stride=1):
    net = nn.Sequential()
    net.conv = nn.Conv2d(channels, features, kernel_size, stride, kernel_size // 2, bias=False)
    net.norm = nn.BatchNorm2d(features)
    return net


class Net(nn.Module):
    """Submodules in order, ReLU after each layer; `pools` follow the layers they are named after."""

    def __init__(self, layers, features, classes, pools=None):
        super().__init__()
        for name, module in layers.items():
            self.add_module(name, module)
        self.layers, self.pools = layers, pools or {}
        self.head = nn.Module()
        self.head.linear = nn.Linear(features, classes)

    def forward(self, x):
        for name, module in self.layers.items():
            x = module(x).relu()
            x = self.pools[name](x) if name in self.pools else x
        return self.head.linear(x.mean((2, 3)))


def plain20(classes, downsample="last", widths=(16, 32, 64)):
    layers, channels = {"initial": layer(3, widths[0])}, widths[0]
    strided = {"last": ["set1_layer6", "set2_layer6"], "first": ["set2_layer1", "set3_layer1"]}[downsample]
    for s, width in enumerate(widths, 1):
        for i in range(1, 7):
            name = f"set{s}_layer{i}"
            layers[name] = layer(channels, width, stride=2 if name in strided else 1)
            channels = width
    return Net(layers, channels, classes)


class Block(nn.Module):
    def __init__(self, channels, width, stride, bottleneck):
        super().__init__()
        if bottleneck:
            out = 4 * width
            self.layer1, self.layer2 = layer(channels, width, 1), layer(width, width, 3, stride)
            self.layer3 = layer(width, out, 1)
        else:
            out = width
            self.layer1, self.layer2 = layer(channels, width, 3, stride), layer(width, width)
        self.projection = layer(channels, out, 1, stride) if stride != 1 or channels != out else nn.Identity()
        self.bottleneck = bottleneck

    def forward(self, x):
        y = self.layer2(self.layer1(x).relu())
        y = self.layer3(y.relu()) if self.bottleneck else y
        return self.projection(x) + y


def resnet(classes, bottleneck, stem="imagenet"):
    expansion = 4 if bottleneck else 1
    layers, channels = {"stem": layer(3, 64, 7, 2) if stem == "imagenet" else layer(3, 64)}, 64
    for s, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], 1):
        for i in range(1, blocks + 1):
            layers[f"stage{s}_block{i}"] = Block(channels, width, 2 if s > 1 and i == 1 else 1, bottleneck)
            channels = expansion * width
    return Net(layers, channels, classes, {"stem": nn.MaxPool2d(3, 2, 1)} if stem == "imagenet" else {})


def vgg19(classes):
    layers, pools, channels = {}, {}, 3
    for s, (width, size) in enumerate([(64, 2), (128, 2), (256, 4), (512, 4), (512, 4)], 1):
        for i in range(1, size + 1):
            layers[f"stage{s}_layer{i}"] = layer(channels, width)
            channels = width
        pools[f"stage{s}_layer{size}"] = nn.MaxPool2d(2)
    return Net(layers, 512, classes, pools)


CONSTRUCTORS = {
    "plain20": plain20,
    "resnet34": partial(resnet, bottleneck=False),
    "resnet50": partial(resnet, bottleneck=True),
    "vgg19": vgg19,
}


def create(name, classes, **options):
    """The net that `adamlab.models.create` makes of the same arguments."""
    return CONSTRUCTORS[name](classes, **options)
