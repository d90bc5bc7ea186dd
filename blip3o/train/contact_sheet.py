"""Sample pictures over training on one sheet: a row a step, a column a prompt."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

MAX_ROWS = 12
LABEL_PX, LINE_PX, GAP_PX = 84, 14, 4


def contact_sheet(folder: Path, prompts: Sequence[str], out: Path, cell_px: int = 128) -> None:
    """Write a sheet of ``folder/step-N/00.png, 01.png, ...``; of many steps, ``MAX_ROWS`` evenly spread ones."""
    steps = sorted(path for path in folder.glob("step-*") if (path / "00.png").is_file())
    if not steps:
        return
    count = min(len(steps), MAX_ROWS)
    spread = [round(i * (len(steps) - 1) / max(count - 1, 1)) for i in range(count)]
    chosen = [steps[i] for i in spread]
    font = ImageFont.load_default(11)
    heads = [textwrap.wrap(prompt, width=max(cell_px // 6, 1))[:4] for prompt in prompts]
    top = max(map(len, heads)) * LINE_PX + GAP_PX
    width = LABEL_PX + len(prompts) * (cell_px + GAP_PX)
    sheet = Image.new("RGB", (width, top + len(chosen) * (cell_px + GAP_PX)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, lines in enumerate(heads):
        for number, line in enumerate(lines):
            draw.text((LABEL_PX + column * (cell_px + GAP_PX), number * LINE_PX), line, "black", font)
    for row, step in enumerate(chosen):
        y = top + row * (cell_px + GAP_PX)
        draw.text((2, y + cell_px // 2 - LINE_PX // 2), f"step {int(step.name.removeprefix('step-'))}", "black", font)
        for column in range(len(prompts)):
            file = step / f"{column:02d}.png"
            if file.is_file():
                with Image.open(file) as picture:
                    small = picture.convert("RGB").resize((cell_px, cell_px), Image.Resampling.BICUBIC)
                sheet.paste(small, (LABEL_PX + column * (cell_px + GAP_PX), y))
    partial = out.with_name(f".{out.name}.partial")
    sheet.save(partial, out.suffix.removeprefix(".").upper())
    partial.replace(out)
