"""Kernel file locks: held by a process, released by the kernel when it dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from types import TracebackType

from evals.errors import LockedError


class FileLock:
    """An exclusive (or shared) lock on a small file that stays behind.

    A lock file that merely exists means nothing, so there is never a stale lock to remove by hand.
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self.path = path
        self._mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._fd: int | None = None

    def acquire(self, wait: bool = False, what: str = "run") -> FileLock:
        """Take the lock. Raises LockedError naming the holder unless ``wait`` is set."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, self._mode | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.read(fd, 100).decode(errors="replace").strip()
            os.close(fd)
            raise LockedError(
                f"{self.path.parent}: another process ({holder or 'unknown'}) works on this {what}; "
                "wait for it, stop it, or give another --output"
            ) from None
        except BaseException:
            os.close(fd)
            raise
        if self._mode == fcntl.LOCK_EX:
            # Who holds it is a courtesy: on a full disk the lock is held all the same, and what is written under it
            # says in one line what is wrong.
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"process {os.getpid()}\n".encode(), 0)
        self._fd = fd
        return self

    def holder(self) -> str | None:
        """Who holds the lock right now, such as ``process 123``; None if nobody does."""
        fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.read(fd, 100).decode(errors="replace").strip() or "unknown process"
        finally:
            os.close(fd)
        return None

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> FileLock:
        return self if self._fd is not None else self.acquire(wait=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
