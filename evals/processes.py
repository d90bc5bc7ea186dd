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


def die_with(parent: int) -> None:
    """Ask the kernel to end this process when its parent is gone (Linux); call in the child.

    The kernel means the parent's thread, so whoever forks has to outlive the child. Children of this process are not
    covered.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)


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
