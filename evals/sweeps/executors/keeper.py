"""``python -m evals.sweeps.executors.keeper FOLDER``: the process around a job, the same on every executor.

It runs the command of ``job/order.json`` with the output in ``job/log.txt``, gives signs of life, and writes how it
ended. Its stdin is a pipe whose other end is held by whoever started it: when that process is gone, however it died,
the pipe closes and the job is ended (SIGTERM, after a while SIGKILL), and SIGTERM to the keeper does the same. A
keeper that is killed itself takes the job along (``PR_SET_PDEATHSIG``). At the end everything that the job started
and left behind is killed, whatever session it moved to.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Protocol

from evals.processes import MARK, die_with, kill_marked
from evals.sweeps.executors.files import (
    Alive,
    Ended,
    Order,
    Stop,
    forget_end,
    log_path,
    read_order,
    read_stop,
    write_alive,
    write_ended,
)

BEAT_S = 5.0
# Of torchrun: a job is one process, and must not take itself for a shard of its parent.
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
CANNOT_START = 127  # as in a shell


class Child(Protocol):
    """What a keeper needs of the process that it keeps; ``subprocess.Popen`` is one."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class Handle(Protocol):
    """The pool's end of a keeper while it keeps one job."""

    pid: int

    def poll(self) -> int | None:
        """Exit code of the job, or of a keeper that is gone, negative for a signal."""

    def wait(self) -> object: ...

    def kill(self) -> None: ...

    def release(self) -> None:
        """The job has ended, and nothing more is asked."""


class Single:
    """A keeper of one job, as `start` gives it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process, self.pid = process, process.pid
        self.poll, self.wait, self.kill = process.poll, process.wait, process.kill

    def release(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start the keeper of a folder with an order, in a session of its own; it ends the job with this process."""
    with open(log_path(folder), "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "evals.sweeps.executors.keeper", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )


def launch(order: Order, log: IO[bytes]) -> Child:
    """Start the command of a job. Raises: OSError where it cannot be started."""
    env = {k: v for k, v in os.environ.items() if k not in LAUNCHER}
    keeper = os.getpid()
    return subprocess.Popen(
        order.command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=order.cwd,
        env={**env, **order.env, MARK: order.token},
        start_new_session=True,  # a group of its own: SIGTERM meant for it does not reach the keeper
        # The keeper has one thread of Python, so that nothing can be locked.
        preexec_fn=lambda: die_with(keeper),
    )


def keep(folder: Path, wakeups: int, launch: Callable[[Order, IO[bytes]], Child] = launch) -> int:
    """Run the job to its end. Returns its exit code, 128 + n after signal n. ``wakeups``: of `listen`."""
    order = read_order(folder)
    forget_end(folder)
    with open(log_path(folder), "ab", buffering=0) as log:
        begun = datetime.now(UTC).isoformat(timespec="seconds")
        log.write(f"-- {begun} {socket.gethostname()}: {' '.join(order.command)}\n".encode())
        try:
            child = launch(order, log)
        except OSError as error:
            log.write(f"{error}\n".encode())
            write_ended(
                folder, Ended(order.token, CANNOT_START, None, f"cannot be started: {error}")
            )
            return CANNOT_START
        stop = None
        try:
            stop = _watch(child, folder, order.token, wakeups)
        finally:
            if child.poll() is None:
                _end(child, order.grace_s)
            kill_marked(order.token)
        assert child.returncode is not None
        ended = Ended.of(order.token, child.returncode, stop.why if stop else None)
        log.write(f"-- {ended}\n".encode())
        if stop is None or stop.is_final:
            write_ended(folder, ended)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def listen() -> int:
    """A file descriptor that becomes readable at the end of a child and at SIGTERM; its bytes are the signals."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    # Ctrl-C is the parent's to answer, and so are the signals by which SLURM warns every process of a job that its time
    # is nearly over. The job inherits that they are ignored.
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    return reading


def _watch(child: Child, folder: Path, token: str, wakeups: int) -> Stop | None:
    """Wait for the end of the job. Returns why it has to be ended, or None if it ended by itself."""
    beat, next_beat = 0, time.monotonic()
    while child.poll() is None:
        if time.monotonic() >= next_beat:
            beat, next_beat = beat + 1, time.monotonic() + BEAT_S
            with contextlib.suppress(Exception):  # a full disk; the job finds out by itself
                write_alive(folder, Alive(token, socket.gethostname(), child.pid, beat))
        ready, _, _ = select.select(
            [wakeups, sys.stdin.fileno()], [], [], max(0, next_beat - time.monotonic())
        )
        if wakeups in ready and signal.SIGTERM in os.read(wakeups, 64):
            return read_stop(folder, token)
        if sys.stdin.fileno() in ready and not os.read(sys.stdin.fileno(), 64):
            return Stop(token, "ended with the process that had started it")
    return None


def _end(child: Child, grace_s: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    try:
        child.wait(grace_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


if __name__ == "__main__":
    sys.exit(keep(Path(sys.argv[1]), listen()))
