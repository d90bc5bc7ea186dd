"""Contact sheets: many scenes with their prompts, or sprites in every colour, in one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .captions import prompt
from .names import CLASSES, COLORS
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
    sheet = Image.new("RGB", (columns * (cell + 4), rows * height), "white")
    draw = ImageDraw.Draw(sheet)
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
    sheet = Image.new("RGB", (110 + step * (len(COLORS) + 1), step * len(classes)), (218, 222, 226))
    draw = ImageDraw.Draw(sheet)
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
