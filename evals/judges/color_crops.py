"""What a colour classifier is shown of an object: its pixels on grey, cut to its box.

The picture that djghosh13/geneval (commit af4902f) hands to CLIP's preprocessing: RGB, everything
outside the mask in grey (#999), then cropped to the box by Pillow, which rounds fractional
coordinates half to even and fills what lies outside the picture with black.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL import Image

BACKGROUND = (153, 153, 153)


def color_crop(
    image: Image.Image, mask: NDArray[np.bool_] | None, box: Sequence[float]
) -> Image.Image:
    """The crop, in mode RGB.

    Args: image: any mode that Pillow converts to RGB (transparency is dropped). mask: bool (H, W) of
    the image's size, or None to keep the background. box: x1, y1, x2, y2 with exclusive end.
    Raises: ValueError if the mask has another size, or the box ends before it begins.
    """
    from PIL import Image

    rgb = image.convert("RGB")
    if mask is not None:
        if mask.shape != (rgb.height, rgb.width):
            raise ValueError(f"the mask is {mask.shape}, the picture {(rgb.height, rgb.width)}")
        rgb = Image.fromarray(
            np.where(mask[..., None], np.asarray(rgb), np.array(BACKGROUND, np.uint8))
        )
    x1, y1, x2, y2 = (float(value) for value in box)  # Pillow 13 refuses a NumPy array as a box
    return rgb.crop((x1, y1, x2, y2))
