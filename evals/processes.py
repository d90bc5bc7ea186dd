"""Ties between processes: a child that dies with its parent, and everything that a job ever started.

Linux: ``prctl`` and ``/proc``. Elsewhere only process groups are there, and the pipes between parent and child.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

# Every process of a job has this in its environment, whatever session or group it moved to.
MARK = "BLIP3O_EVAL_JOB"

_PR_SET_PDEATHSIG = 1
_PROC = Path("/proc")
# Of /proc/PID/stat, counted behind the name, which may hold spaces: where the environment begins and ends.
_ENV_START, _ENV_END = 47, 48


def die_with(parent: int) -> None:
    """Ask the kernel to end this process when its parent is gone (Linux); call in the child.

    The kernel means the parent's thread, so whoever forks has to outlive the child. Children of this process are not
    covered.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)


def outlive_parent() -> None:
    """Take back ``die_with``."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0)


def mark_myself(token: str) -> bool:
    """Make ``marked`` find this process and all that it will start. False where that is not possible.

    ``/proc`` shows the environment that a program was started with, which a fork shares: there, in the memory of this
    process alone, the mark of the program is overwritten, so it has to have one of the same length.
    """
    new = f"{MARK}={token}".encode()
    try:
        stat = (_PROC / "self" / "stat").read_text().rpartition(")")[2].split()
        start, end = int(stat[_ENV_START]), int(stat[_ENV_END])
        block = ctypes.string_at(start, end - start)
        at = (b"\0" + block).index(f"\0{MARK}=".encode())
        if block.index(b"\0", at) - at != len(new):
            return False
    except (OSError, ValueError):
        return False
    ctypes.memmove(start + at, new, len(new))
    os.environ[MARK] = token
    return True


def marked(token: str) -> list[int]:
    """Processes of this machine with ``MARK=token`` in their environment; zombies have none."""
    wanted = f"{MARK}={token}".encode()
    found = []
    for entry in _PROC.iterdir() if _PROC.is_dir() else ():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            # gone by now, or somebody else's
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def kill_marked(token: str, within_s: float = 5.0) -> bool:
    """End all of them with SIGKILL. False if some are left after ``within_s`` seconds."""
    until = time.monotonic() + within_s
    while found := marked(token):
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > until:
            return False
        time.sleep(0.02)  # a process that forked in between is found by the next look
    return True


def signal_name(number: int) -> str:
    """``9`` -> ``SIGKILL``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
