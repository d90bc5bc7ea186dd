"""Runs in processes of their own that can be killed, starved and damaged."""

from __future__ import annotations

import faulthandler
import importlib.util
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import evals
from evals.errors import EvalError
from evals.judges.dummy import DummyJudge
from evals.judges.dummy import _Arguments as JudgeArguments
from evals.models.dummy import DummyModel
from evals.models.dummy import _Arguments as ModelArguments

_spec = importlib.util.spec_from_file_location("_fruit", Path(__file__).parent.parent / "conftest.py")
assert _spec is not None and _spec.loader is not None
_tasks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tasks)


def _evaluate(
    output: Path,
    *,
    model: dict[str, Any] | None = None,
    judge: dict[str, Any] | None = None,
    made: Any = None,
    **settings: Any,
) -> evals.Run:
    settings = {"report": False, "tracking__enabled": False, "quiet": True} | settings
    settings = {"batch_size": 5, "judge__batch_size": 7} | settings
    return evals.evaluate(
        _tasks.FruitTask(per_group=3),
        made or DummyModel(ModelArguments(**({"size": 16} | (model or {})))),
        judge=DummyJudge(JudgeArguments(**(judge or {}))),
        output=output,
        **settings,
    )


@pytest.fixture(scope="session")
def evaluate() -> Callable[..., evals.Run]:
    """A run of 9 prompts and 36 pictures of 16 pixels, in batches of 5 and judged in batches of 7.

    ``model`` and ``judge`` are arguments of the fakes, ``made`` a model object instead.
    """
    return _evaluate


def _in_child(call: Callable[[], object]) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    faulthandler.disable()  # a crash that a test asked for needs no traceback on the screen
    try:
        call()
        os._exit(0)
    except EvalError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(error.exit_code)
    except BaseException:
        traceback.print_exc()
        os._exit(70)


@pytest.fixture(scope="session")
def in_child() -> Callable[[Callable[[], object]], int]:
    """Forks and calls in the child; returns its process id. Its exit code is 0 if the call returned."""
    return _in_child


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole") / "run"
    assert _evaluate(root).problem is None
    return root


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """``small_disk("size=100k")`` mounts a tmpfs, ``small_disk("size=9m", path)`` mounts it anew with
    other options; skips where this process may not."""
    mounted: list[Path] = []

    def mount(options: str, again: Path | None = None) -> Path:
        point = again or tmp_path / f"disk-{len(mounted)}"
        point.mkdir(exist_ok=True)
        options = f"remount,{options}" if again else options
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(point)]
        try:
            subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"this process may not mount a tmpfs: {getattr(error, 'stderr', error)}")
        if not again:
            mounted.append(point)
        return point

    yield mount
    for point in mounted:
        subprocess.run(["umount", "-l", str(point)], check=True)
