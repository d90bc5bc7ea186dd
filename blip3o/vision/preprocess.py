"""Pictures -> tensors; the same code in training and in the pipeline.

Dimension letters: B batch, S picture side, t temporal patch, p patch side, m merge side.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from blip3o.errors import ConfigError, DataError, ShapeError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
UNIT_MEAN = UNIT_STD = (0.5, 0.5, 0.5)  # maps 0..1 to -1..1

MAX_ASPECT = 200  # of the longer to the shorter side; Qwen's own limit

Fit = Literal["crop", "square"]


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Resize to a fixed square and normalise.

    ``fit``: ``crop`` scales the short side (bicubic) and cuts the centre; ``square`` ignores the aspect ratio.
    """

    size_px: int
    fit: Fit = "crop"
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        if self.size_px < 1 or self.fit not in get_args(Fit):
            raise ConfigError(
                f"preprocess needs size_px of at least 1 and fit crop or square, got {self.size_px} and {self.fit!r}"
            )

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures of any size and mode -> (B, 3, S, S), normalised."""
        fitted = [fit_square(image, self.size_px, self.fit) for image in images]
        return normalise(to_unit_tensor(fitted), self.mean, self.std)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB on white where the picture is transparent; rotated as its EXIF says; 16 bits become 8.

    Raises: DataError for what is no picture, cannot be decoded, or has numbers without a fixed range.
    """
    if not isinstance(image, Image.Image):
        raise DataError(
            f"a picture must be a PIL image, got {type(image).__name__}; open it with PIL.Image.open"
        )
    if min(image.size) < 1:
        raise DataError(f"a picture of {image.width}x{image.height} px has no pixels")
    if image.mode in ("I", "F"):
        raise DataError(
            f"a picture of mode {image.mode} does not say what is black and what is white; convert it to 8 bits"
        )
    from PIL import ImageOps

    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):  # convert() would cut at 255: all but the darkest turns white
            eight_bits = np.asarray(image.convert("I"), dtype=np.float64) / 257
            return Image.fromarray(eight_bits.round().astype(np.uint8)).convert("RGB")
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            white = Image.new("RGBA", rgba.size, "white")
            return Image.alpha_composite(white, rgba).convert("RGB")
        return image.convert("RGB")
    # Decoders and damaged EXIF raise many kinds.
    except (OSError, ValueError, TypeError, SyntaxError, EOFError, struct.error) as error:
        raise DataError(
            f"a picture of mode {image.mode} cannot be read as RGB ({' '.join(str(error).split())})"
        ) from error


def fit_square(image: Image.Image, size_px: int, fit: Fit = "crop") -> Image.Image:
    """A size_px x size_px RGB picture, bicubic with antialiasing; left as it is where it already fits."""
    image = to_rgb(image)
    if image.size == (size_px, size_px):
        return image
    if fit == "square":
        return image.resize((size_px, size_px), Image.Resampling.BICUBIC)
    if max(image.size) > MAX_ASPECT * min(image.size):  # would be gigabytes before the centre is cut out
        raise DataError(_too_narrow(*image.size))
    # Rounding as in torchvision's Resize and CenterCrop, which the released models were trained with.
    short = min(image.size)
    width, height = (int(size_px * side / short) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size_px) / 2), round((height - size_px) / 2)
    return image.crop((left, top, left + size_px, top + size_px))


def to_unit_tensor(images: Sequence[Image.Image]) -> Tensor:
    """RGB pictures of one size -> (B, 3, H, W) float32 in [0, 1]."""
    arrays = [np.asarray(image, dtype=np.uint8) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


def to_images(pictures: Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in [0, 1] -> PIL pictures, rounded to 8 bits."""
    array = (pictures.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return [Image.fromarray(row) for row in array.permute(0, 2, 3, 1).cpu().numpy()]


def normalise(pictures: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> normalised per channel."""
    shape = (1, 3, 1, 1)
    return (pictures - pictures.new_tensor(mean).view(shape)) / pictures.new_tensor(std).view(shape)


def _too_narrow(width: int, height: int) -> str:
    return f"a picture of {width}x{height} px is too narrow; at most {MAX_ASPECT} times as long as wide"


def qwen_patches(pictures: Tensor, patch: int, merge: int, temporal: int) -> tuple[Tensor, Tensor]:
    """Pictures of one size as patch rows of Qwen's vision tower.

    Args: pictures (B, 3, H, W), normalised; H and W divisible by patch * merge.
    Returns: rows (B*h*w, 3*temporal*patch*patch) in the order of Qwen's image processor (merge blocks row
        by row, patches inside a block) and grids (B, 3) of (1, h, w), counted in patches.
    """
    batch, channels, height, width = pictures.shape
    if height % (patch * merge) or width % (patch * merge):
        raise ShapeError(
            f"a picture of {width}x{height} px does not divide into merged patches of {patch * merge} px; resize it"
        )
    h, w = height // patch, width // patch
    x = pictures.reshape(batch, channels, h // merge, merge, patch, w // merge, merge, patch)
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)  # (B, h/m, w/m, m, m, C, p, p)
    x = x[..., None, :, :].expand(*x.shape[:6], temporal, patch, patch)
    rows = x.reshape(batch * h * w, channels * temporal * patch * patch)
    return rows, torch.tensor([[1, h, w]], device=pictures.device).repeat(batch, 1)


def qwen_size(
    width: int, height: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Width and height near the picture's own, divisible by ``factor`` and within the pixel budget.

    Raises: DataError for an aspect ratio above 200, which Qwen's tower does not take.
    """
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise DataError(_too_narrow(width, height))
    new_w, new_h = (max(factor, round(side / factor) * factor) for side in (width, height))
    if new_w * new_h > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        new_w, new_h = (
            max(factor, math.floor(s / shrink / factor) * factor) for s in (width, height)
        )
    elif new_w * new_h < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        new_w, new_h = (math.ceil(s * grow / factor) * factor for s in (width, height))
    return new_w, new_h
