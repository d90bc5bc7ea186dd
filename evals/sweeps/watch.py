"""Progress of a sweep on stderr: a line per job that ended, and now and then what runs and how long it will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from evals.phases.progress import duration
from evals.sweeps import folder as files
from evals.sweeps.api import Job
from evals.sweeps.folder import SweepFolder
from evals.sweeps.plan import SweepPlan

_TTY_EVERY_S, _PLAIN_EVERY_S = 1.0, 30.0
_SHOWN_JOBS = 3


class Watch:
    """Work is weighed by the plan's estimates; the time left follows from how fast this start gets through it."""

    def __init__(
        self,
        plan: SweepPlan,
        folder: SweepFolder,
        chosen: Sequence[str],
        *,
        is_quiet: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self._plan, self._folder, self._is_quiet = plan, folder, is_quiet
        self._stream = stream or sys.stderr
        self._is_tty = self._stream.isatty()
        self._points = list(chosen)
        self._weights = _weights(plan, set(chosen))
        self._began = self._shown_at = time.monotonic()
        self._ended: set[str] = {i for i in self._weights if self._is_done(i)}
        self._failed: set[str] = set()
        self._last_text = ""
        self._already = self._last_work = self._work({})
        self._last_at = self._began

    def _is_done(self, node: str) -> bool:
        is_stage = node in self._plan.stages
        return files.is_complete(
            self._folder.stage_folder(node) if is_stage else self._folder.point_folder(node)
        )

    def __enter__(self) -> Watch:
        there = sum(i in self._ended for i in self._points)
        text = f"sweep {self._plan.config.name}: {len(self._points)} points"
        self._line(text + (f", {there} are there, resuming" if there else ""))
        for note in self._plan.notes:
            self._line(f"note: {note}")
        return self

    def ended(self, node: str, is_point: bool, error: str | None) -> None:
        """Say how a job ended."""
        self._ended.add(node)
        if error is not None and is_point:
            self._failed.add(node)
        done = sum(i in self._ended for i in self._points)
        what = f"[{done}/{len(self._points)}] {node}" if is_point else f"stage {node}"
        took = duration(files.read_state(
            self._folder.point_folder(node) if is_point else self._folder.stage_folder(node)
        ).seconds)  # fmt: skip
        left = self._left({})
        self._line(f"{what}: failed: {error}" if error is not None else f"{what}: done in {took}{left}")

    def tick(self, running: Mapping[str, Job | None]) -> None:
        """Show where the running jobs are; every second on a terminal, else every half minute."""
        now = time.monotonic()
        if self._is_quiet or now - self._shown_at < (_TTY_EVERY_S if self._is_tty else _PLAIN_EVERY_S):
            return
        self._shown_at = now
        text, before = self._text(running), self._last_text
        self._last_text = text
        if self._is_tty:
            self._stream.write(f"\r\x1b[2K{text[:200]}")
            self._stream.flush()
        elif text != before:  # a log says a thing once
            self._line(text)

    def _text(self, running: Mapping[str, Job | None]) -> str:
        shares, doing = {}, []
        for node, job in running.items():
            is_stage = node in self._plan.stages
            state = self._folder.stage_state(node) if is_stage else self._folder.state(node)
            shares[node] = state.progress if state.status == "running" else 0.0
            is_waiting = job is not None and job.is_waiting
            doing.append(f"{node} ({'queued' if is_waiting else state.doing or 'starts'})")
        done = sum(i in self._ended for i in self._points)
        text = f"sweep {self._plan.config.name}: {done}/{len(self._points)}"
        text += f", {len(self._failed)} failed" if self._failed else ""
        more = f" and {len(doing) - _SHOWN_JOBS} more" if len(doing) > _SHOWN_JOBS else ""
        return f"{text}{self._left(shares)}; {', '.join(doing[:_SHOWN_JOBS])}{more}"

    def _work(self, shares: Mapping[str, float]) -> float:
        """Share of all work that is done, 0 to 1."""
        total = sum(self._weights.values())
        done = sum(w * (1.0 if i in self._ended else shares.get(i, 0.0)) for i, w in self._weights.items())
        return done / total if total else 1.0

    def _left(self, shares: Mapping[str, float]) -> str:
        """From the speed up to the last moment at which the work went on: between two there is no news."""
        work, now = self._work(shares), time.monotonic()
        if work != self._last_work:
            self._last_work, self._last_at = work, now
        made = work - self._already
        if made <= 0 or work >= 1:
            return ""
        seconds = (self._last_at - self._began) * (1 - work) / made - (now - self._last_at)
        return f", about {duration(seconds)} left" if seconds > 0 else ", longer than it seemed"

    def _line(self, text: str) -> None:
        if not self._is_quiet:
            if self._is_tty:
                self._stream.write("\r\x1b[2K")
            print(text, file=self._stream, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._is_tty and not self._is_quiet:
            self._stream.write("\r\x1b[2K")


def _weights(plan: SweepPlan, chosen: set[str]) -> dict[str, float]:
    """Job -> its estimated seconds; a shared stage is a job of its own."""
    weights: dict[str, float] = {}
    for point in plan.points:
        if point.id in chosen:
            own = [i for i in point.stages if not plan.stages[i].is_shared]
            seconds = sum(plan.stages[i].spec.estimate.seconds for i in own)
            weights[point.id] = seconds + plan.workloads[point.id].seconds + 1.0
            for i in point.stages:
                if i not in own:
                    weights[i] = plan.stages[i].spec.estimate.seconds + 1.0
    return weights
