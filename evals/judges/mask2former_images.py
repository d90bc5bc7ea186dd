"""From a picture to the input of GenEval's detector: mmdet's test pipeline, without OpenCV.

The pipeline of mmdet 2.x for Mask2Former: the short side becomes at most 800 and the long side at most 1333
pixels, resized by OpenCV's bilinear interpolation on 8-bit values *without antialiasing* (a picture of 1024
pixels loses a part of its lines, and the detector was trained with that), then padded on the right and below to
a multiple of 32 and normalised. Pillow and the image processor of transformers antialias, so the resize is
written here, in the fixed-point arithmetic of OpenCV, equal to it bit for bit on any device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

SHORT_SIDE = 800
LONG_SIDE = 1333
DIVISOR = 32
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
PADDINGS = ("grey", "zero")
"""What fills the padding. grey: 128 before normalising, as the configurations at the end of mmdet 2.x do it;
zero: zeros after it, as their first version did. Pictures of 1:1 have no padding."""

_COEFFICIENT = 2048  # OpenCV holds the weights of its 8-bit interpolation in 11 bits


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture as the network gets it.

    `pixels`: float32 (3, H, W), H and W multiples of 32. `size`: (height, width) without the padding.
    `original`: (height, width) of the picture itself.
    """

    pixels: Tensor
    size: tuple[int, int]
    original: tuple[int, int]


def prepare(
    image: Image.Image,
    padding: str = "grey",
    device: Any = "cpu",
    short_side: int = SHORT_SIDE,
    long_side: int = LONG_SIDE,
) -> Prepared:
    """The input of the network for one picture, of any mode that Pillow converts to RGB."""
    import torch

    rgb = torch.from_numpy(np.array(image.convert("RGB"))).to(device).permute(2, 0, 1)
    original = (rgb.shape[1], rgb.shape[2])
    size = scaled_size(original, short_side, long_side)
    mean = torch.tensor(MEAN, device=device)[:, None, None]
    std = torch.tensor(STD, device=device)[:, None, None]
    height, width = (-(-side // DIVISOR) * DIVISOR for side in size)
    fill = (128 - mean) / std if padding == "grey" else torch.zeros_like(mean)
    pixels = fill.repeat(1, height, width)
    pixels[:, : size[0], : size[1]] = (resize(rgb, size).float() - mean) / std
    return Prepared(pixels, size, original)


def scaled_size(size: tuple[int, int], short_side: int, long_side: int) -> tuple[int, int]:
    """(height, width) after scaling by the smaller of the two ratios; halves are rounded up."""
    height, width = size
    scale = min(long_side / max(height, width), short_side / min(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resize(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """`cv2.resize` to (height, width) for uint8 (C, H, W): bilinear, no antialiasing.

    Exactly half the size is the mean of four pixels, as there. Whole numbers throughout.
    """
    import torch

    height, width = picture.shape[1:]
    if size == (height, width):
        return picture
    if (height, width) == (2 * size[0], 2 * size[1]):
        blocks = picture.reshape(-1, size[0], 2, size[1], 2).int()
        return ((blocks.sum(dim=(2, 4), dtype=torch.int32) + 2) >> 2).to(torch.uint8)
    device = picture.device
    left, right, x_weights = _taps(width, size[1], is_x=True)
    upper, lower, y_weights = _taps(height, size[0], is_x=False)
    # Only rows that are used are interpolated along x, each once.
    used, place = np.unique(np.concatenate([upper, lower]), return_inverse=True)

    def on_device(numbers: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers)).to(device)

    rows = picture.index_select(1, on_device(used))
    # 32 bits hold 255 * 2048 * 2048 / 16 with room to spare.
    wide = rows.index_select(2, on_device(left)) * on_device(x_weights[0])
    wide += rows.index_select(2, on_device(right)) * on_device(x_weights[1])
    wide >>= 4
    above, below = (
        (wide.index_select(1, on_device(part)) * on_device(weights)[:, None]) >> 16
        for part, weights in zip(np.split(place.ravel(), 2), y_weights, strict=True)
    )
    return ((above + below + 2) >> 2).to(torch.uint8)


def _taps(source: int, target: int, is_x: bool) -> tuple[Any, Any, tuple[Any, Any]]:
    """The two source positions of every target position, and their weights in 1/2048 (int32).

    Beyond the first and last pixel both positions are the same. Along x the whole weight is then on one
    of them; along y it stays split, which differs in the last bit, as the two parts are cut apart.
    """
    scale = 1.0 / (target / source)
    position = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    share = position - first.astype(np.float32)
    if is_x:
        share[(first < 0) | (first >= source - 1)] = 0
    weights = (
        np.rint((np.float32(1) - share) * np.float32(_COEFFICIENT)).astype(np.int32),
        np.rint(share * np.float32(_COEFFICIENT)).astype(np.int32),
    )
    return first.clip(0, source - 1), (first + 1).clip(0, source - 1), weights
