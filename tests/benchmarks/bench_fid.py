"""What a whole run of the FID family costs beside its network: 20,000 pictures, features of Inception's size.

    python tests/benchmarks/bench_fid.py                                   # 2,000 and 20,000 pictures, 2,048 features
    python tests/benchmarks/bench_fid.py --pictures 20000 --dimensions 512

Each size runs in a process of its own: fake pictures of 16 pixels are drawn, a stand-in for the network hands out the
features of a mixture of Gaussians, scores with these features go to the disk, and fd, kid, precision and recall with
their intervals are computed from there against as many stored reference features. Printed per size: seconds of each
phase, and the peak of memory that is the process's own (mapped files do not count: the kernel takes them back).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import evals
from evals.api import Identity
from evals.judges.features import Extracted
from evals.metrics.features import Recipe, collect, save
from evals.models.dummy import DummyModel
from evals.models.dummy import _Arguments as ModelArguments

_COMPONENTS = 50


class StandIn:
    """`extract` without a network: a Gaussian mixture, seeded by the picture's bytes."""

    def __init__(self, dimensions: int) -> None:
        digest = hashlib.sha256(f"stand-in {dimensions}".encode()).hexdigest()
        self.recipe = Recipe("stand-in", dimensions, "clean", 16, digest)
        self._means = np.random.default_rng(0).standard_normal((_COMPONENTS, dimensions), dtype=np.float32)
        self.identity = Identity("stand-in", "1", digest, "test", is_test_double=True, batch_size=64)

    def load(self) -> None: ...

    def close(self) -> None: ...

    def accuracy(self) -> dict[str, Any]:
        return {}

    def of_seed(self, seeds: Sequence[int]) -> np.ndarray:
        rows = []
        for seed in seeds:
            draw = np.random.Generator(np.random.SFC64(seed))
            mean = self._means[draw.integers(_COMPONENTS)]
            rows.append(mean + 0.7 * draw.standard_normal(self.recipe.dimensions, dtype=np.float32))
        return np.stack(rows)

    def extract(self, images: Sequence[Any]) -> Extracted:
        digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
        return Extracted(self.of_seed([int.from_bytes(d[:8], "big") for d in digests]))


class Peak:
    """The largest anonymous memory of this process while the block runs, in MB."""

    def __enter__(self) -> Peak:
        self.mb, self._ended = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    self.mb = max(self.mb, int(line.split()[1]) / 1024)

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()


def one(pictures: int, dimensions: int, folder: Path) -> dict[str, Any]:
    """One run; seconds per phase and the peak."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    judge, data = StandIn(dimensions), folder / "data"
    data.mkdir()
    lines = (json.dumps({"id": n, "prompt": f"prompt {n}"}) for n in range(pictures))
    (data / "captions.jsonl").write_text("\n".join(lines))
    began = time.monotonic()
    batches = (
        (judge.of_seed(range(start, min(start + 256, pictures))), ("all",) * min(256, pictures - start))
        for start in range(0, pictures, 256)
    )
    save(collect(batches, judge.recipe, "stand-in", "0" * 64), data / "reference.safetensors")
    reference_s = time.monotonic() - began
    with Peak() as peak:
        began = time.monotonic()
        made = evals.evaluate(
            "fid", DummyModel(ModelArguments(size=16)), judge=judge, output=folder / "run", data=str(data),
            quiet=True, report=False, tracking__enabled=False, batch_size=64,
        )  # fmt: skip
        whole_s = time.monotonic() - began
    assert made.problem is None and made.results is not None
    timing = made.results["timing"]
    return {
        "pictures": pictures,
        "dimensions": dimensions,
        "reference_s": round(reference_s, 1),
        "draw_s": timing["generate_s"],
        "score_s": timing["score_s"],
        "figures_s": round(whole_s - timing["generate_s"] - timing["score_s"], 1),
        "cpu_s": round(time.process_time(), 1),
        "own_memory_mb": round(peak.mb),
        "figures": {k: round(m["value"], 4) for k, m in made.results["metrics"].items() if m["value"] is not None},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--dimensions", type=int, default=2_048)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(one(options.pictures[0], options.dimensions, options.folder)))
        return
    for size in options.pictures:
        folder = Path(tempfile.mkdtemp(prefix="bench-fid-", dir=options.folder))
        try:
            command = [sys.executable, __file__, "--here", "--pictures", str(size), "--folder", str(folder)]
            subprocess.run([*command, "--dimensions", str(options.dimensions)], check=True)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
