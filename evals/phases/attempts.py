"""What this process was about to compute, so that the next one knows when it died of it.

A segmentation fault, ``os._exit`` in a library or the kernel's out-of-memory killer end a process
without a word, and a plain resume would walk into the same batch for ever. So the batch is noted
before each call and the note is removed when the phase ends in any orderly way. A batch on which
processes died ``SUSPICIOUS_AFTER`` times is computed in a process of its own (``evals.phases.isolation``).
A run killed from outside leaves the same note; the results are the same either way.
"""

from __future__ import annotations

import os
from pathlib import Path

SUSPICIOUS_AFTER = 2
_WIDTH = 64


class Attempts:
    """The note of one phase of one shard. A damaged note counts as none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        self.key, self.deaths = self._read()

    @property
    def is_suspicious(self) -> bool:
        return self.deaths >= SUSPICIOUS_AFTER

    def _read(self) -> tuple[int, int]:
        """(first position of the batch, times a process died in it)."""
        try:
            key, deaths = self._path.read_text(errors="replace").split()
            return int(key), min(max(int(deaths), 0), 99) + 1
        except (OSError, ValueError):
            return -1, 0

    def starting(self, key: int) -> None:
        """Note that the batch starting at position ``key`` is about to be computed."""
        if self._fd is None:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deaths = self.deaths if key == self.key else 0
        os.pwrite(self._fd, f"{key} {deaths}".ljust(_WIDTH).encode(), 0)

    def close(self) -> None:
        """The phase ended in an orderly way: nothing to remember."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self._path.unlink(missing_ok=True)
