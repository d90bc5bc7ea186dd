"""What a point of a sweep costs beyond its training and its scoring.

    python tests/benchmarks/bench_sweep.py [--points 8] [--model nano] [--limit 6]

Runs `blip3o-eval sweep run` on jobs of this machine, one at a time, and takes from the wall clock what the points
spent in generating and judging (their training is a fake that takes no time, or there is none). Without --model the
model is the fake one as well; with `nano` the start of torch and the loading of model and judge are part of the
overhead. Processor time is what other programs on the machine do not change.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--model")
    parser.add_argument("--limit", type=int, default=6)
    given = parser.parse_args()
    base: dict[str, Any] = {
        "train": None if given.model else {"trainer": "dummy", "schedule": "joint"},
        "run": {"limit": given.limit, "num_images": 1, **({"model": given.model} if given.model else {})},
        "evaluate": {"tasks": ["geneval"]},
    }
    with tempfile.TemporaryDirectory() as folder:
        path, root = Path(folder) / "sweep.yaml", Path(folder) / "s"
        axes = {"run.generation.guidance_scale": [1 + i / 10 for i in range(given.points)]}
        if not given.model:
            axes = {"train.bytes": [100 + i for i in range(given.points)]}
        path.write_text(yaml.safe_dump({"name": "bench", "base": base, "axes": axes, "seeds": [0]}))
        command = [sys.executable, "-m", "evals.cli.main", "sweep", "run", str(path), "--output", str(root)]
        began = time.perf_counter()
        subprocess.run(
            [*command, "--no-track", "--no-report", "--max-parallel", "1", "-q"], check=True,
            stdout=subprocess.DEVNULL,
        )
        wall = time.perf_counter() - began
        results = [json.loads(p.read_bytes()) for p in root.glob("points/*/result.json")]
        inside = sum(json.loads(p.read_bytes())["seconds"] for p in root.glob("points/*/state.json"))
    scoring = sum(result["evaluation_seconds"] for result in results)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    n, load = len(results), os.getloadavg()[0]
    print(f"{n} points in {wall:.1f} s, of it {scoring:.1f} s of generating and judging (load {load:.1f})")
    print(f"overhead: {(wall - scoring) / n:.2f} s a point, of it {(inside - scoring) / n:.2f} s inside the job")
    print(f"processor time of all: {(used.ru_utime + used.ru_stime) / n:.2f} s a point")


if __name__ == "__main__":
    main()
