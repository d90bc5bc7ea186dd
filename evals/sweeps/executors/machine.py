"""What this machine has for jobs: cores, GPUs, memory. Imports no torch and touches no GPU."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its container."""
    found = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    with contextlib.suppress(OSError, ValueError):
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        if quota != "max":
            found = min(found, max(1, int(quota) // int(period)))
    return found


def memory_gb() -> float | None:
    """Main memory in gigabytes (10^9 bytes), or the limit of the container; None where it cannot be read."""
    found = []
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        found.append(int((_CGROUP / "memory.max").read_text()))
    return min(found) / 1e9 if found else None


def gpus() -> tuple[str, ...]:
    """Ids for ``CUDA_VISIBLE_DEVICES``: those it names already, else all that ``nvidia-smi`` lists."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        ids = [part.strip() for part in visible.split(",")]
        # CUDA itself stops at the first id that names no device.
        end = next((i for i, gpu in enumerate(ids) if gpu in ("", "-1", "NoDevFiles")), len(ids))
        return tuple(ids[:end])
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return tuple(map(str, range(count)))


def thread_variables(cores: int) -> dict[str, str]:
    """Environment that keeps numeric libraries to ``cores`` threads; a smaller number set by the user stays."""
    limits = {}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        own = os.environ.get(name, "")
        limits[name] = str(min(int(own), cores) if own.isdigit() and int(own) > 0 else cores)
    return {**limits, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
