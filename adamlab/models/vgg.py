"""VGG with BatchNorm and one linear head: Simonyan and Zisserman 2015 (arXiv 1409.1556), adapted to small images."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from adamlab.models.layers import ConvNorm, Head
from adamlab.models.pooling import max_pool


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each with BatchNorm and ReLU; a 2x2 max pool ends a stage; linear head.

    A map of one pixel is not pooled any further, so that images under 32x32 pass too.

    Args:
      num_classes: Number of logits.
      stages: (features, number of convolutions) of each stage.
      axis_name: See :class:`~adamlab.models.layers.BatchNorm`.
      dtype: Dtype of the activations; parameters and logits are float32.
    """

    num_classes: int
    stages: tuple[tuple[int, int], ...]
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        """Map normalised images (batch, height, width, channels) to float32 logits (batch, num_classes)."""
        x = images
        for s, (features, size) in enumerate(self.stages):
            for i in range(size):
                name = f"stage{s + 1}_layer{i + 1}"
                x = nn.relu(ConvNorm(features, 3, 1, self.axis_name, self.dtype, name=name)(x, train))
            if min(x.shape[1:3]) > 1:
                x = max_pool(x, 2, 2)
        return Head(self.num_classes, name="head")(x)


def vgg19(num_classes: int, *, axis_name: str | None = None, dtype: DTypeLike = jnp.float32) -> VGG:
    """VGG-19 (column E of table 1) with BatchNorm and one linear head: 20.04 M parameters for 10 classes.

    The LAWN paper (section 3.1) says "VGG-19 CNN network [20] with 1 fully connected final layer" and no more;
    BatchNorm is our reading. Convolutions have no bias: BatchNorm would subtract it. Before the head stands a global
    average pool, which does nothing to the 1x1 map that a 32x32 image leaves.

    Args:
      num_classes: Number of logits.
      axis_name: Mapped axis over which BatchNorm averages; None for none.
      dtype: Dtype of the activations.

    Returns:
      The Flax module.
    """
    stages = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
    return VGG(num_classes, stages, axis_name=axis_name, dtype=dtype)
