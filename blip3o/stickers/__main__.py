"""Look at the sticker world: ``python -m blip3o.stickers scenes --out sheet.png --level full --split val``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import Blip3oError
from . import STYLES, SceneConfig, make_scene
from .edits import make_edit
from .sheet import scene_sheet, sprite_sheet
from .splits import SPLITS, write_held_out


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m blip3o.stickers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("scenes", "a sheet of scenes with their prompts"),
        ("edits", "before and after"),
    ):
        sheet = commands.add_parser(name, help=text)
        sheet.add_argument("--out", type=Path, required=True)
        sheet.add_argument("--level", choices=("easy", "full"), default="easy")
        sheet.add_argument("--split", choices=tuple(SPLITS), default="val")
        sheet.add_argument("--start", type=int, default=0, help="index of the first")
        sheet.add_argument("--number", type=int, default=48)
        sheet.add_argument("--size", type=int, default=64, help="pixels of a scene's side")
        sheet.add_argument("--columns", type=int, default=8)
        sheet.add_argument("--scale", type=int, default=2)
    one = commands.add_parser("sprites", help="the first sprite of each class in every colour")
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--style", choices=STYLES, default="noto")
    one.add_argument("--size", type=int, default=28, help="pixels of the longest side")
    lists = commands.add_parser("held-out", help="write the held-out lists again")
    lists.add_argument("metadata", type=Path, help="GenEval's evaluation_metadata.jsonl")
    lists.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        if args.command == "held-out":
            write_held_out(args.metadata, args.out)
        elif args.command == "sprites":
            sprite_sheet(args.style, args.size).save(args.out)
        else:
            config = SceneConfig.level(args.level, size_px=args.size)
            indices = range(args.start, args.start + args.number)
            if args.command == "edits":
                pairs = [make_edit(args.split, i, config) for i in indices]
                scenes = [scene for pair in pairs for scene in (pair.source, pair.target)]
                titles = [t for pair in pairs for t in (pair.instruction, "")]
            else:
                scenes = [make_scene(args.split, i, config) for i in indices]
                titles = None
            scene_sheet(scenes, args.columns, args.scale, titles).save(args.out)
    except (Blip3oError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
