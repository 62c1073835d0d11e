"""Decoding and cutting, against what Pillow does when it is asked for it plainly."""

import io
from math import ceil

import numpy as np
import pytest
from PIL import Image
from scipy.stats import kstest, uniform

from adamlab.data import pixels
from tests.data.photos import HUGE, KINDS, jpeg

SIZE = 224
SHAPES = [*KINDS, (HUGE, "RGB")]


@pytest.mark.parametrize(("size", "mode"), SHAPES, ids=str)
def test_center_crop_is_resize_and_crop(size, mode):
    """torchvision's Resize(256) and CenterCrop(224), step by step: nothing is decoded at less than its size here."""
    encoded = jpeg(size, mode, seed=1)
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    width, height = (256, int(256 * size[1] / size[0])) if size[0] <= size[1] else (int(256 * size[0] / size[1]), 256)
    left, top = round((width - SIZE) / 2), round((height - SIZE) / 2)
    expected = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + SIZE, top + SIZE))
    np.testing.assert_array_equal(pixels.center_crop(encoded, SIZE), np.asarray(expected))


@pytest.mark.parametrize(("size", "mode"), SHAPES, ids=str)
def test_random_crop_is_crop_resize_and_mirror(size, mode):
    """Up to the crop's edges, across which we may look, and to what a smaller decoding of a huge JPEG loses."""
    encoded = jpeg(size, mode, seed=2)
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    for seed in range(6):
        generator = np.random.default_rng(seed)
        left, top, width, height = pixels.random_box(*size, generator)
        cut = image.crop((left, top, left + width, top + height)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        expected = np.asarray(cut).astype(int)
        expected = expected[:, ::-1] if generator.random() < 0.5 else expected
        found = pixels.random_crop(encoded, SIZE, np.random.default_rng(seed)).astype(int)
        assert found.shape == (SIZE, SIZE, 3)
        # Half a pixel of the image at the crop's edges is mixed with the pixel outside, which the crop does not have.
        edge = 1 + ceil(SIZE / (2 * min(width, height)))
        assert np.abs(found - expected)[edge:-edge, edge:-edge].max() <= 4  # of 256 levels, under noise of sigma 8


def test_a_huge_jpeg_is_decoded_at_less_than_its_size(monkeypatch):
    """Otherwise this would not be the slow path that the test above compares with."""
    encoded, decoded = jpeg(HUGE, "RGB", seed=3), []
    load = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda image, *args: decoded.append(image.size) or load(image, *args))
    for seed in range(6):
        pixels.random_crop(encoded, SIZE, np.random.default_rng(seed))
    assert min(decoded) < HUGE


def test_crops_have_the_published_areas_ratios_and_places():
    generator, side, draws = np.random.default_rng(0), 1_000, 4_000
    left, top, width, height = np.array([pixels.random_box(side, side, generator) for _ in range(draws)]).T
    area, ratio = width * height / side**2, width / height
    # Whole pixels move an area by at most 1/2 + 1/2 of 280 pixels, the shorter of the smallest crop's sides.
    assert area.min() >= 0.08 * (1 - 2 / 240)
    assert area.max() <= 1
    assert 3 / 4 - 0.01 < ratio.min() < 0.77 < 1.31 < ratio.max() < 4 / 3 + 0.01
    assert min(left.min(), top.min()) >= 0
    assert max((left + width).max(), (top + height).max()) <= side
    # A square treats both sides alike: log ratio is symmetric about 0, and uniform over +-0.288 has sigma 0.166.
    assert abs(np.log(ratio).mean()) < 5 * 0.166 / draws**0.5
    # Areas are uniform, up to the 3/4 at which every ratio fits; above, some are drawn again.
    assert kstest(area[area <= 0.75], uniform(0.08, 0.75 - 0.08).cdf).pvalue > 1e-4
    assert area.max() > 0.95
    # Places are uniform over those that there are, where pixels are many.
    for place, part in ((left, width), (top, height)):
        free = part <= 0.9 * side
        assert kstest(place[free] / (side - part[free]), uniform.cdf).pvalue > 1e-4


@pytest.mark.parametrize("size", [(2000, 10), (10, 2000), (1, 1)])
def test_an_image_too_long_for_any_crop_gives_its_centre(size):
    left, top, width, height = pixels.random_box(*size, np.random.default_rng(0))
    assert (width, height) == {(2000, 10): (13, 10), (10, 2000): (10, 13), (1, 1): (1, 1)}[size]
    assert abs(2 * left + width - size[0]) <= 1
    assert abs(2 * top + height - size[1]) <= 1


def test_every_second_crop_is_mirrored():
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (256, 1)))
    buffer = io.BytesIO()
    ramp.save(buffer, "PNG")
    crops = [pixels.random_crop(buffer.getvalue(), 32, np.random.default_rng(seed)) for seed in range(400)]
    mirrored = sum(int(crop[0, 0, 0] > crop[0, -1, 0]) for crop in crops)
    assert abs(mirrored - 200) < 5 * 10  # sigma of 400 fair coins is 10
    assert all((crop[..., 0] == crop[..., 1]).all() and (crop[..., 0] == crop[..., 2]).all() for crop in crops)


@pytest.mark.parametrize("damage", [lambda encoded: b"", lambda encoded: encoded[:900], lambda encoded: b"JPEG?" * 99])
def test_what_is_no_image_is_an_error(damage):
    encoded = damage(jpeg((500, 375), "RGB", seed=4))
    with pytest.raises(OSError, match=r"cannot identify|truncated"):
        pixels.center_crop(encoded, SIZE)
    with pytest.raises(OSError, match=r"cannot identify|truncated"):
        pixels.random_crop(encoded, SIZE, np.random.default_rng(0))
