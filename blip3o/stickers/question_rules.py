"""Whether a fact holds on a picture, from what a detector found there. NumPy only.

GenEval's rules where it has one: a detection counts above 0.3, and above 0.9 where objects are counted; only the
best detections of a class are looked at, as many as are asked for; relations are those of its boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from .captions import LARGE, region_at
from .layout import relations
from .question_graph import Fact
from .scenes import EASY_BACKGROUNDS
from .sprites import lab_of

SCORE_THRESHOLD, COUNTING_THRESHOLD = 0.3, 0.9
LARGE_MARGIN = 1 / 16
"""Boxes come from masks, a pixel or two of 64 smaller than the sticker."""
BACKGROUND_LIMIT = 20.0
"""Distance in CIELAB beyond which a background has none of the names. The five stand 10 to 50 apart."""


class FoundObject(Protocol):
    """What is read of a detection: `blip3o.stickers.judge.Found`."""

    class_name: str
    score: float
    box: tuple[int, int, int, int]
    mask: np.ndarray

    @property
    def color(self) -> str: ...


def holds(fact: Fact, found: Sequence[Any], pixels: np.ndarray) -> bool:
    """Whether the fact is true of a picture.

    Args: found: `FoundObject`s, all classes, in any order. pixels: uint8 (H, W, 3).
    """
    if fact.kind == "background":
        return background_name(found, pixels) == fact.value
    objects = _best(found, fact.subject)
    if fact.kind == "entity":
        return bool(objects)
    if fact.kind == "count":
        return sum(f.score > COUNTING_THRESHOLD for f in objects) == fact.number
    objects = objects[: fact.number]
    height, width = pixels.shape[:2]
    if fact.kind == "color":
        return len(objects) == fact.number and all(f.color == fact.value for f in objects)
    if fact.kind == "place":
        return any(region_at(*_center(f.box, width, height)) == fact.value for f in objects)
    if fact.kind == "size":
        sides = [max((x2 - x1) / width, (y2 - y1) / height) for x1, y1, x2, y2 in (f.box for f in objects)]
        return bool(sides) and max(sides) > LARGE - LARGE_MARGIN
    others = _best(found, fact.other)
    return bool(objects and others) and fact.value in relations(objects[0].box, others[0].box)


def background_name(found: Sequence[Any], pixels: np.ndarray) -> str | None:
    """The name of the easy level's background nearest to what lies outside all objects; None when none is near."""
    outside = np.ones(pixels.shape[:2], bool)
    for one in found:
        if one.score > SCORE_THRESHOLD:
            outside &= ~one.mask
    if not outside.any():
        return None
    red, green, blue = (round(float(v)) for v in np.median(pixels[outside], axis=0))
    here = lab_of((red, green, blue))
    distances = {name: float(np.linalg.norm(lab_of(rgb) - here)) for name, rgb in EASY_BACKGROUNDS}
    nearest = min(distances, key=distances.__getitem__)
    return nearest if distances[nearest] < BACKGROUND_LIMIT else None


def _best(found: Sequence[Any], name: str) -> list[Any]:
    mine = [f for f in found if f.class_name == name and f.score > SCORE_THRESHOLD]
    return sorted(mine, key=lambda f: -f.score)


def _center(box: Sequence[float], width: int, height: int) -> tuple[float, float]:
    return (box[0] + box[2]) / 2 / width, (box[1] + box[3]) / 2 / height
