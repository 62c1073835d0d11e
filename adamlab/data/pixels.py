"""From an encoded photograph to the pixels that a network sees: pure functions, with Pillow.

What is here is what everybody does to ImageNet: torchvision's `RandomResizedCrop` and `RandomHorizontalFlip` for
training, `Resize` and `CenterCrop` for evaluation, on pixels that stay uint8.
"""

import io
import math

import numpy as np
from PIL import Image

# Of a random crop: its share of the image's area, and its width over its height.
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
# The shorter side that an image is resized to before its centre is cut out, relative to what is cut out.
MARGIN = 256 / 224
# A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, which saves most of a large one's time. Above this many pixels
# per pixel along each side, Pillow's documentation of `reducing_gap` calls the result nearly the same.
GAP = 2.0


def random_crop(encoded: bytes, size: int, generator: np.random.Generator) -> np.ndarray:
    """A random part of an image, resized to a square and mirrored with probability 1/2.

    Its area is uniform over `AREA` of the image's, the logarithm of its ratio over that of `RATIO`, its place over all
    places; where ten tries do not fit into the image, it is the centre.

    Args:
      encoded: An image file, in any format and colour mode that Pillow reads.
      size: Side of the square, in pixels.
      generator: It decides everything.

    Returns:
      uint8 of shape (size, size, 3).

    Raises:
      OSError: Pillow cannot read the file. (It raises other errors for some damaged files, too.)

    Source:
      Szegedy et al., "Going deeper with convolutions", arXiv:1409.4842, section 6; torchvision's `RandomResizedCrop`.
    """
    image = Image.open(io.BytesIO(encoded))
    left, top, width, height = random_box(*image.size, generator)
    mirrored = generator.random() < 0.5
    wanted = [
        max(1, math.ceil(GAP * size * whole / part)) for whole, part in zip(image.size, (width, height), strict=True)
    ]
    full_width, drafted = image.width, image.draft(None, (wanted[0], wanted[1]))
    scale = drafted[1][2] / full_width if drafted else 1.0
    box = (scale * left, scale * top, scale * (left + width), scale * (top + height))
    # A side that does not divide by the scale is rounded up by the decoder, so the box lies within the image.
    pixels = np.asarray(_rgb(image).resize((size, size), Image.Resampling.BILINEAR, box))
    return pixels[:, ::-1] if mirrored else pixels


def random_box(width: int, height: int, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """The part of an image of that size which `random_crop` takes: left, top, width and height in pixels."""
    for _ in range(10):
        area = width * height * generator.uniform(*AREA)
        ratio = math.exp(generator.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        part_width, part_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < part_width <= width and 0 < part_height <= height:
            left, top = generator.integers(width - part_width + 1), generator.integers(height - part_height + 1)
            return int(left), int(top), part_width, part_height
    # Too long for the ratio: the largest part of its centre that is not.
    part_width = min(width, max(1, round(height * RATIO[1])))
    part_height = min(height, max(1, round(width / RATIO[0])))
    return (width - part_width) // 2, (height - part_height) // 2, part_width, part_height


def center_crop(encoded: bytes, size: int) -> np.ndarray:
    """The centre of an image whose shorter side is resized to `MARGIN` times the size: 256 to 224 pixels.

    Args:
      encoded: As for `random_crop`.
      size: As for `random_crop`.

    Returns:
      uint8 of shape (size, size, 3).

    Raises:
      OSError: As for `random_crop`.
    """
    image = _rgb(Image.open(io.BytesIO(encoded)))
    shorter, (width, height) = round(MARGIN * size), image.size
    # The longer side is cut to whole pixels, as torchvision's `Resize` does.
    resized = image.resize(
        (max(shorter, shorter * width // height), max(shorter, shorter * height // width)), Image.Resampling.BILINEAR
    )
    left, top = round((resized.width - size) / 2), round((resized.height - size) / 2)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")
