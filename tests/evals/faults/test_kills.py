"""SIGKILL before every file operation of a run and at random moments; what is resumed must be equal.

``BLIP3O_EVAL_TEST_KILLS`` sets the number of kills at random moments of the slow tests (default 100).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from evals import results
from evals.io import jsonl
from evals.results import comparable

KILLS = int(os.environ.get("BLIP3O_EVAL_TEST_KILLS", "100"))
TOUCHES = ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate")
SLOW = {"model": {"size": 16, "seconds": 0.002}, "judge": {"seconds": 0.002}}


class Reaper:
    """Kills this process before file operation number ``at`` below ``root``; counts them if it is None."""

    def __init__(self, root: Path, at: int | None) -> None:
        self.root, self.at, self.count = str(root), at, 0

    def watch(self) -> None:
        """For the rest of this process's life: audit hooks cannot be removed."""
        sys.addaudithook(self._hear)
        real = jsonl.LineWriter.append

        def append(writer: jsonl.LineWriter, rows) -> None:
            rows = list(rows)
            if self._is_due():  # a write of which only a part arrived
                writer._file.write(b"".join(map(jsonl._sealed, rows))[:-9])
                os.kill(os.getpid(), signal.SIGKILL)
            real(writer, rows)

        jsonl.LineWriter.append = append  # type: ignore[method-assign]

    def _hear(self, event: str, arguments: tuple) -> None:
        if event in TOUCHES and str(arguments[0]).startswith(self.root) and self._is_due():
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_due(self) -> bool:
        self.count += 1
        return self.at is not None and self.count > self.at


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(evaluate, in_child, root: Path, at: int, **settings) -> bool:
    """Run in a child that dies before file operation ``at``. False if it had fewer."""

    def run() -> None:
        Reaper(root, at).watch()
        evaluate(root, **settings)

    code = wait(in_child(run))
    assert code in (0, -signal.SIGKILL)
    return code != 0


def count_operations(evaluate, in_child, tmp_path: Path, **settings) -> int:
    def run() -> None:
        reaper = Reaper(tmp_path / "counted", None)
        reaper.watch()
        evaluate(tmp_path / "counted", **settings)
        (tmp_path / "count").write_text(str(reaper.count))

    assert wait(in_child(run)) == 0
    return int((tmp_path / "count").read_text())


def check_kills_at(evaluate, in_child, tmp_path: Path, whole: Path, moments, **settings) -> int:
    expected, kills = comparable(whole), 0
    for at in moments:
        root = tmp_path / f"killed-{at}"
        kills += killed_at(evaluate, in_child, root, at, **settings)
        # Twice: the second death meets the leavings of the first.
        kills += killed_at(evaluate, in_child, root, at // 2, **settings)
        assert evaluate(root, **settings).problem is None
        assert comparable(root) == expected, f"killed before operation {at}"
        shutil.rmtree(root)
    return kills


def test_killed_at_twelve_file_operations(evaluate, in_child, tmp_path: Path, whole: Path) -> None:
    total = count_operations(evaluate, in_child, tmp_path)
    moments = [*range(1, total, total // 11), total - 1]
    assert total > 200
    kills = check_kills_at(evaluate, in_child, tmp_path, whole, moments)
    print(f"\n{kills} kills at {len(moments)} of {total} file operations, every run equal")
    assert kills >= len(moments)


@pytest.mark.slow
def test_killed_before_every_file_operation(
    evaluate, in_child, tmp_path: Path, whole: Path
) -> None:
    total = count_operations(evaluate, in_child, tmp_path)
    kills = check_kills_at(evaluate, in_child, tmp_path, whole, range(total))
    print(f"\n{kills} kills at {total} file operations, every run equal")


@pytest.mark.slow
def test_killed_before_every_file_operation_of_report_and_merge(
    evaluate, in_child, tmp_path: Path, whole: Path
) -> None:
    """A run of three shards whose last process merges, scores and writes the report."""
    import reports.page  # noqa: F401 - imported once here, not in every child
    from reports import html  # noqa: F401

    start = tmp_path / "start"
    for index in (1, 2):
        assert evaluate(start, shard=(index, 3)).pending
    last = {"shard": (0, 3), "report": True}
    shutil.copytree(start, tmp_path / "counted")
    total = count_operations(evaluate, in_child, tmp_path, **last)
    kills = 0
    for at in range(total):
        root = Path(shutil.copytree(start, tmp_path / f"killed-{at}"))
        kills += killed_at(evaluate, in_child, root, at, **last)
        # Resumed by one process, by another number of shards, or by the same shard.
        for shard in ([(0, 1)], [(0, 2), (1, 2)], [(0, 3)])[at % 3]:
            made = evaluate(root, shard=shard, report=at % 10 == 0)
        assert made.problem is None and not made.pending
        assert comparable(root) == comparable(whole), f"killed before operation {at}"
        shutil.rmtree(root)
    print(f"\n{kills} kills at {total} file operations of shard, merge and report, every run equal")


@pytest.mark.slow
def test_killed_at_random_moments(evaluate, in_child, tmp_path: Path, whole: Path) -> None:
    """Generation, judging and scoring, one process; phases told by what was on disk at the kill."""
    rng, kills, rounds = random.Random(1), {"generate": 0, "score": 0, "finish": 0}, 0
    expected = comparable(whole)
    began = time.monotonic()
    evaluate(tmp_path / "timed", **SLOW)
    duration = time.monotonic() - began
    while sum(kills.values()) < KILLS:
        root = tmp_path / f"run-{rounds}"
        rounds += 1
        for _ in range(6):
            pid = in_child(lambda root=root: evaluate(root, **SLOW))
            time.sleep(rng.uniform(0, duration))
            os.kill(pid, signal.SIGKILL)
            if wait(pid) == -signal.SIGKILL:
                scored, done = (root / "scores.jsonl").exists(), (root / "results.json").exists()
                kills["finish" if done else "score" if scored else "generate"] += 1
        assert evaluate(root, **SLOW).problem is None
        assert comparable(root) == expected
        shutil.rmtree(root)
    print(f"\n{kills} kills at random moments over {rounds} runs, every run equal")
    assert kills["generate"] and kills["score"]


@pytest.mark.slow
def test_shards_killed_at_random_moments(
    evaluate, in_child, tmp_path: Path, whole: Path
) -> None:
    """Four shards at a time, killed and started again with 4, 3 or 2 shards until all is done."""
    rng, kills, rounds, expected = random.Random(2), 0, 0, comparable(whole)
    while kills < KILLS:
        root, count = tmp_path / f"run-{rounds}", 4
        rounds += 1
        for _ in range(4):
            shards = [(i, count) for i in range(count)]
            children = [
                in_child(lambda s=s, root=root: evaluate(root, shard=s, **SLOW)) for s in shards
            ]
            time.sleep(rng.uniform(0, 0.6))
            for pid in children:
                os.kill(pid, signal.SIGKILL)
                code = wait(pid)
                assert code in (0, -signal.SIGKILL)
                kills += code != 0
            count = rng.choice((2, 3, 4))
        assert evaluate(root).problem is None
        assert comparable(root) == expected
        shutil.rmtree(root)
    print(f"\n{kills} kills of shards over {rounds} runs, every run equal")


@pytest.mark.slow
def test_the_bundled_model_killed_at_random_moments(tmp_path: Path) -> None:
    """nano and its judge through the command line, with the report; a tenth of the kills."""
    import subprocess

    program = [sys.executable, "-c", "from evals.cli.main import main; main()"]
    size = ["--limit", "6", "--num-images", "2", "--batch-size", "3", "--no-track", "-q"]

    def command(output: str) -> list[str]:
        return [*program, "run", "--task", "geneval", *size, "--output", str(tmp_path / output)]

    began = time.monotonic()
    subprocess.run(command("whole"), check=True, capture_output=True)
    duration = time.monotonic() - began
    expected, rng, kills, rounds = results.comparable(tmp_path / "whole"), random.Random(3), 0, 0
    while kills < max(1, KILLS // 10):
        rounds += 1
        for _ in range(4):
            process = subprocess.Popen(command(f"run-{rounds}"), stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(0.3, 1) * duration)
            process.kill()
            kills += process.wait() == -signal.SIGKILL
        subprocess.run(command(f"run-{rounds}"), check=True, capture_output=True)
        assert results.comparable(tmp_path / f"run-{rounds}") == expected
        assert (tmp_path / f"run-{rounds}" / "report.html").stat().st_size > 10_000
    print(f"\n{kills} kills of nano over {rounds} runs, every run equal")


def test_nothing_is_held_by_the_dead(evaluate, in_child, tmp_path: Path) -> None:
    """A killed process's lock is gone with it: there is nothing to clean up by hand."""
    root = tmp_path / "run"
    pid = in_child(lambda: evaluate(root, model={"seconds": 0.05}))
    deadline = time.monotonic() + 60
    while not (root / "outputs.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    wait(pid)
    assert evaluate(root).problem is None


