"""Residual nets in torchvision's layout: He et al. 2015, "Deep Residual Learning" (arXiv 1512.03385)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from adamlab.models.layers import ConvNorm, Head
from adamlab.models.pooling import max_pool

_STEMS = ("imagenet", "cifar")


class Block(nn.Module):
    """A residual block: ReLU(shortcut + branch), with a projected shortcut (option B) where the shape changes.

    Args:
      features: Channels of the 3x3 convolutions.
      stride: Of the block; it stands on the first 3x3 convolution.
      bottleneck: 1x1, 3x3, 1x1 with four times the features out (figure 5, right), else 3x3, 3x3 (left).
      axis_name, dtype: As :class:`~adamlab.models.layers.ConvNorm`'s.
    """

    features: int
    stride: int
    bottleneck: bool
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Map (batch, height, width, channels) to (batch, ceil(height / stride), ..., features or 4 * features)."""

        def conv_norm(x: Array, features: int, kernel_size: int, stride: int, name: str) -> Array:
            return ConvNorm(features, kernel_size, stride, self.axis_name, self.dtype, name=name)(x, train)

        if self.bottleneck:
            out = 4 * self.features
            y = nn.relu(conv_norm(x, self.features, 1, 1, "layer1"))
            y = nn.relu(conv_norm(y, self.features, 3, self.stride, "layer2"))
            y = conv_norm(y, out, 1, 1, "layer3")
        else:
            out = self.features
            y = nn.relu(conv_norm(x, out, 3, self.stride, "layer1"))
            y = conv_norm(y, out, 3, 1, "layer2")
        if self.stride != 1 or x.shape[-1] != out:
            x = conv_norm(x, out, 1, self.stride, "projection")
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A stem, stages of residual blocks that halve the map and double the width, global average pool, linear head.

    Args:
      num_classes: Number of logits.
      stage_sizes: Blocks per stage (table 1).
      bottleneck: Which block; see :class:`Block`.
      stem: ``"imagenet"``: 7x7 convolution of stride 2 and 3x3 max pool of stride 2; ``"cifar"``: 3x3 convolution of
        stride 1, no pool.
      width: Features of the first stage.
      axis_name: See :class:`~adamlab.models.layers.BatchNorm`.
      dtype: Dtype of the activations; parameters and logits are float32.

    Raises:
      ValueError: If ``stem`` is neither.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    bottleneck: bool
    stem: str = "imagenet"
    width: int = 64
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        if self.stem not in _STEMS:
            raise ValueError(f"stem must be one of {', '.join(_STEMS)}, got {self.stem!r}")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        """Map normalised images (batch, height, width, channels) to float32 logits (batch, num_classes)."""
        kernel_size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        stem = ConvNorm(self.width, kernel_size, stride, self.axis_name, self.dtype, name="stem")
        x = nn.relu(stem(images, train))
        if self.stem == "imagenet":
            x = max_pool(x, 3, 2)
        for s, size in enumerate(self.stage_sizes):
            for i in range(size):
                block = Block(
                    features=self.width * 2**s,
                    stride=2 if s > 0 and i == 0 else 1,
                    bottleneck=self.bottleneck,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"stage{s + 1}_block{i + 1}",
                )
                x = block(x, train)
        return Head(self.num_classes, name="head")(x)


def resnet34(
    num_classes: int,
    *,
    stem: str = "imagenet",
    axis_name: str | None = None,
    dtype: DTypeLike = jnp.float32,
) -> ResNet:
    """ResNet-34: He et al. 2015, figure 3 and table 1; 21,797,672 parameters for 1000 classes.

    The sensitivity paper (section 3.2) takes "the 34-layer architecture", says that it "was designed for ImageNet
    (though can be easily adapted to work for CIFAR-10)", and not how. Keeping the ImageNet stem is our reading. It
    cites their figure 4, which is one of curves; the architecture is figure 3.

    Args:
      num_classes: Number of logits.
      stem: ``"imagenet"`` or ``"cifar"``; see :class:`ResNet`.
      axis_name: Mapped axis over which BatchNorm averages; None for none.
      dtype: Dtype of the activations.

    Returns:
      The Flax module.

    Raises:
      ValueError: If ``stem`` is neither.
    """
    return ResNet(num_classes, (3, 4, 6, 3), bottleneck=False, stem=stem, axis_name=axis_name, dtype=dtype)


def resnet50(
    num_classes: int,
    *,
    stem: str = "imagenet",
    axis_name: str | None = None,
    dtype: DTypeLike = jnp.float32,
) -> ResNet:
    """ResNet-50 v1.5, as torchvision's: 25,557,032 parameters for 1000 classes.

    He et al. 2015, table 1, with the stride of a block on its 3x3 convolution rather than on the first 1x1.

    Args:
      num_classes: Number of logits.
      stem: ``"imagenet"`` or ``"cifar"``; see :class:`ResNet`.
      axis_name: Mapped axis over which BatchNorm averages; None for none.
      dtype: Dtype of the activations.

    Returns:
      The Flax module.

    Raises:
      ValueError: If ``stem`` is neither.
    """
    return ResNet(num_classes, (3, 4, 6, 3), bottleneck=True, stem=stem, axis_name=axis_name, dtype=dtype)
