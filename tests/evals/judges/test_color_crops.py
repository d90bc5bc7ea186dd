"""The crop against Pillow's own composition, for the modes a picture file may have."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from evals.judges.color_crops import color_crop

RNG = np.random.default_rng(5)


def composed(image: Image.Image, mask: np.ndarray, box: tuple[float, ...]) -> np.ndarray:
    """The same by Pillow's means: composite over grey, then crop."""
    rgb = image.convert("RGB")
    grey = Image.new("RGB", rgb.size, "#999")
    return np.asarray(Image.composite(rgb, grey, Image.fromarray(mask)).crop(box))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "1", "P", "CMYK", "I;16"])
def test_background_is_grey_whatever_the_mode(mode: str) -> None:
    rgb = Image.fromarray(RNG.integers(0, 256, (9, 13, 3), dtype=np.uint8))
    image = rgb.convert("I").convert("I;16") if mode == "I;16" else rgb.convert(mode)
    mask = RNG.random((9, 13)) < 0.5
    box = (2.5, 0.5, 11.5, 9.0)
    crop = color_crop(image, mask, np.array(box, dtype=np.float32))
    assert crop.mode == "RGB"
    assert crop.size == (10, 9)  # 2.5 -> 2, 11.5 -> 12, 0.5 -> 0: half to even
    np.testing.assert_array_equal(np.asarray(crop), composed(image, mask, box))


def test_without_a_mask_the_background_stays_and_outside_is_black() -> None:
    image = Image.new("RGB", (4, 4), (10, 20, 30))
    pixels = np.asarray(color_crop(image, None, (-1, 0, 2, 5)))
    assert pixels.shape == (5, 3, 3)
    assert (pixels[:4, 1:] == (10, 20, 30)).all()
    assert (pixels[:, 0] == 0).all() and (pixels[4] == 0).all()


def test_an_empty_box_gives_an_empty_crop_and_a_reversed_one_is_refused() -> None:
    image = Image.new("RGB", (4, 4))
    assert color_crop(image, None, (0, 0, 0, 0)).size == (0, 0)
    with pytest.raises(ValueError, match="less than"):
        color_crop(image, None, (3, 0, 1, 4))
    with pytest.raises(ValueError, match="mask"):
        color_crop(image, np.ones((4, 5), dtype=bool), (0, 0, 1, 1))
