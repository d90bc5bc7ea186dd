"""A process killed with SIGKILL at random moments, resumed until it is done, equals one that was not.

``BLIP3O_EVAL_TEST_KILLS`` raises the number of kills (default 4) for longer trials.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from evals.results import comparable

KILLS = int(os.environ.get("BLIP3O_EVAL_TEST_KILLS", "4"))
LIMIT, PER_SAMPLE = 30, 4
SLOW = "seconds=0.004"


def command(output: Path, slow: str = "") -> list[str]:
    settings = ["--model", f"dummy:{slow}", "--judge", f"dummy:{slow}", "--no-track", "-q"]
    size = ["--limit", str(LIMIT), "--batch-size", "5", "--set", "judge.batch_size=7"]
    program = [sys.executable, "-c", "from evals.cli.main import main; main()"]
    return [*program, "run", "--task", "geneval", *settings, *size, "--output", str(output)]


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def run_and_kill(output: Path, name: str, lines: int, delay_s: float) -> bool:
    """Start the run and kill it soon after file ``name`` holds ``lines`` lines. False if it was done first."""
    process = subprocess.Popen(
        command(output, SLOW), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and lines_in(output / name) < lines:
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.001)
    time.sleep(delay_s)
    was_running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert was_running or process.returncode == 0, errors.decode()
    return was_running


def test_a_run_killed_again_and_again_ends_equal_file_for_file(tmp_path: Path) -> None:
    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    expected = comparable(tmp_path / "whole")
    assert len(expected) == LIMIT * (PER_SAMPLE + 1) + 4
    rng = random.Random(KILLS)
    kills = {"outputs.jsonl": 0, "scores.jsonl": 0}
    round_number = 0
    while sum(kills.values()) < KILLS:
        output = tmp_path / f"run-{round_number}"
        round_number += 1
        total = LIMIT * PER_SAMPLE
        # Two moments of generation and two of judging in one run, each later than the one before.
        for name in ("outputs.jsonl", "scores.jsonl"):
            for lines in sorted(rng.sample(range(total - 10), 2)):
                kills[name] += run_and_kill(output, name, lines, rng.uniform(0, 0.02))
        subprocess.run(command(output), check=True, capture_output=True)
        assert comparable(output) == expected
    assert all(kills.values()), kills
