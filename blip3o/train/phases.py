"""Where the time of a step goes: seconds by named phase."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar

import torch

_current: ContextVar[PhaseTimes | None] = ContextVar("phase_times", default=None)


class PhaseTimes:
    """Collects the seconds of :func:`phase` blocks entered while it is active.

    A phase inside another counts in both. On a GPU work is queued; ``synchronize`` waits for it at both ends of every
    phase, which costs some speed and makes the figures true.
    """

    def __init__(self, synchronize: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        self.synchronize = synchronize and torch.cuda.is_available()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def take(self) -> dict[str, float]:
        """Seconds so far, keyed ``seconds_<phase>``; counting starts anew."""
        taken = {f"seconds_{name}": value for name, value in self.seconds.items()}
        self.seconds = {}
        return taken

    def now(self) -> float:
        if self.synchronize:
            torch.cuda.synchronize()
        return time.perf_counter()


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Seconds of this block go to the active :class:`PhaseTimes`, if there is one."""
    times = _current.get()
    if times is None:
        yield
        return
    start = times.now()
    try:
        yield
    finally:
        times.seconds[name] = times.seconds.get(name, 0.0) + times.now() - start
