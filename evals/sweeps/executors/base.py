"""What the executors share: their error, and what became of a job that has ended."""

from __future__ import annotations

from pathlib import Path

from evals.errors import EvalError
from evals.sweeps.api import JobStatus
from evals.sweeps.executors.files import Ended
from evals.sweeps.folder import verdict


class ExecutorError(EvalError):
    """No job can be started: no process, no room, a queue that refuses."""


def status_of(folder: Path, ended: Ended) -> tuple[JobStatus, str | None]:
    """Verdict of a job whose process has ended: its own word in ``state.json``, else lost, and why."""
    said = verdict(folder)
    return (said, None) if said in ("done", "failed") else ("lost", str(ended))
