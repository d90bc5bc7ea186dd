"""Ten colours for any sprite: its luminance picks a point on the colour's ramp from dark over middle to light.

Shading and inner lines stay visible while the hue is replaced, so black, white and brown exist too.
"""

from __future__ import annotations

import numpy as np

from .names import COLORS

# colour -> (darkest, middle, lightest) RGB
RAMPS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "red": ((92, 4, 8), (214, 26, 28), (255, 118, 104)),
    "orange": ((142, 56, 0), (248, 128, 10), (255, 196, 112)),
    "yellow": ((150, 112, 0), (250, 214, 22), (255, 246, 150)),
    "green": ((4, 62, 14), (34, 150, 42), (134, 220, 122)),
    "blue": ((6, 20, 104), (30, 80, 220), (122, 174, 255)),
    "purple": ((46, 8, 82), (126, 38, 182), (200, 130, 244)),
    "pink": ((168, 40, 104), (252, 126, 182), (255, 206, 228)),
    "brown": ((46, 24, 8), (116, 68, 32), (182, 130, 84)),
    "black": ((4, 4, 6), (30, 30, 34), (112, 112, 120)),
    "white": ((128, 134, 146), (230, 233, 238), (255, 255, 255)),
}  # fmt: skip


def _table(color: str) -> np.ndarray:
    dark, middle, light = (np.array(c, np.float64) for c in RAMPS[color])
    t = np.linspace(0, 1, 256)[:, None]
    ramp = np.where(
        t < 0.5, dark + (middle - dark) * 2 * t, middle + (light - middle) * (2 * t - 1)
    )
    return np.round(ramp).astype(np.uint8)


#: colour -> uint8 (256, 3): shade index to RGB
TABLES: dict[str, np.ndarray] = {c: _table(c) for c in COLORS}


def shade_index(rgba: np.ndarray) -> np.ndarray:
    """uint8 (h, w, 4) -> uint8 (h, w): the sprite's median luminance lands on the middle of the ramp.

    Darker and lighter parts are stretched over the two halves; a half that spans less than 60 levels keeps
    its little contrast instead of being blown up.
    """
    luma = rgba[..., :3].astype(np.float64) @ (0.299, 0.587, 0.114)
    low, middle, high = np.percentile(luma[rgba[..., 3] >= 128], (2, 50, 98))
    darker = (luma - middle) / max(middle - low, 60.0)
    lighter = (luma - middle) / max(high - middle, 60.0)
    t = np.clip(0.5 + 0.5 * np.where(luma < middle, darker, lighter), 0, 1)
    return np.round(255 * t).astype(np.uint8)


def lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB 0..255 (..., 3) -> CIE L*a*b* (D65)."""
    c = np.asarray(rgb, np.float64) / 255
    c = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = (
        c
        @ np.array(
            [
                [0.4124564, 0.2126729, 0.0193339],
                [0.3575761, 0.7151522, 0.1191920],
                [0.1804375, 0.0721750, 0.9503041],
            ]
        )
        / (0.95047, 1.0, 1.08883)
    )
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


_CENTRES = lab(np.array([RAMPS[c][1] for c in COLORS]))


def nearest_color(rgb: np.ndarray) -> str:
    """Name of the colour of the ten whose middle tone is nearest to a mean RGB, by distance in L*a*b*."""
    return COLORS[int(np.argmin(((lab(np.asarray(rgb)) - _CENTRES) ** 2).sum(-1)))]
