"""A model that is killed while it answers, again and again, and resumed, ends in the same answers and figures."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evals.results import comparable

LIMIT, KILLS = 48, 4


def command(output: Path) -> list[str]:
    program = [sys.executable, "-c", "from evals.cli.main import main; main()", "run", "--task", "mme_stickers"]
    how = ["--model", "tiny", "--limit", str(LIMIT), "--batch-size", "4", "--no-track", "-q"]
    return [*program, *how, "--set", "model.args.temperature=0.8", "--output", str(output)]


@pytest.mark.slow
def test_killed_while_answering_and_resumed_is_equal(tmp_path: Path) -> None:
    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    draw, killed, outputs = random.Random(0), 0, tmp_path / "run" / "outputs.jsonl"
    for number in range(KILLS):
        process = subprocess.Popen(command(tmp_path / "run"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = (number + 1) * LIMIT // (KILLS + 2)
        deadline = time.monotonic() + 300
        while process.poll() is None and (not outputs.exists() or outputs.read_bytes().count(b"\n") < wanted):
            assert time.monotonic() < deadline, "the run makes no progress"
            time.sleep(0.002)
        time.sleep(draw.random() * 0.1)
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert killed >= 2
    subprocess.run(command(tmp_path / "run"), check=True, capture_output=True)
    assert comparable(tmp_path / "run") == comparable(tmp_path / "whole")
