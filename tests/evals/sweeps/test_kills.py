"""SIGKILL of the scheduler and of jobs at random moments: the finished sweep equals an undisturbed one, file for file.

``BLIP3O_EVAL_TEST_KILLS`` raises the number of kills (default 4) for longer trials.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from evals.sweeps.comparable import comparable
from evals.sweeps.folder import SweepFolder, read_state
from evals.sweeps.results import build, write_csv

KILLS = int(os.environ.get("BLIP3O_EVAL_TEST_KILLS", "4"))
SWEEP: dict[str, Any] = {
    "train": {"seconds": 0.03, "steps": 6},
    "run": {"judge": "dummy:seconds=0.004"},
    "evaluate": {"at": [2, 4]},
}


def contents(root: Path) -> dict[str, str]:
    """All that has to be equal, the table included."""
    write_csv(build(SweepFolder(root)))
    return comparable(root)


@pytest.fixture(scope="module")
def whole(swept, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a sweep holds that nothing disturbed."""
    root = tmp_path_factory.mktemp("sweep") / "whole"
    swept(root, **SWEEP)
    found = contents(root)
    assert sum("result.json" in name for name in found) == 3 + 2 and "table.csv" in found
    return found


def is_alive(pid: int | None) -> bool:
    try:
        return pid is not None and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_a_killed_scheduler_takes_its_jobs_along_and_goes_on(
    run, pool, whole, forks: list[int], tmp_path: Path
) -> None:
    root, rng, begun = tmp_path / "s", random.Random(1), 0
    for _ in range(KILLS):
        pid = os.fork()
        if pid == 0:
            try:
                run(root, **SWEEP)
            finally:
                os._exit(0)
        forks.append(pid)
        time.sleep(rng.uniform(0.2, 1.2))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        jobs = [read_state(path.parent).pid for path in root.glob("*/*/state.json")]
        until = time.monotonic() + 5
        while any(map(is_alive, jobs)) and time.monotonic() < until:
            time.sleep(0.01)
        assert not any(map(is_alive, jobs))
        begun += len(jobs)
    assert begun  # some were struck while jobs ran
    assert run(root, **SWEEP).problem is None
    assert contents(root) == whole


def test_killed_jobs_are_started_again(run, pool, whole, tmp_path: Path) -> None:
    rng, killed, is_over = random.Random(2), set(), threading.Event()

    def strike() -> None:
        while not is_over.is_set() and len(killed) < KILLS:
            time.sleep(rng.uniform(0.1, 0.5))
            running = [job for job in pool.jobs if is_alive(job.pid) and job.folder not in killed]
            if running:
                job = rng.choice(running)
                killed.add(job.folder)  # each folder once: a third loss would fail it
                os.kill(job.pid, signal.SIGKILL)

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        done = run(tmp_path / "s", **SWEEP)
    finally:
        is_over.set()
        thread.join()
    assert done.problem is None and killed
    assert contents(tmp_path / "s") == whole


@pytest.mark.slow
def test_the_command_killed_again_and_again_on_real_jobs(definition, tmp_path: Path) -> None:
    """The same with processes of their own, as `blip3o-eval sweep run` starts them."""
    import yaml

    path, rng = tmp_path / "s.yaml", random.Random(3)
    path.write_text(yaml.safe_dump(definition(**SWEEP)))

    def start(root: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "evals.cli.main", "sweep", "run", str(path), "--output", str(root)]
        return subprocess.Popen([*command, "--no-track", "--no-report", "-q"], stderr=subprocess.PIPE)

    assert start(tmp_path / "whole").wait() == 0
    for _ in range(KILLS):
        process = start(tmp_path / "s")
        time.sleep(rng.uniform(2, 12))
        process.kill()
        process.communicate()
        until = time.monotonic() + 10
        while time.monotonic() < until:
            pids = [read_state(p.parent).pid for p in tmp_path.glob("s/*/*/state.json")]
            if not any(map(is_alive, pids)):
                break
            time.sleep(0.05)
        assert not any(map(is_alive, pids))
    last = start(tmp_path / "s")
    _, errors = last.communicate()
    assert last.returncode == 0, errors.decode()
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")
