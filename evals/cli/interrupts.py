"""Ctrl-C and SIGTERM while a run goes on: one line, and an exit code that tells them apart."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from evals.errors import EvalError

TERMINATED = 128 + signal.SIGTERM  # what a shell makes of a program that SIGTERM has ended


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Around what the same command goes on with. Raises EvalError: exit code 1 for Ctrl-C, 143 for SIGTERM."""
    received = []

    def stop(number: int, _: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt

    is_ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if is_ours:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        error = EvalError("interrupted; the same command goes on from here")
        if received:
            error.exit_code = TERMINATED
        raise error from None
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
