"""What a report of many pictures costs: time and memory to write, size, and time until it can be used.

    python tests/benchmarks/bench_report.py --pictures 10000 --size 64

A run folder is made first, in a temporary place: prompts of GenEval, four pictures each, drawn by the sticker world
(500 scenes, repeated) with the boxes of what is in them. Writing is measured in a process of its own. Opening is
measured in headless Chromium, from the request to the moment when the first page of pictures has been decoded.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SCENES = 500
PER_PROMPT = 4
WRITE = "import sys; from reports.html import write_report; from pathlib import Path; write_report(Path(sys.argv[1]))"


def make_run(root: Path, pictures: int, size_px: int) -> None:
    """A finished run folder with that many pictures."""
    from PIL import Image

    from evals.io.jsonl import read_rows
    from evals.runner import evaluate

    evaluate(
        "geneval", "dummy", output=root, quiet=True, report=False, tracking__enabled=False, limit=6, num_images=1
    )  # fmt: skip
    records = [
        json.loads((root / row["path"]).parent.parent.joinpath("metadata.jsonl").read_text())
        for row in read_rows(root / "outputs.jsonl")
    ]
    shutil.rmtree(root / "images")
    scenes = list(_scenes(size_px))
    outputs, scores = [], []
    for n in range(pictures):
        prompt, index = divmod(n, PER_PROMPT)
        record, (image, boxes) = records[prompt % len(records)], scenes[n % SCENES]
        folder = root / "images" / f"{prompt:05d}" / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{index:05d}.png"
        Image.fromarray(image).save(path, compress_level=1)
        if index == 0:
            (folder.parent / "metadata.jsonl").write_text(json.dumps(record) + "\n")
        place = {"sample_id": f"{prompt:05d}", "image_index": index, "group": record["tag"]}
        outputs.append(
            place
            | {"prompt": record["prompt"], "seed": n, "status": "ok", "seconds": 0.1}
            | {"path": path.relative_to(root).as_posix(), "sha256": f"{n:064x}"}
        )
        is_right = (n * 7919) % 10 < 4
        reason = "" if is_right else f"expected {record['include'][0]['class']}>=1, found 0"
        details = {"detections": boxes, "held_out": prompt % 2 == 0}
        verdict = {"value": float(is_right), "reason": reason, "answer": None, "details": details}
        scores.append(place | verdict)
    for name, rows in (("outputs.jsonl", outputs), ("scores.jsonl", scores)):
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def _scenes(size_px: int) -> Any:
    from blip3o.stickers import COLORS, Scene, SceneConfig, render
    from blip3o.stickers.layout import arrange
    from blip3o.stickers.rng import Stream
    from tasks.generation.geneval_rules import class_names

    names = class_names()
    for n in range(SCENES):
        objects = [(names[n % 80], COLORS[n % 10]), (names[(n * 7 + 3) % 80], None)]
        stickers, background = arrange(
            Stream("bench", "scene", n), "two_object", objects, None, SceneConfig.level("full")
        )
        drawn = render(Scene("test", n, "two_object", stickers, background, None, size_px))
        boxes: dict[str, list[list[float]]] = {}
        for sticker, box in zip(stickers, drawn.boxes, strict=True):
            boxes.setdefault(sticker.class_name, []).append([*map(float, box), 0.97])
        yield drawn.image, boxes


def measure_write(root: Path) -> dict[str, float]:
    """Wall and processor seconds and peak memory (MB) of a process that writes the report."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", WRITE, str(root)], check=True)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall, "cpu_s": cpu, "peak_mb": after.ru_maxrss / 1024}


def measure_open(path: Path) -> dict[str, float] | None:
    """Milliseconds until the gallery is drawn and decoded, and elements of the page; None without Chromium."""
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if executable is None:
        return None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(path.as_uri(), wait_until="load")
        ready = page.evaluate(
            "Promise.all([...document.querySelectorAll('#g-grid img')].map((i) => i.decode()))"
            ".then(() => performance.now())"
        )
        nodes = page.evaluate("document.querySelectorAll('*').length")
        filtered = page.evaluate(
            "(() => { const t = performance.now(); document.querySelector('#f-failures').click(); "
            "return new Promise((done) => setTimeout(() => done(performance.now() - t), 0)); })()"
        )
        browser.close()
    return {"ready_ms": ready, "elements": nodes, "filter_ms": filtered}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in px")
    parser.add_argument("--keep", type=Path, help="folder to keep the run and its report in")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="bench-report-"))
    root = folder / f"run-{options.pictures}-{options.size}"
    try:
        if not (root / "results.json").exists():
            make_run(root, options.pictures, options.size)
        written = measure_write(root)
        report = root / "report.html"
        opened = measure_open(report)
        load = os.getloadavg()[0]
        figures = {"pictures": options.pictures, "size_px": options.size, **written}
        figures |= {"file_mb": report.stat().st_size / 1e6, **(opened or {}), "load": load}
        print("  ".join(f"{k} {round(v, 1):g}" for k, v in figures.items()))
    finally:
        if options.keep is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
