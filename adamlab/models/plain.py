"""The plain net of the sensitivity paper: a VGG-like stack of 3x3 convolutions without shortcuts."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from adamlab.models.layers import ConvNorm, Head

_PLACEMENTS = ("first", "last")


class Plain(nn.Module):
    """Three sets of 3x3 convolutions, each followed by BatchNorm and ReLU; global average pool; linear head.

    Args:
      num_classes: Number of logits.
      set_size: Convolutions per set; with the initial one and the head, depth is 3 * set_size + 2.
      widths: Filters of the initial convolution and the first set, of the second and of the third.
      downsample: Where the stride-2 convolution between two sets stands: ``"last"``, at the end of the earlier one,
        or ``"first"``, at the start of the later one.
      axis_name: See :class:`~adamlab.models.layers.BatchNorm`.
      dtype: Dtype of the activations; parameters and logits are float32.

    Raises:
      ValueError: If ``downsample`` is neither.
    """

    num_classes: int
    set_size: int = 6
    widths: tuple[int, int, int] = (16, 32, 64)
    downsample: str = "last"
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        if self.downsample not in _PLACEMENTS:
            raise ValueError(f"downsample must be one of {', '.join(_PLACEMENTS)}, got {self.downsample!r}")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        """Map normalised images (batch, height, width, channels) to float32 logits (batch, num_classes)."""

        def layer(x: Array, features: int, stride: int, name: str) -> Array:
            return nn.relu(ConvNorm(features, 3, stride, self.axis_name, self.dtype, name=name)(x, train))

        x = layer(images, self.widths[0], 1, "initial")
        for s, width in enumerate(self.widths):
            strided = {"first": 0 if s > 0 else None, "last": self.set_size - 1 if s < 2 else None}[self.downsample]
            for i in range(self.set_size):
                x = layer(x, width, 2 if i == strided else 1, f"set{s + 1}_layer{i + 1}")
        return Head(self.num_classes, name="head")(x)


def plain20(
    num_classes: int,
    *,
    downsample: str = "last",
    axis_name: str | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Plain:
    """The plain 20-layer net: 269,722 parameters for 10 classes.

    The sensitivity paper (section 3.2) takes it from He et al. 2015 (arXiv 1512.03385), section 4.2: "3 sets of
    layers containing 6 layers each, where transitions between layer sets are marked by pooling operations implemented
    with strided convolutions in the last layer of each set". He et al. give the initial convolution, the widths 16,
    32, 64, BatchNorm before each ReLU, global average pool and linear head, and put the stride in the *first* layer of
    the next set: ``downsample="first"``. Our reading of the paper: "last" concerns the two transitions, so the third
    set, which nothing follows, keeps its 8x8 map; its initial convolution, widths and BatchNorm are He et al.'s.

    Args:
      num_classes: Number of logits.
      downsample: ``"last"`` (the sensitivity paper) or ``"first"`` (He et al.).
      axis_name: Mapped axis over which BatchNorm averages; None for none.
      dtype: Dtype of the activations.

    Returns:
      The Flax module.

    Raises:
      ValueError: If ``downsample`` is neither.
    """
    return Plain(num_classes, downsample=downsample, axis_name=axis_name, dtype=dtype)
