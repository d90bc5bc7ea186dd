"""Jobs that run a few lines of Python instead of a point, so that these tests need no model."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evals.sweeps.executors import files
from evals.sweeps.folder import State, write_state

Maker = Callable[..., Path]

_START = """\
import os, signal, subprocess, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def say(name, text=""):
    (folder / (name + ".tmp")).write_text(str(text)); os.replace(folder / (name + ".tmp"), folder / name)
def end(status, error=None):
    from evals.sweeps.folder import State, write_state
    write_state(folder, State(status, error=error))
"""


@pytest.fixture
def job_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Maker:
    """``job_folder(name, code)``: a folder whose job runs the code, with ``say(file, text)`` and ``end(status)``."""

    def make(name: str, code: str) -> Path:
        folder = tmp_path / "points" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "code.py").write_text(_START + textwrap.dedent(code))
        write_state(folder, State())
        return folder

    def command_of(folder: Path) -> list[str]:
        return [sys.executable, str(folder / "code.py"), str(folder)]

    monkeypatch.setattr(files, "command_of", command_of)
    return make


def _wait_until(is_true: Callable[[], object], within_s: float = 60) -> None:
    until = time.monotonic() + within_s
    while not is_true():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def _finish(job: Any, within_s: float = 60) -> str:
    """The status of a job once it has ended."""
    _wait_until(lambda: job.poll() != "running", within_s)
    return str(job.poll())


@pytest.fixture
def wait_until() -> Callable[..., None]:
    return _wait_until


@pytest.fixture
def finish() -> Callable[..., str]:
    return _finish
