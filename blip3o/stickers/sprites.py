"""The bundled sprite pack: loading, tinting and resizing of single stickers."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from .names import CLASSES, STYLES
from .tint import TABLES, lab, shade_index

ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True, eq=False)
class Sprite:
    """One picture of a class. ``rgba`` is uint8 (h, w, 4), cropped to what is painted; ``shade`` uint8 (h, w)."""

    class_name: str
    style: str
    id: str
    rgba: np.ndarray
    shade: np.ndarray

    @property
    def aspect(self) -> tuple[float, float]:
        """(width, height) when the longest side is 1."""
        h, w = self.shade.shape
        return w / max(h, w), h / max(h, w)


@dataclass(frozen=True, eq=False)
class Patch:
    """A tinted sprite at its drawn size, ready to be laid over a picture.

    ``color`` uint16 (h, w, 3), premultiplied; ``rest`` uint16 (h, w, 1) = 255 - alpha; ``mask`` bool (h, w).
    """

    color: np.ndarray
    rest: np.ndarray
    mask: np.ndarray


@lru_cache(maxsize=1)
def pack() -> dict[tuple[str, str], tuple[Sprite, ...]]:
    """(class, style) -> sprites, the one that reads best first. Decoded once per process (about 0.1 s)."""
    index = json.loads((ASSETS / "sprites.json").read_text())
    data = (ASSETS / index["atlas"]).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != index["atlas_sha256"]:
        raise DataError(
            f"sprite atlas has SHA-256 {found}, its index says {index['atlas_sha256']}; reinstall the package"
        )
    atlas = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    table: dict[tuple[str, str], list[Sprite]] = {}
    for entry in index["sprites"]:
        x, y, w, h = entry["box"]
        rgba = atlas[y : y + h, x : x + w]
        key = (entry["class"], entry["style"])
        table.setdefault(key, []).append(Sprite(*key, entry["id"], rgba, shade_index(rgba)))
    return {key: tuple(sprites) for key, sprites in table.items()}


def sprites(class_name: str, style: str) -> tuple[Sprite, ...]:
    """All sprites of a class in a style; KeyError names the allowed words."""
    try:
        return pack()[class_name, style]
    except KeyError:
        raise KeyError(
            f"no sprite of class {class_name!r} in style {style!r}; styles are {', '.join(STYLES)}, "
            f"classes are the {len(CLASSES)} of blip3o.stickers.CLASSES"
        ) from None


@lru_cache(maxsize=4096)
def sprite(class_name: str, style: str, sprite_id: str) -> Sprite:
    """The sprite with this id ("drawn" or a code point)."""
    for candidate in sprites(class_name, style):
        if candidate.id == sprite_id:
            return candidate
    known = ", ".join(s.id for s in sprites(class_name, style))
    raise KeyError(f"{class_name} in {style} has no sprite {sprite_id!r}; it has {known}")


def tinted(source: Sprite, color: str | None) -> np.ndarray:
    """uint8 (h, w, 4) of a sprite in one of the ten colours, or as it is (None)."""
    if color is None:
        return source.rgba
    return np.concatenate([TABLES[color][source.shade], source.rgba[..., 3:]], -1)


@lru_cache(maxsize=20_000)
def patch(
    class_name: str, style: str, sprite_id: str, color: str | None, width: int, height: int
) -> Patch:
    """A sprite tinted and resized; kept, since most scenes repeat a few thousand of them."""
    source = sprite(class_name, style, sprite_id)
    image = Image.fromarray(tinted(source, color)).resize((width, height), Image.Resampling.BICUBIC)
    rgba = np.asarray(image).astype(np.uint16)
    alpha = rgba[..., 3:]
    return Patch((rgba[..., :3] * alpha + 127) // 255, 255 - alpha, alpha[..., 0] >= 128)


@lru_cache(maxsize=8192)
def _palette(
    class_name: str, style: str, sprite_id: str, color: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """L*a*b* colours of the sprite's rim (about 5 of 96 px) and their shares."""
    source = sprite(class_name, style, sprite_id)
    solid = source.rgba[..., 3] >= 128
    inner = np.pad(solid, 5)
    for axis in (0, 1):
        for shift in (1, 2, 2):
            inner = inner & np.roll(inner, shift, axis) & np.roll(inner, -shift, axis)
    rim = solid & ~inner[5:-5, 5:-5]
    pixels = tinted(source, color)[rim][:, :3] // 16
    codes, counts = np.unique(pixels @ np.array([256, 16, 1]), return_counts=True)
    rgb = np.stack([codes // 256, codes // 16 % 16, codes % 16], -1) * 16 + 8
    return lab(rgb), counts / counts.sum()


def vanishing(
    source: Sprite, color: str | None, backgrounds: Iterable[tuple[int, int, int]]
) -> float:
    """Largest share of the sprite's rim that is hard to tell from one of the background colours (0 to 1)."""
    colors, shares = _palette(source.class_name, source.style, source.id, color)
    worst = 0.0
    for rgb in backgrounds:
        distance = np.sqrt(((colors - lab_of(rgb)) ** 2).sum(-1))
        worst = max(worst, float(shares[distance < 20].sum()))
    return worst


@lru_cache(maxsize=65_536)
def lab_of(rgb: tuple[int, int, int]) -> np.ndarray:
    return lab(np.array(rgb))
