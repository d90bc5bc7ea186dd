"""Scenes per second of CPU time on one core: ``python tests/benchmarks/bench_stickers.py [number]``.

The first block pays for resizing and tinting sprites that later blocks find in the cache. The floor that the
world promises is 500 scenes a second for make_scene + render at 64 pixels.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from blip3o.stickers import SceneConfig, make_scene, render
from blip3o.stickers.captions import long_caption, short_caption
from blip3o.stickers.edits import make_edit
from blip3o.stickers.questions import questions

FLOOR = 500.0
TEXTS = {"short": short_caption, "long": long_caption, "questions": questions}


def rate(work: Callable[[int], object], first: int, number: int) -> float:
    """Calls per second of CPU time."""
    start = time.process_time()
    for i in range(first, first + number):
        work(i)
    return number / (time.process_time() - start)


def main() -> int:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    slowest = float("inf")
    for level in ("easy", "full"):
        config = SceneConfig.level(level)
        for size in (64, 256):
            drawn = SceneConfig.level(level, size_px=size)
            cold = rate(lambda i, c=drawn: render(make_scene("train", i, c)), 0, number)
            warm = rate(lambda i, c=drawn: render(make_scene("train", i, c)), number, number)
            print(
                f"{level:5} {size:4} px  make + render  {cold:8.0f} /s first, {warm:8.0f} /s after {number}"
            )
            if size == 64:
                slowest = min(slowest, cold, warm)
        scenes = [make_scene("train", i, config) for i in range(number)]
        for name, text in TEXTS.items():
            speed = rate(lambda i, f=text, known=scenes: f(known[i]), 0, number)
            print(f"{level:5}          {name:13}  {speed:8.0f} /s")
        speed = rate(lambda i, c=config: make_edit("train", i, c), 0, number)
        print(f"{level:5}          {'edit pairs':13}  {speed:8.0f} /s")
    print(
        f"slowest at 64 px: {slowest:.0f} /s, floor {FLOOR:.0f} /s: {'ok' if slowest >= FLOOR else 'TOO SLOW'}"
    )
    return 0 if slowest >= FLOOR else 1


if __name__ == "__main__":
    raise SystemExit(main())
