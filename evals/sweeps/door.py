"""A whole sweep in one call: ``evals.sweeps.sweep``; ``blip3o-eval sweep run`` calls the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.sweeps.finish import finish, tracker
from evals.sweeps.plan import SweepPlan, check_executor, executor_of, plan_sweep
from evals.sweeps.results import SweepTable
from evals.sweeps.runner import SweepRun, default_folder, run_sweep


@dataclass(frozen=True)
class Sweep:
    """A sweep as far as it got. ``problem``: None, or which points failed and why."""

    run: SweepRun
    table: SweepTable
    page: Path | None

    @property
    def problem(self) -> str | None:
        return self.run.problem


def sweep(
    definition: str | Path | SweepPlan,
    output: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    executor: str | None = None,
    executor_settings: Mapping[str, Any] | None = None,
    max_parallel: int | None = None,
    only: Sequence[str] = (),
    tracking: Mapping[str, Any] | None = None,
    report: bool = True,
    quiet: bool = False,
) -> Sweep:
    """Run what is missing of a sweep, write its table and page, log it, and return it.

    Args: definition: a sweep file, the name of one that ships, or a plan. output: its folder, default
    ``runs/sweep-<name>-<digest>``. overrides: keys of the file, ``base.train.steps=100``. executor: local, slurm or ray
    instead of the file's, with settings of its own. only: points as ``axis=value`` pairs or patterns of ids. tracking:
    enabled, experiment, tracking_uri and tags, as of a run.
    Raises: as ``evals.sweeps.plan.plan`` and ``evals.sweeps.runner.run_sweep``; a failed point raises nothing.
    """
    plan = definition if isinstance(definition, SweepPlan) else plan_sweep(definition, overrides)
    root = Path(output) if output is not None else default_folder(plan)
    parallel = max_parallel or plan.config.max_parallel
    name, settings = _executor_of(plan, executor, executor_settings or {})
    track = tracker(plan.config, tracking or {}, root)

    def opened(root: Path) -> Any:
        from evals.sweeps.executors import open_executor
        from evals.sweeps.imports import imports_of

        return open_executor(name, root, settings, parallel, imports_of(plan))

    run = run_sweep(
        plan,
        root,
        opened,
        max_parallel=parallel,
        only=only,
        is_quiet=quiet,
        on_point=lambda folder: track.changed() if track is not None else None,
    )
    return Sweep(run, *finish(run.folder, has_report=report, track=track))


def _executor_of(
    plan: SweepPlan, name: str | None, settings: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The file's executor with these settings in place of its own; another one than the file's starts from none.

    Raises: UnknownNameError and ConfigError, with suggestions.
    """
    own, known = executor_of(plan.config)
    if name is not None and name != own:
        own, known = name, {}
    found = {**known, **settings}
    check_executor(own, found)
    return own, found
