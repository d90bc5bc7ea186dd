"""Contact sheets: many scenes with their prompts, or sprites in every colour, in one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .captions import prompt
from .names import CLASSES, COLORS, UNSEEN_STYLE, UNSEEN_STYLE_CREDIT
from .render import render
from .scenes import Scene
from .sprites import patch, sprites


def scene_sheet(
    scenes: Sequence[Scene],
    columns: int = 8,
    scale: int = 2,
    titles: Sequence[str] | None = None,
) -> Image.Image:
    """Scenes side by side, enlarged without smoothing, with a title (default: the prompt) under each."""
    if titles is None:
        titles = [prompt(scene).removeprefix("a photo of ") for scene in scenes]
    cell = scenes[0].size_px * scale
    height = cell + 34
    rows = -(-len(scenes) // columns)
    styles = {s.style for scene in scenes for s in scene.stickers}
    sheet, draw = _canvas(columns * (cell + 4), rows * height, styles)
    per_line = max(8, cell // 6)
    for i, (scene, words) in enumerate(zip(scenes, titles, strict=True)):
        x, y = i % columns * (cell + 4), i // columns * height
        picture = Image.fromarray(render(scene).image)
        sheet.paste(picture.resize((cell, cell), Image.Resampling.NEAREST), (x, y))
        for k in range(3):
            line = words[k * per_line : (k + 1) * per_line]
            draw.text((x, y + cell + 11 * k), line, fill="black")
    return sheet


def sprite_sheet(
    style: str, px: int = 28, scale: int = 1, classes: Sequence[str] = CLASSES
) -> Image.Image:
    """The first sprite of each class, as drawn and in the ten colours, on light and on slate grey."""
    step = px * scale + 4
    width, height = 110 + step * (len(COLORS) + 1), step * len(classes)
    sheet, draw = _canvas(width, height, {style}, (218, 222, 226))
    for row, name in enumerate(classes):
        draw.text((2, row * step + step // 3), name, fill="black")
        first = sprites(name, style)[0]
        wide, high = first.aspect
        w, h = max(1, round(px * wide)), max(1, round(px * high))
        for column, color in enumerate((None, *COLORS)):
            drawn = patch(name, style, first.id, color, w, h)
            back = np.empty((h, w, 3), np.uint16)
            back[:] = (84, 100, 120) if color == "white" else (218, 222, 226)
            pixels = (drawn.color + (back * drawn.rest + 127) // 255).astype(np.uint8)
            picture = Image.fromarray(pixels).resize(
                (w * scale, h * scale), Image.Resampling.NEAREST
            )
            sheet.paste(picture, (110 + column * step, row * step))
    return sheet


def _canvas(
    width: int, height: int, styles: set[str], color: tuple[int, int, int] = (255, 255, 255)
) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty sheet, with a credit line below where a style's licence asks for one."""
    credited = UNSEEN_STYLE in styles
    sheet = Image.new("RGB", (width, height + 14 * credited), color)
    draw = ImageDraw.Draw(sheet)
    if credited:
        draw.text((2, height + 1), UNSEEN_STYLE_CREDIT, fill="black")
    return sheet, draw
