"""What the harness itself costs per sample: a task and a model that do nothing.

    python tests/benchmarks/bench_harness.py                      # 100, 10,000 and 1,000,000 answers
    python tests/benchmarks/bench_harness.py --pictures 10000     # tiny pictures instead

Each size runs in a process of its own: a whole run, then the same command on the finished folder
(the resume scan). Printed per size: processor seconds in all and per sample, wall seconds, the peak
of resident memory, and the same for the second start. Processor time is what other programs on the
machine do not change. Options: ``--sizes N [N...]``, ``--folder DIR`` for the runs (removed afterwards).
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import evals
from evals.api import Identity, Sample, Score, ScoreItem
from evals.metrics.accuracy import GroupMean


class Samples(Sequence[Sample]):
    """Samples made when they are asked for, so that memory is the harness's own."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        if not 0 <= index < self.size:
            raise IndexError(index)
        return Sample(f"q-{index:07d}", index, "all", f"question {index}")


class NoTask:
    name, version, groups, num_images = "no-op", "1", ("all",), 1
    judges: dict[str, str] = {}
    card: dict[str, str] = {}

    def __init__(self, size: int, kind: str) -> None:
        self.size, self.kind = size, kind

    def samples(self) -> Sequence[Sample]:
        return Samples(self.size)

    def digest(self) -> str:
        return f"{self.size}"

    def score(self, items: Sequence[ScoreItem], judge: object) -> Sequence[Score]:
        return [Score(1.0)] * len(items)

    def metrics(self) -> Sequence[object]:
        return [GroupMean(None, "accuracy")]


class NoModel:
    identity = Identity("no-op", "1", "0", "test", is_test_double=True, batch_size=64)

    def load(self) -> None:
        from PIL import Image

        self.picture = Image.new("RGB", (8, 8))

    def close(self) -> None: ...

    def answer(self, requests: Sequence[Any]) -> Sequence[str]:
        return ["yes"] * len(requests)

    def generate(self, requests: Sequence[Any]) -> Sequence[Any]:
        return [self.picture] * len(requests)


def measure(size: int, kind: str, folder: Path) -> dict[str, float]:
    """One run in this process: processor and wall seconds, peak memory in MiB."""
    wall, cpu = time.perf_counter(), time.process_time()
    made = evals.evaluate(
        NoTask(size, kind),
        NoModel(),
        judge=None,
        output=folder,
        report=False,
        quiet=True,
        tracking__enabled=False,
    )
    assert made.results is not None and made.results["counts"]["scored"] == size
    return {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def in_process(size: int, kind: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", str(size), kind, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 10_000, 1_000_000])
    parser.add_argument("--pictures", type=int, nargs="+", metavar="N", help="pictures of 8 x 8")
    parser.add_argument("--folder", type=Path, help="where runs go; default: a temporary folder")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        size, kind, folder = int(given.one[0]), given.one[1], Path(given.one[2])
        print(json.dumps(measure(size, kind, folder)))
        return
    kind = "generation" if given.pictures else "understanding"
    print("| samples | CPU s | per sample | wall s | peak MiB | again CPU s | again wall s | MiB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for size in given.pictures or given.sizes:
        folder = Path(tempfile.mkdtemp(prefix="bench-", dir=given.folder))
        try:
            run = in_process(size, kind, folder / "run")
            again = in_process(size, kind, folder / "run")
        finally:
            shutil.rmtree(folder)
        print(
            f"| {size:,} | {run['cpu_s']:.2f} | {run['cpu_s'] / size * 1e6:,.0f} us | {run['wall_s']:.1f} "
            f"| {run['peak_mib']:.0f} | {again['cpu_s']:.2f} | {again['wall_s']:.1f} | {again['peak_mib']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
