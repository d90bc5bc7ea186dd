"""What the page of a large sweep costs: time and memory to write, size, and time until it can be used.

    python tests/benchmarks/bench_sweep_report.py --seeds 3 --prompts 553 --size 64

A sweep folder of six cells is made first, in a temporary place: a picture of the sticker world for each prompt, cell
and seed, verdicts drawn by chance, two checkpoints with figures. 6 x 3 x 553 are 9,954 pictures. Writing is measured in
a process of its own, opening in headless Chromium until the first page of the gallery has been decoded.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WRITE = "import sys; from reports.sweep import build; build(sys.argv[1])"


def load(path: Path) -> Any:
    """A module of the tests, which are no packages."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(root: Path, seeds: int, prompts: int, size_px: int) -> None:
    """A finished sweep folder."""
    from PIL import Image

    from evals.io.jsonl import read_rows
    from evals.runner import evaluate

    folders, bench = load(HERE.parent / "reports" / "sweep_folders.py"), load(HERE / "bench_report.py")
    quiet = {"quiet": True, "report": False, "tracking__enabled": False}
    templates = {"geneval": root.with_name("geneval"), "vqa_stickers": root.with_name("vqa_stickers")}
    evaluate("geneval", "dummy", output=templates["geneval"], limit=prompts, num_images=1, **quiet)
    evaluate("vqa_stickers", "dummy", output=templates["vqa_stickers"], limit=200, **quiet)
    scenes = [image for image, _ in bench._scenes(size_px)]
    for n, row in enumerate(read_rows(templates["geneval"] / "outputs.jsonl")):
        Image.fromarray(scenes[n % len(scenes)]).save(templates["geneval"] / row["path"], compress_level=1)
    folders.make_sweep(root, folders.Wanted(templates, seeds=range(seeds), checkpoints=(0.25, 0.5)))


def measure_write(root: Path) -> dict[str, float]:
    """Wall and processor seconds and peak memory (MB) of a process that writes the page."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", WRITE, str(root)], check=True)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall, "cpu_s": cpu, "peak_mb": after.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=553)
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in px")
    parser.add_argument("--keep", type=Path, help="folder to keep the sweep and its report in")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="bench-sweep-"))
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / f"sweep-{options.seeds}-{options.prompts}-{options.size}"
    try:
        if not root.exists():
            make(root, options.seeds, options.prompts, options.size)
        written = measure_write(root)
        opened = load(HERE / "bench_report.py").measure_open(root / "report.html")
        figures = {"pictures": 6 * options.seeds * options.prompts, "size_px": options.size, **written}
        size = (root / "report.html").stat().st_size
        figures |= {"file_mb": size / 1e6, **(opened or {}), "load": os.getloadavg()[0]}
        print("  ".join(f"{k} {round(v, 1):g}" for k, v in figures.items()))
    finally:
        if options.keep is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
