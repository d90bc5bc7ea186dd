"""The detector's input: OpenCV's resize to the bit, mmdet's sizes, padding and normalisation."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from PIL import Image

from evals.judges.mask2former_images import prepare, resize, scaled_size

# sha256 (first 16 digits) of cv2.resize(picture, (width, height)) of opencv-python-headless 5.0.0, 2026-11-22.
OPENCV = [
    ((64, 64), (50, 50), "ddd525757b407ddb"),
    ((31, 47), (96, 146), "1f907cd0e98460ed"),
    ((120, 80), (60, 40), "fa488381d3cf93ca"),  # exactly half: the mean of four
    ((7, 9), (80, 103), "f81eff650fb668f8"),
    ((1, 5), (27, 133), "835595a316da4dfa"),
    ((150, 100), (60, 40), "99ba2e0c7ad8f2c7"),
    ((33, 17), (5, 4), "1b5b5d000638a18e"),
]


def numbered(height: int, width: int) -> np.ndarray:
    numbers = np.arange(height * width * 3, dtype=np.int64) * 2654435761 % 2**32
    return (numbers >> 24).astype(np.uint8).reshape(height, width, 3)


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    out = resize(torch.from_numpy(picture).permute(2, 0, 1), size)
    return np.ascontiguousarray(out.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("source", "target", "digest"), OPENCV)
def test_resize_is_opencvs_to_the_bit(source, target, digest):
    out = resized(numbered(*source), target)
    assert hashlib.sha256(out.tobytes()).hexdigest()[:16] == digest


def test_resize_equals_opencv_where_it_is_installed():
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    for _ in range(40):
        height, width, new_height, new_width = rng.integers(1, 200, 4)
        picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        wanted = cv2.resize(picture, (int(new_width), int(new_height)))
        assert np.array_equal(resized(picture, (int(new_height), int(new_width))), wanted)


def test_resize_is_within_one_of_exact_bilinear_interpolation():
    """The plain formula in float64, pixel by pixel: no antialiasing, four neighbours only."""
    picture, (height, width) = numbered(23, 37), (9, 50)
    out = resized(picture, (height, width))
    for y in range(height):
        for x in range(width):
            sy = min(max((y + 0.5) * 23 / height - 0.5, 0), 22)
            sx = min(max((x + 0.5) * 37 / width - 0.5, 0), 36)
            y0, x0 = int(sy), int(sx)
            y1, x1, fy, fx = min(y0 + 1, 22), min(x0 + 1, 36), sy - y0, sx - x0
            p = picture.astype(float)
            exact = (1 - fy) * ((1 - fx) * p[y0, x0] + fx * p[y0, x1])
            exact += fy * ((1 - fx) * p[y1, x0] + fx * p[y1, x1])
            assert np.abs(out[y, x] - exact).max() < 1.0


def test_lines_between_the_sampled_ones_are_lost():
    """What antialiasing would keep: from 1024 to 800 lines some are seen with a share below a third."""
    picture = np.zeros((1024, 8, 3), np.uint8)
    picture[3] = 255
    assert resized(picture, (256, 8)).max() == 0


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((1024, 1024), (800, 800)),
        ((512, 512), (800, 800)),
        ((600, 512), (938, 800)),  # 937.5 is rounded up
        ((576, 1024), (750, 1333)),  # the long side decides
        ((1, 4000), (1, 1333)),
    ],
)
def test_scaled_size(size, wanted):
    assert scaled_size(size, 800, 1333) == wanted


@pytest.mark.parametrize("padding", ["grey", "zero"])
def test_input_is_normalised_and_padded_to_multiples_of_32(padding):
    picture = numbered(30, 50)
    one = prepare(Image.fromarray(picture), padding, short_side=48, long_side=90)
    assert (one.size, one.original, tuple(one.pixels.shape)) == ((48, 80), (30, 50), (3, 64, 96))
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    inner = resized(picture, (48, 80))
    for c in range(3):
        wanted = (inner[:, :, c].astype(float) - mean[c]) / std[c]
        assert np.abs(one.pixels[c, :48, :80].numpy() - wanted).max() < 1e-5
        fill = (128 - mean[c]) / std[c] if padding == "grey" else 0.0
        assert math.isclose(one.pixels[c, 48:].min(), fill, abs_tol=1e-6)
        assert math.isclose(one.pixels[c, :, 80:].max(), fill, abs_tol=1e-6)


def test_square_pictures_have_no_padding_and_any_mode_is_read():
    for mode in ("L", "P", "RGBA", "CMYK", "1"):
        image = Image.new(mode, (40, 40))
        assert prepare(image, short_side=64, long_side=96).pixels.shape == (3, 64, 64)
