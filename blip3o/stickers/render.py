"""Scenes -> pixels, masks and boxes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .scenes import Background, Scene
from .sprites import patch, sprite


@dataclass(frozen=True, eq=False)
class Rendered:
    """``image`` uint8 (H, W, 3); ``masks`` bool (n, H, W), the visible part of each sticker; ``boxes`` int
    (n, 4): x1, y1, x2, y2 with exclusive end, around the visible mask (zeros when nothing is visible)."""

    image: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray


def render(scene: Scene, size_px: int | None = None) -> Rendered:
    """Draw a scene at its own resolution or at ``size_px``. Later stickers cover earlier ones."""
    px = size_px or scene.size_px
    image = _backdrop(scene.background, px).copy()
    masks = np.zeros((len(scene.stickers), px, px), bool)
    for i, s in enumerate(scene.stickers):
        p = s.placement
        wide, high = sprite(s.class_name, s.style, s.sprite).aspect
        w, h = max(1, round(p.size * px * wide)), max(1, round(p.size * px * high))
        x, y = round(p.cx * px - w / 2), round(p.cy * px - h / 2)
        drawn = patch(s.class_name, s.style, s.sprite, s.color, w, h)
        x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, px), min(y + h, px)
        part = (slice(y1 - y, y2 - y), slice(x1 - x, x2 - x))
        area = (slice(y1, y2), slice(x1, x2))
        behind = image[area].astype(np.uint16) * drawn.rest[part]
        image[area] = drawn.color[part] + (behind + 127) // 255
        masks[:i, *area] &= ~drawn.mask[part]
        masks[i, *area] = drawn.mask[part]
    return Rendered(image, masks, boxes_of(masks))


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """bool (n, H, W) -> int64 (n, 4) boxes with exclusive end; an empty mask gives zeros."""
    boxes = np.zeros((len(masks), 4), np.int64)
    for i, mask in enumerate(masks):
        xs, ys = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        if len(xs):
            boxes[i] = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1
    return boxes


@lru_cache(maxsize=256)
def _backdrop(background: Background, px: int) -> np.ndarray:
    """uint8 (px, px, 3)."""
    if background.plain:
        return np.broadcast_to(np.array(background.first, np.uint8), (px, px, 3))
    axis = (np.arange(px) + 0.5) / px - 0.5
    dx, dy = math.cos(background.angle), math.sin(background.angle)
    t = (axis[None, :] * dx + axis[:, None] * dy) / (abs(dx) + abs(dy)) + 0.5
    first, second = np.array(background.first, np.float64), np.array(background.second, np.float64)
    return np.floor(first + (second - first) * t[..., None] + 0.5).astype(np.uint8)
