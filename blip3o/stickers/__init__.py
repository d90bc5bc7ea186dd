"""The sticker world: scenes of emoji-style stickers with exact ground truth, from NumPy and Pillow alone.

>>> from blip3o.stickers import SceneConfig, make_scene, render
>>> scene = make_scene("train", 0, SceneConfig.level("easy"))
>>> render(scene).image.shape
(64, 64, 3)
"""

from __future__ import annotations

from .make import make_scene
from .names import CLASSES, COLORS, RELATIONS, STYLES
from .render import Rendered, render
from .scenes import Background, Placement, Scene, SceneConfig, Sticker

__all__ = [
    "CLASSES",
    "COLORS",
    "RELATIONS",
    "STYLES",
    "Background",
    "Placement",
    "Rendered",
    "Scene",
    "SceneConfig",
    "Sticker",
    "make_scene",
    "render",
]
