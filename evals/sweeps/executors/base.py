"""What the executors share: what a scheduler may ask of them, and what became of one that has ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from evals.errors import EvalError
from evals.sweeps.api import Executor, Job, JobStatus, Resources
from evals.sweeps.executors.files import Ended
from evals.sweeps.folder import verdict


class ExecutorError(EvalError):
    """No job can be started: no process, no room, a queue that refuses."""


class SweepJob(Job, Protocol):
    """A job with what the scheduler shows of it.

    ``reason``: one line on why it was lost. ``is_waiting``: handed over, and not started yet.
    """

    reason: str | None

    @property
    def is_waiting(self) -> bool: ...


class SweepExecutor(Executor, Protocol):
    """An executor with what makes it a pool or a queue. A context manager: at its end nothing of it runs.

    ``per_job``: what a job takes unless the sweep says otherwise.
    """

    per_job: Resources

    def has_room(self, resources: Resources) -> bool:
        """Whether a job can be handed over now; a queue always has room."""

    def submit_all(self, folders: Sequence[Path], resources: Resources) -> list[SweepJob]:
        """Hand over several jobs with the same needs; one job array where there is such a thing."""

    def attach(self, folder: Path) -> SweepJob | None:
        """The job of an earlier process for this folder, if it is still queued or running."""

    def __enter__(self) -> SweepExecutor: ...

    def __exit__(self, *_: object) -> None: ...


def status_of(folder: Path, ended: Ended) -> tuple[JobStatus, str | None]:
    """Verdict of a job whose process has ended: its own word in ``state.json``, else lost, and why."""
    said = verdict(folder)
    return (said, None) if said in ("done", "failed") else ("lost", str(ended))
