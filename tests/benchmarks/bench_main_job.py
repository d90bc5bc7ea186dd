"""What the main job costs: start-up, generation, judging, report, memory, and resuming when finished.

    python tests/benchmarks/bench_main_job.py                    the whole job, 2,212 pictures
    python tests/benchmarks/bench_main_job.py --limit 24         a short one
    python tests/benchmarks/bench_main_job.py --model dummy      what the harness alone costs

Times are wall clock, memory is the largest sum of resident sizes over the process and its children,
sampled ten times a second. Prints one JSON object. Limits: 10 minutes and 4 GB on 2 cores for the
whole job, 5 s for resuming a finished one, 3 (``--help``) and 4 (``list tasks``) times the time of
``python -c 'import click'``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MAIN = [sys.executable, "-c", "from evals.cli.main import main; main()"]


def cpu_and_wall(command: list[str], repeats: int = 7) -> dict[str, float]:
    """Least CPU and wall seconds of a command over some repeats."""
    walls, cpus = [], []
    for _ in range(repeats):
        before, began = os.times(), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        walls.append(time.perf_counter() - began)
        cpus.append(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
    return {"cpu_s": round(min(cpus), 3), "wall_s": round(min(walls), 3)}


def tree_rss(pid: int) -> int:
    """Bytes resident in a process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    total, open_pids = 0, [pid]
    while open_pids:
        one = open_pids.pop()
        open_pids += parents.get(one, [])
        try:
            total += int((Path("/proc") / str(one) / "statm").read_text().split()[1])
        except OSError:
            continue
    return total * os.sysconf("SC_PAGE_SIZE")


def measure(command: list[str], cwd: Path) -> dict[str, object]:
    """Run a command; its wall time, CPU time, peak memory and standard output."""
    before, began, peak = os.times(), time.perf_counter(), 0
    with open(cwd / "stdout", "w+") as out:
        process = subprocess.Popen(command, cwd=cwd, stdout=out)
        while process.poll() is None:
            peak = max(peak, tree_rss(process.pid))
            time.sleep(0.1)
        wall, after = time.perf_counter() - began, os.times()
        out.seek(0)
        text = out.read()
    if process.returncode:
        raise SystemExit(f"{command} failed with exit code {process.returncode}")
    cpu = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    return {
        "wall_s": round(wall, 1),
        "cpu_s": round(cpu, 1),
        "peak_rss_mib": round(peak / 2**20),
        "stdout": text,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, help="prompts (default: all 553)")
    parser.add_argument("--model", default="nano")
    arguments = parser.parse_args()
    click = cpu_and_wall([sys.executable, "-c", "import click"])
    result: dict[str, object] = {
        "machine": {
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
            "python": platform.python_version(),
        },
        "import_click": click,
        "help": cpu_and_wall([*MAIN, "--help"]),
        "list_tasks": cpu_and_wall([*MAIN, "list", "tasks"]),
    }
    with tempfile.TemporaryDirectory() as folder:
        run = [
            *MAIN,
            "run",
            "--task",
            "geneval",
            "--model",
            arguments.model,
            "--output",
            "out",
            "--json",
        ]
        if arguments.limit:
            run += ["--limit", str(arguments.limit)]
        first = measure(run, Path(folder))
        body = json.loads(str(first.pop("stdout")))
        again = measure(run, Path(folder))
        again.pop("stdout")
        files = [p for p in (Path(folder) / "out").rglob("*") if p.is_file()]
        result |= {
            "main_job": first,
            "outputs": body["counts"]["outputs"],
            "timing": body["timing"],
            "overall": body["metrics"]["overall"],
            "report_kib": round((Path(folder) / body["report"]).stat().st_size / 1024),
            "folder_mib": round(sum(p.stat().st_size for p in files) / 2**20, 1),
            "resume_finished": again,
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
