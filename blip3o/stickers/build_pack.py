"""Build the sprite pack from the emoji archives and our own drawings; run once, the result is bundled.

    npm pack @lobehub/fluent-emoji-3d@1.1.0 @iconify-json/noto@1.2.9 @iconify-json/twemoji@1.2.5
    pip install resvg-py
    python -m blip3o.stickers.build_pack FOLDER_WITH_THE_TGZ_FILES

Writes ``assets/sprites.webp`` (one lossless RGBA atlas) and ``assets/sprites.json`` (its index). No JavaScript
of the archives is run; members are read from the archives in place.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .drawings import svg
from .names import CLASSES, STYLES

SPRITE_PX = 96
ATLAS_WIDTH = 2048
ARCHIVES = {
    "fluent": (
        "lobehub-fluent-emoji-3d-1.1.0.tgz",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    ),
    "noto": (
        "iconify-json-noto-1.2.9.tgz",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    ),
    "twemoji": (
        "iconify-json-twemoji-1.2.5.tgz",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    ),
}

# Class -> code points, the one that reads best at 28 px first; "draw" is our own drawing. Emoji that show
# something else beside the object (fork and knife, shirt and tie, surfer) are left out.
CODE_POINTS = """
person 1f9d1 1f468 1f469 1f9cd 1f6b6; bicycle 1f6b2; car 1f697 1f699 1f695 1f698; motorcycle 1f3cd 1f6f5;
airplane 2708 1f6e9; bus 1f68c 1f68d; train 1f682 1f686 1f684; truck 1f69a 1f69b 1f6fb;
boat 26f5 1f6a4 1f6e5 1f6f6; traffic light 1f6a6 1f6a5; fire hydrant draw; stop sign draw 1f6d1;
parking meter draw; bench draw; bird 1f426 1f99c 1f986 1f985; cat 1f431 1f408; dog 1f436 1f415 1f429;
horse 1f40e 1f434; sheep 1f411; cow 1f404 1f42e; elephant 1f418; bear 1f43b; zebra 1f993; giraffe 1f992;
backpack 1f392; umbrella 2602 2614; handbag 1f45c; tie draw; suitcase 1f9f3; frisbee 1f94f; skis draw 1f3bf;
snowboard draw; sports ball 26bd 1f3c0 26be 1f3c8; kite 1fa81; baseball bat draw; baseball glove draw;
skateboard 1f6f9; surfboard draw; tennis racket 1f3be; bottle 1f37e 1f37c 1f9f4; wine glass 1f377;
cup 2615 1f375 1f964; fork draw; knife 1f52a; spoon 1f944; bowl 1f963 1f35c; banana 1f34c; apple 1f34e 1f34f;
sandwich 1f96a; orange 1f34a; broccoli 1f966; carrot 1f955; hot dog 1f32d; pizza 1f355; donut 1f369;
cake 1f382 1f370; chair 1fa91; couch draw 1f6cb; potted plant 1fab4; bed 1f6cf; dining table draw; toilet 1f6bd;
tv 1f4fa; laptop 1f4bb; computer mouse 1f5b1; tv remote draw; computer keyboard 2328; cell phone 1f4f1;
microwave draw; oven draw; toaster draw; sink draw; refrigerator draw; book 1f4d6 1f4d5 1f4d8;
clock 23f0 1f570 1f550; vase 1f3fa; scissors 2702; teddy bear 1f9f8; hair drier draw; toothbrush 1faa5
"""
# Twemoji's tennis emoji is a ball alone; the unseen style gets a drawn racket instead.
EXCEPTIONS = {("twemoji", "tennis racket"): ["draw"]}


def code_points() -> dict[str, list[str]]:
    """Class name -> sprite ids, in the order of the table above."""
    table: dict[str, list[str]] = {}
    for entry in CODE_POINTS.split(";"):
        words = entry.split()
        first = next(i for i, w in enumerate(words) if w == "draw" or w[0].isdigit())
        table[" ".join(words[:first])] = words[first:]
    if sorted(table) != sorted(CLASSES):
        raise SystemExit(f"class table and class list differ: {set(table) ^ set(CLASSES)}")
    return table


class Sources:
    """Reads emoji out of the three archives, after checking their SHA-256."""

    def __init__(self, folder: Path) -> None:
        self.tars, self.icons = {}, {}
        for style, (name, digest) in ARCHIVES.items():
            found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            if found != digest:
                raise SystemExit(f"{name}: SHA-256 is {found}, expected {digest}")
            self.tars[style] = tarfile.open(folder / name)
        for style in ("noto", "twemoji"):
            self.icons[style] = (
                json.loads(self._member(style, "icons.json")),
                json.loads(self._member(style, "chars.json")),
            )

    def _member(self, style: str, name: str) -> bytes:
        file = self.tars[style].extractfile(f"package/{name}")
        assert file is not None, f"{name} is no plain file"
        return file.read()

    def emoji(self, style: str, code: str) -> Image.Image:
        """RGBA picture, 256 px wide, of an emoji; KeyError when the set has none."""
        if style == "fluent":
            try:
                data = self._member(style, f"assets/{code.zfill(4)}.webp")
            except KeyError:
                data = self._member(style, f"assets/{code.zfill(4)}-fe0f.webp")
            return Image.open(io.BytesIO(data)).convert("RGBA")
        icons, names = self.icons[style]
        name = names.get(code) or names[f"{code}-fe0f"]
        icon = icons["icons"].get(name) or icons["icons"][icons["aliases"][name]["parent"]]
        w, h = icon.get("width", icons["width"]), icon.get("height", icons["height"])
        return rasterise(
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {w} {h}" width="{w}" height="{h}">{icon["body"]}</svg>'
        )


def rasterise(text: str, width: int = 512) -> Image.Image:
    """SVG text -> RGBA picture."""
    import resvg_py

    png = bytes(resvg_py.svg_to_bytes(svg_string=text, width=width))
    return Image.open(io.BytesIO(png)).convert("RGBA")


def fit(image: Image.Image, px: int = SPRITE_PX) -> Image.Image:
    """Crop to what is painted, then scale the longest side to ``px``; hidden colour is cleared."""
    alpha = np.asarray(image)[..., 3] > 8
    ys, xs = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    image = image.crop((int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1))
    scale = px / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    pixels = np.array(image.resize(size, Image.Resampling.LANCZOS))
    pixels[pixels[..., 3] < 6] = 0
    return Image.fromarray(pixels)


def shelves(sizes: list[tuple[int, int]], width: int) -> tuple[list[tuple[int, int]], int]:
    """Place rectangles row by row, tallest first; returns their corners and the total height."""
    corners: list[tuple[int, int]] = [(0, 0)] * len(sizes)
    x = y = row = 0
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i][1], i)):
        w, h = sizes[i]
        if x + w > width:
            x, y, row = 0, y + row, 0
        corners[i] = (x, y)
        x, row = x + w, max(row, h)
    return corners, y + row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder with the three .tgz archives")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "assets")
    args = parser.parse_args()
    sources, table = Sources(args.folder), code_points()
    entries: list[dict[str, Any]] = []
    pictures = []
    for style in STYLES:
        for name in CLASSES:
            for code in EXCEPTIONS.get((style, name), table[name]):
                drawn = code == "draw"
                picture = rasterise(svg(name, style)) if drawn else sources.emoji(style, code)
                pictures.append(fit(picture))
                entries.append({"class": name, "style": style, "id": "drawn" if drawn else code})
    corners, height = shelves([p.size for p in pictures], ATLAS_WIDTH)
    atlas = Image.new("RGBA", (ATLAS_WIDTH, height))
    for entry, picture, (x, y) in zip(entries, pictures, corners, strict=True):
        atlas.paste(picture, (x, y))
        entry["box"] = [x, y, picture.width, picture.height]
    file = args.out / "sprites.webp"
    atlas.save(file, lossless=True, quality=100, method=6, exact=False)
    index = {
        "format": 1,
        "sprite_px": SPRITE_PX,
        "atlas": file.name,
        "atlas_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "sources": {s: {"archive": a, "sha256": d} for s, (a, d) in ARCHIVES.items()},
        "sprites": entries,
    }
    rows = ",\n  ".join(json.dumps(e) for e in index.pop("sprites"))
    head = json.dumps(index, indent=1)[:-2]
    (args.out / "sprites.json").write_text(f'{head},\n "sprites": [\n  {rows}\n ]\n}}\n')
    print(f"{len(entries)} sprites, atlas {atlas.size}, {file.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
