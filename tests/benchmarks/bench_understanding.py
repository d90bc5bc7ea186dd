"""Answers per second, each lever of the understanding path on and off, on the same questions in one process.

    python tests/benchmarks/bench_understanding.py                     # nano, 128 questions, the table on stdout
    python tests/benchmarks/bench_understanding.py --model tiny --questions 64 --json

Questions are yes/no questions about sticker scenes, 8 a picture, in the order of the pictures, 16 tokens at most. The
first row is what a plain loop does: one question at a time, every picture read for every question. Rows are interleaved
`--repeats` times and the best of each is kept, because other work on the machine only ever adds time.

Whole commands beside those of lmms-eval: `bench_beside_lmms_eval.py`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

LEVERS: dict[str, dict[str, Any]] = {
    "one by one, nothing shared": {"batch_size": 1, "share_pictures": False, "by_length": False},
    "batches of 32, nothing shared": {"batch_size": 32, "share_pictures": False, "by_length": False},
    "batches of 32, by length": {"batch_size": 32, "share_pictures": False},
    "batches of 32, pictures shared": {"batch_size": 32},
    "batch size auto, pictures shared": {"batch_size": "auto"},
}


def questions_about_scenes(count: int, per_picture: int) -> tuple[list[Any], list[str]]:
    """Pictures (one object per scene) and questions of different lengths."""
    from PIL import Image

    from blip3o.stickers import SceneConfig, make_scene, render
    from blip3o.stickers.questions import questions

    world = SceneConfig.level("easy")
    images, texts, index = [], [], 0
    while len(texts) < count:
        scene = make_scene("val", index, world)
        index += 1
        found = [q.question for q in questions(scene)][:per_picture]
        picture = Image.fromarray(render(scene).image)
        images += [picture] * len(found)
        texts += found
    return images[:count], texts[:count]


def best_seconds(work: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Shortest wall time and the result of each piece of work, taken in turns."""
    seconds: dict[str, float] = {}
    results: dict[str, Any] = {}
    for _ in range(repeats):
        for name, call in work.items():
            began = time.perf_counter()
            results[name] = call()
            seconds[name] = min(seconds.get(name, float("inf")), time.perf_counter() - began)
    return seconds, results


def measure(model: str, count: int, per_picture: int, repeats: int, max_new_tokens: int) -> list[dict[str, Any]]:
    from blip3o.pipeline import Blip3oPipeline

    pipe = Blip3oPipeline.from_pretrained(model)
    images, texts = questions_about_scenes(count, per_picture)
    pipe.ask_batch(images[:4], texts[:4], max_new_tokens=2)  # what is built once

    def ask(**levers: Any) -> Callable[[], list[str]]:
        return lambda: pipe.ask_batch(images, texts, max_new_tokens=max_new_tokens, **levers)

    work: dict[str, Callable[[], Any]] = {name: ask(**levers) for name, levers in LEVERS.items()}
    choices = ["yes", "no"]
    work["yes/no by likelihood, pictures shared"] = lambda: pipe.score_choices(images, texts, choices)
    seconds, results = best_seconds(work, repeats)
    first = results[next(iter(LEVERS))]
    for name in LEVERS:
        differing = sum(a != b for a, b in zip(first, results[name], strict=True))
        if differing:
            raise SystemExit(f"{name}: {differing} of {count} answers differ from those made one by one")
    base = seconds[next(iter(LEVERS))]
    return [
        {"setting": name, "seconds": s, "answers_per_second": count / s, "gain": base / s}
        for name, s in seconds.items()
    ]


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    width = max(len(row["setting"]) for row in rows)
    lines = [f"{'setting':<{width}}  seconds  answers/s  gain"]
    return lines + [
        f"{row['setting']:<{width}}  {row['seconds']:7.2f}  {row['answers_per_second']:9.1f}  {row['gain']:4.1f}"
        for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--questions", type=int, default=128)
    parser.add_argument("--per-picture", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure(
        options.model, options.questions, options.per_picture, options.repeats, options.max_new_tokens
    )
    if options.json:
        print(json.dumps(rows))
    else:
        print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
