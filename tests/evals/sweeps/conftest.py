"""Sweeps that train nothing (`trainer: dummy`) and evaluate the fake model, on jobs forked from the test."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from evals.processes import die_with
from evals.sweeps.api import Resources
from evals.sweeps.folder import verdict
from evals.sweeps.plan import SweepPlan, plan
from evals.sweeps.point import main
from evals.sweeps.runner import SweepRun, run_sweep
from evals.sweeps.source import Source
from evals.sweeps.sweepfile import check_form


def _definition(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "train": {"trainer": "dummy", "steps": 3, "schedule": "sequential"},
        "run": {"limit": 6, "num_images": 1},
        "evaluate": {"tasks": ["geneval"]},
    }
    for section in ("train", "run", "evaluate"):
        given = changes.pop(section, {})
        base[section] = given if given is None else {**base[section], **given}
    data = {"name": "trial", "base": base, "axes": {"train.objective": ["flow", "mse"]}, "seeds": [0]}
    return {**data, **changes}


@pytest.fixture(scope="session")
def definition() -> Callable[..., dict[str, Any]]:
    """A sweep of two points; `train`, `run`, `evaluate` change the base, other names the keys beside it."""
    return _definition


def _planned(**changes: Any) -> SweepPlan:
    data, source = _definition(**changes), Source("trial.yaml")
    return plan(check_form(data, source), source)


@pytest.fixture(scope="session")
def planned() -> Callable[..., SweepPlan]:
    """The plan of `definition(...)`."""
    return _planned


class ForkedJob:
    """A job in a child of this process, without the seconds that a new interpreter needs."""

    is_waiting = False

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.reason = folder, folder / "log.txt", None
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                die_with(parent)
                with open(os.devnull, "w") as nothing:
                    os.dup2(nothing.fileno(), 2)
                code = main([str(folder)])
            finally:
                os._exit(code)
        self._ended = False

    def poll(self) -> str:
        if not self._ended:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid == 0:
                return "running"
            self._ended = True
            self.reason = f"ended with {os.waitstatus_to_exitcode(status)}"
        return verdict(self.folder) or "lost"

    def cancel(self) -> None:
        if not self._ended:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._ended = True


class ForkPool:
    """An executor of `room` jobs at once; `started` lists the folders in the order in which their jobs began."""

    name = "fork"
    per_job = Resources()

    def __init__(self, room: int = 2) -> None:
        self.capacity = Resources(cores=room)
        self.jobs: list[ForkedJob] = []
        self.started: list[str] = []

    def has_room(self, resources: Resources) -> bool:
        return sum(job.poll() == "running" for job in self.jobs) < self.capacity.cores

    def submit(self, folder: Path, resources: Resources) -> ForkedJob:
        self.started.append(folder.name)
        self.jobs.append(ForkedJob(folder))
        return self.jobs[-1]

    def submit_all(self, folders: Sequence[Path], resources: Resources) -> list[ForkedJob]:
        return [self.submit(folder, resources) for folder in folders]

    def attach(self, folder: Path) -> None:
        return None

    def close(self) -> None:
        for job in self.jobs:
            job.cancel()

    def __enter__(self) -> ForkPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def pool() -> ForkPool:
    return ForkPool()


@pytest.fixture
def run(pool: ForkPool) -> Callable[..., SweepRun]:
    """Plan and run `definition(...)` in a folder on `pool`."""

    def start(root: Path, options: Mapping[str, Any] | None = None, **changes: Any) -> SweepRun:
        return _swept(root, pool, options, **changes)

    return start


@pytest.fixture(scope="session")
def swept() -> Callable[..., SweepRun]:
    """The same on a pool of its own, for fixtures of a module."""

    def start(root: Path, **changes: Any) -> SweepRun:
        return _swept(root, ForkPool(), **changes)

    return start


def _swept(
    root: Path, pool: ForkPool, options: Mapping[str, Any] | None = None, **changes: Any
) -> SweepRun:
    return run_sweep(_planned(**changes), root, lambda _: pool, is_quiet=True, **(options or {}))


@pytest.fixture
def forks() -> Iterator[list[int]]:
    """Process ids to be ended when the test is over, however it ends."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
