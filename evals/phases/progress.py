"""Progress on stderr with rate and time left: one moving line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

_TTY_EVERY_S = 0.2
_PLAIN_EVERY_S = 15.0


def duration(seconds: float) -> str:
    """``75`` -> ``1m15s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Progress:
    """Counts finished outputs of one phase.

    ``already`` outputs were there before; rate and time left come from this process's own work.
    """

    def __init__(
        self,
        label: str,
        total: int,
        already: int = 0,
        *,
        is_quiet: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self._label, self._total, self._already = label, total, already
        self._stream = stream or sys.stderr
        self._is_quiet = is_quiet
        self._is_tty = self._stream.isatty()
        self._done = self._failed = 0
        self._began = self._shown_at = time.monotonic()

    def __enter__(self) -> Progress:
        if self._already:
            self._line(f"{self._label}: {self._already} of {self._total} are there, resuming")
        elif not self._is_tty:
            self._line(f"{self._label}: {self._total} outputs")
        return self

    def advance(self, done: int, failed: int = 0) -> None:
        self._done += done
        self._failed += failed
        now = time.monotonic()
        if now - self._shown_at >= (_TTY_EVERY_S if self._is_tty else _PLAIN_EVERY_S):
            self._shown_at = now
            self._show()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def _text(self) -> str:
        count, seconds = self._already + self._done, self.seconds
        rate = self._done / seconds if seconds > 0 else 0.0
        text = f"{self._label}: {count}/{self._total} ({count / max(self._total, 1):.0%})"
        if rate > 0:
            text += f"  {rate:.1f}/s" if rate >= 1 else f"  {1 / rate:.1f} s each"
            text += f"  {duration((self._total - count) / rate)} left"
        return text + (f"  {self._failed} failed" if self._failed else "")

    def _show(self) -> None:
        if self._is_quiet:
            return
        if self._is_tty:
            self._stream.write(f"\r\x1b[2K{self._text()}")
            self._stream.flush()
        else:
            self._line(self._text())

    def _line(self, text: str) -> None:
        if not self._is_quiet:
            print(text, file=self._stream, flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_tty and not self._is_quiet:
            self._stream.write("\r\x1b[2K")
        if kind is None:
            failed = f", {self._failed} failed" if self._failed else ""
            self._line(f"{self._label}: {self._done} done in {duration(self.seconds)}{failed}")
