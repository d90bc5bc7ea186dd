"""What a job leaves beside its folder's own files, readable from every machine that sees the folder.

``job/order.json``   written before the job is handed over: token (of this attempt), command, cwd, env (added to that of
                     the machine it runs on), grace_s, executor
``job/handle.json``  written after: executor, token, job_id, host (of whoever handed it over)
``job/alive.json``   while it runs: token, host, pid, beat (a counter; that it changes is the sign of life)
``job/stop.json``    by whoever ends it from outside, before SIGTERM: token, why, is_final (false: it starts again)
``job/ended.json``   at the end: token, code, signal, stopped (why it was ended from outside, or null)
``job/log.txt``      stdout and stderr of all attempts, one after the other

An attempt before this one left files with another token; they are no sign of this one.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evals.errors import InputError
from evals.io.files import write_json
from evals.processes import signal_name
from evals.sweeps.folder import read_json

JOB = "job"
OOM_HINT = {"SIGKILL": " (out of memory?)"}


@dataclass(frozen=True)
class Order:
    """A command and where it runs. ``grace_s``: seconds between SIGTERM and SIGKILL when it is ended."""

    token: str
    command: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    grace_s: float
    executor: str


@dataclass(frozen=True)
class Handle:
    """How the executor knows the job: its process, number in the queue or task."""

    token: str
    executor: str
    job_id: str
    host: str


@dataclass(frozen=True)
class Alive:
    """The sign of life."""

    token: str
    host: str
    pid: int
    beat: int


@dataclass(frozen=True)
class Stop:
    """Why a job is ended from outside. Without one it was cancelled."""

    token: str
    why: str = "cancelled"
    is_final: bool = True


@dataclass(frozen=True)
class Ended:
    """How the process ended: exit ``code``, or ``signal`` by name."""

    token: str
    code: int | None
    signal: str | None
    stopped: str | None = None

    @classmethod
    def of(cls, token: str, returncode: int, stopped: str | None = None) -> Ended:
        """From ``Popen.returncode``, negative for a signal."""
        if returncode < 0:
            return cls(token, None, signal_name(-returncode), stopped)
        return cls(token, returncode, None, stopped)

    def __str__(self) -> str:
        if self.stopped:
            return self.stopped
        if self.signal:
            return f"ended by {self.signal}{OOM_HINT.get(self.signal, '')}"
        return f"ended with exit code {self.code}"


def log_path(folder: Path) -> Path:
    return folder / JOB / "log.txt"


def command_of(folder: Path) -> list[str]:
    """What a job runs."""
    return [sys.executable, "-m", "evals.sweeps.point", str(folder)]


def write_order(folder: Path, env: Mapping[str, str], executor: str, grace_s: float) -> Order:
    """The order of the next attempt, with a token of its own; the command runs in this process's directory."""
    command = tuple(command_of(folder.absolute()))
    order = Order(secrets.token_hex(8), command, os.getcwd(), dict(env), grace_s, executor)
    (folder / JOB).mkdir(parents=True, exist_ok=True)
    write_json(folder / JOB / "order.json", {**asdict(order), "command": list(command)})
    return order


def read_order(folder: Path) -> Order:
    """Raises InputError where there is none."""
    data = read_json(folder / JOB / "order.json")
    return Order(**{**data, "command": tuple(data["command"])})


def write_handle(folder: Path, order: Order, job_id: str) -> None:
    handle = Handle(order.token, order.executor, job_id, socket.gethostname())
    write_json(folder / JOB / "handle.json", asdict(handle))


def write_alive(folder: Path, alive: Alive) -> None:
    write_json(folder / JOB / "alive.json", asdict(alive), is_durable=False)


def write_stop(folder: Path, stop: Stop) -> None:
    write_json(folder / JOB / "stop.json", asdict(stop))


def write_ended(folder: Path, ended: Ended) -> None:
    write_json(folder / JOB / "ended.json", asdict(ended))


def read_handle(folder: Path) -> Handle | None:
    """Of the last attempt that was handed over; None without one."""
    data = _read(folder, "handle.json")
    return Handle(**data) if data is not None else None


def read_alive(folder: Path, token: str) -> Alive | None:
    data = _read(folder, "alive.json")
    return Alive(**data) if data is not None and data["token"] == token else None


def read_stop(folder: Path, token: str) -> Stop:
    data = _read(folder, "stop.json")
    return Stop(**data) if data is not None and data["token"] == token else Stop(token)


def read_ended(folder: Path, token: str) -> Ended | None:
    data = _read(folder, "ended.json")
    return Ended(**data) if data is not None and data["token"] == token else None


def forget_end(folder: Path) -> None:
    """A requeued job starts again under the same token."""
    for name in ("ended.json", "stop.json"):
        (folder / JOB / name).unlink(missing_ok=True)


def _read(folder: Path, name: str) -> dict[str, Any] | None:
    # Missing, or cut short by a full disk or a file system that is slow to show the new content.
    try:
        return read_json(folder / JOB / name)
    except InputError:
        return None
