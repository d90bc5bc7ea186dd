"""Pictures -> tensors, against transformers' and torchvision's own processing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from blip3o.errors import ConfigError, DataError, ShapeError
from blip3o.vision.preprocess import (
    CLIP_MEAN,
    CLIP_STD,
    Preprocess,
    fit_square,
    normalise,
    qwen_patches,
    qwen_size,
    to_images,
    to_rgb,
    to_unit_tensor,
)


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).convert(mode)


@pytest.mark.parametrize("size", [(90, 60), (61, 90), (64, 64), (33, 200), (20, 27)])
def test_resize_and_crop_equal_torchvision(size) -> None:
    image = picture(*size)
    reference = v2.Compose([v2.Resize(32, v2.InterpolationMode.BICUBIC), v2.CenterCrop(32)])(image)
    assert np.array_equal(np.asarray(fit_square(image, 32)), np.asarray(reference))


def test_patches_equal_those_of_qwens_processor() -> None:
    from transformers import Qwen2VLImageProcessor

    image = picture(84, 56)
    expected = Qwen2VLImageProcessor(min_pixels=784, max_pixels=10**6)([image], return_tensors="pt")
    rows, grid = qwen_patches(normalise(to_unit_tensor([image]), CLIP_MEAN, CLIP_STD), 14, 2, 2)
    torch.testing.assert_close(rows, expected["pixel_values"], atol=1e-6, rtol=0)
    assert torch.equal(grid, expected["image_grid_thw"])


def test_sizes_equal_those_of_qwens_processor() -> None:
    rng = np.random.default_rng(1)
    for width, height in rng.integers(20, 3000, (500, 2)).tolist():
        expected = smart_resize(height, width, 28, 56 * 56, 1003520)
        assert qwen_size(width, height, 28, 56 * 56, 1003520) == (expected[1], expected[0])
    with pytest.raises(DataError, match="too narrow"):
        qwen_size(1000, 4, 28, 3136, 10**6)


def test_pictures_survive_the_way_there_and_back() -> None:
    image = picture(16, 16)
    assert np.array_equal(np.asarray(to_images(to_unit_tensor([image]))[0]), np.asarray(image))


def test_every_mode_becomes_rgb() -> None:
    for mode in ("L", "P", "RGBA", "CMYK", "1", "LA"):
        assert to_rgb(picture(8, 8, "RGB").convert(mode)).mode == "RGB"
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert to_rgb(clear).getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(DataError, match="must be a PIL image, got str"):
        to_rgb("picture.png")


def test_normalisation_is_per_channel() -> None:
    prepared = Preprocess(size_px=8)([picture(8, 8)])
    raw = to_unit_tensor([picture(8, 8)])
    torch.testing.assert_close(prepared[:, 2], (raw[:, 2] - CLIP_MEAN[2]) / CLIP_STD[2])
    with pytest.raises(ConfigError, match="got 0"):
        Preprocess(size_px=0)


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ShapeError, match="30x32 px does not divide into merged patches of 16"):
        qwen_patches(torch.zeros(1, 3, 32, 30), 8, 2, 2)
