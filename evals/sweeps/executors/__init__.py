"""Where the jobs of a sweep run: ``local`` (a pool on this machine), ``slurm`` (through submitit), ``ray``.

A job is a command with a folder (``evals.sweeps.point``), and the process around it is the same everywhere
(``keeper``), so one sweep file runs on all three. What the packages of an extra bring is imported when its executor is
opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evals.sweeps.api import Executor

NAMES = ("local", "slurm", "ray")


def open_executor(
    name: str,
    root: Path,
    settings: Mapping[str, Any] | None = None,
    max_parallel: int | None = None,
    imports: Sequence[str] = (),
) -> Executor:
    """An executor for the sweep folder ``root``; use it as a context manager.

    Args: settings: as in ``evals.sweeps.executors.settings``. max_parallel: jobs at a time, for the defaults of one
    job; the scheduler keeps to it. imports: modules that the jobs need, for an executor that can import them once.
    Raises: UnknownNameError, ConfigError for settings, MissingRequirementError without the package, ExecutorError if
    there is no cluster.
    """
    from evals.errors import unknown_name
    from evals.sweeps.executors import settings as kinds

    given = dict(settings or {})
    if name == "local":
        from evals.sweeps.executors.local import LocalPool

        return LocalPool(kinds.parse(kinds.LocalSettings, name, given), max_parallel, imports)
    if name == "slurm":
        from evals.sweeps.executors.slurm import SlurmQueue

        return SlurmQueue(kinds.parse(kinds.SlurmSettings, name, given), root, max_parallel)
    if name == "ray":
        from evals.sweeps.executors.ray import RayTasks

        return RayTasks(kinds.parse(kinds.RaySettings, name, given), max_parallel)
    raise unknown_name("executor", name, NAMES)
