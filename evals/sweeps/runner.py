"""Starting a sweep: its folder, its lock, its jobs, and what came of them.

Shared stages first, each once, then the points that need them. One process schedules a sweep at a time (a kernel lock
on the folder). What is done stays done: the same command starts only what is missing, and jobs resume inside.
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.errors import ConfigMismatchError, EvalError, UsageError, shown, suggest
from evals.io.files import json_problem, write_json, writing
from evals.io.locks import FileLock
from evals.provenance import now
from evals.sweeps import folder as files
from evals.sweeps.api import Executor
from evals.sweeps.folder import SCHEMA_VERSION, SweepFolder
from evals.sweeps.plan import SweepPlan, differing_keys
from evals.sweeps.scheduler import Node, Scheduler
from evals.sweeps.watch import Watch

log = logging.getLogger("evals")

DEFAULT_ROOT = Path("runs")


@dataclass(frozen=True)
class SweepRun:
    """What came of a start: ids of points by status, and all that went wrong in a line each."""

    folder: SweepFolder
    done: tuple[str, ...]
    failed: Mapping[str, str]
    pending: tuple[str, ...]

    @property
    def problem(self) -> str | None:
        if not self.failed:
            return None
        lines = [f"{point}: {error}" for point, error in self.failed.items()]
        more = f"\n  and {len(lines) - 5} more" if len(lines) > 5 else ""
        more += f"\n{len(self.pending)} points were not run" if self.pending else ""
        return (
            f"{len(lines)} of {len(self.folder.point_ids())} points failed (the same command tries them again):\n  "
            + "\n  ".join(lines[:5]) + more
        )  # fmt: skip


def default_folder(plan: SweepPlan) -> Path:
    """``runs/sweep-<name>-<first 8 of the digest>``: the same definition resumes."""
    return DEFAULT_ROOT / f"sweep-{plan.config.name}-{plan.digest[:8]}"


def run_sweep(
    plan: SweepPlan,
    root: Path,
    executor: Callable[[Path], Executor],
    *,
    max_parallel: int | None = None,
    only: Sequence[str] = (),
    is_quiet: bool = False,
    on_point: Callable[[SweepFolder], object] = lambda folder: None,
) -> SweepRun:
    """Run what is missing of a sweep and return what there is.

    Args: executor: opens one for the sweep's folder. max_parallel: jobs at once, None for as many as the executor
    has room for. only: patterns of point ids, or ``axis=value`` pairs with commas between; the rest stays as it is.
    on_point: called after each point that ended, with the folder.
    Raises: UsageError, ConfigMismatchError and LockedError before anything is started; StoreError on a full disk;
    EvalError when interrupted. Whatever is raised, everything done so far is kept.
    """
    chosen = select(plan, only)
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
    _refuse_strangers(root)  # before there is a lock in somebody else's folder
    with FileLock(root / files.LOCK).acquire(what="sweep"):
        folder = open_folder(plan, root)
        nodes = _nodes(plan, folder, chosen)
        with (
            executor(root) as workers,
            Watch(plan, folder, chosen, is_quiet=is_quiet) as watch,
        ):
            scheduler = Scheduler(plan, folder, nodes, workers, max_parallel, watch, on_point)
            try:
                scheduler.run()
            except BaseException as error:
                workers.close()
                scheduler.put_back()
                if isinstance(error, KeyboardInterrupt):
                    raise EvalError("interrupted; the same command goes on from here") from None
                raise
        return outcome(folder, chosen)


def outcome(folder: SweepFolder, chosen: Sequence[str] | None = None) -> SweepRun:
    """What the states on disk say."""
    ids = folder.point_ids()
    states = {i: folder.state(i) for i in ids}
    done = tuple(i for i in ids if states[i].status == "done")
    failed = {
        i: states[i].error or "no reason is known"
        for i in (ids if chosen is None else chosen)
        if states[i].status == "failed"
    }
    return SweepRun(folder, done, failed, tuple(i for i in ids if i not in done and i not in failed))


def select(plan: SweepPlan, only: Sequence[str]) -> list[str]:
    """Ids of the points that patterns mean; all without any. Raises: UsageError for one that fits none."""
    ids = [point.id for point in plan.points]
    if not only:
        return ids
    chosen: set[str] = set()
    for pattern in only:
        wanted = set(pattern.split(","))
        found = {i for i in ids if wanted <= set(i.split(",")) or fnmatch.fnmatchcase(i, pattern)}
        if not found:
            parts = dict.fromkeys(part for i in ids for part in i.split(","))
            raise UsageError(f"--only {shown(pattern)} fits no point.{suggest(pattern, [*parts, *ids])}")
        chosen |= found
    return [i for i in ids if i in chosen]


# -- the folder -----------------------------------------------------------------------------------


def open_folder(plan: SweepPlan, root: Path) -> SweepFolder:
    """Write the definition and every point's, or check them against those that are there.

    Raises: ConfigMismatchError naming the keys that differ; UsageError for a folder that holds other things.
    """
    folder = SweepFolder(root)
    if folder.exists:
        problem = json_problem(root / files.SWEEP)
        lines = _differing_points(plan, folder) if problem else differing_keys(folder.sweep(), plan)
        if lines:
            raise ConfigMismatchError(
                f"{root} holds another sweep ({'; '.join(lines)}): give another --output, or take the changes back"
            )
        if problem:
            log.warning("%s is %s: it is written again", root / files.SWEEP, problem)
            write_json(root / files.SWEEP, _sweep_json(plan))
    else:
        _refuse_strangers(root)
        write_json(root / files.SWEEP, _sweep_json(plan))
    for stage in plan.stages.values():
        path = folder.stage_folder(stage.spec.id)
        if json_problem(path / files.STAGE) is not None:
            with writing(path):
                path.mkdir(parents=True, exist_ok=True)
            files.write_stage(path, stage.spec)
    for point in plan.points:
        path = folder.point_folder(point.id)
        if json_problem(path / files.POINT) is not None:
            with writing(path):
                path.mkdir(parents=True, exist_ok=True)
            files.write_point(path, point)
    return folder


def _refuse_strangers(root: Path) -> None:
    """Raises: UsageError for a folder that holds something and is no sweep's."""
    strangers = sorted(p.name for p in root.iterdir() if p.name != files.LOCK and not p.name.startswith("."))
    if strangers and not SweepFolder(root).exists:
        raise UsageError(
            f"{root} is not empty and is no sweep folder (it holds {strangers[0]!r}): give another --output"
        )


def _differing_points(plan: SweepPlan, folder: SweepFolder) -> list[str]:
    """Points of a folder, whose ``sweep.json`` cannot be read, that the plan does not have like this."""
    wanted = {point.id: point.digest for point in plan.points}
    lines = []
    for path in sorted(folder.points_root.glob(f"*/{files.POINT}")):
        if json_problem(path) is None and wanted.get(path.parent.name) != files.read_point(path.parent).digest:
            lines.append(f"{files.SWEEP} is damaged, and point {path.parent.name} is not planned like this")
    return lines[:3]


def _sweep_json(plan: SweepPlan) -> dict[str, Any]:
    from evals.provenance import git_state, versions

    return {
        "schema": SCHEMA_VERSION,
        "name": plan.config.name,
        "description": plan.config.description,
        "definition": plan.definition,
        "digest": plan.digest,
        "axes": {label: list(values) for label, values in plan.grid.axes.items()},
        "keys": dict(plan.grid.keys),
        "points": [point.id for point in plan.points],
        "stages": {i: list(stage.users) for i, stage in plan.stages.items()},
        "left_out": dict(plan.left_out),
        "cells": plan.cells,
        "baseline": plan.grid.baseline,
        "metrics": list(plan.metrics),
        "tasks": {name: dict(task) for name, task in plan.tasks.items()},
        "created": now(),
        "versions": versions(),
        "git": git_state(),
    }


def _nodes(plan: SweepPlan, folder: SweepFolder, chosen: Sequence[str]) -> dict[str, Node]:
    """Shared stages that the chosen points need, parents first, then these points."""
    points = [p for p in plan.points if p.id in set(chosen)]
    needed = {stage for point in points for stage in point.stages}
    shared = [i for i, stage in plan.stages.items() if stage.is_shared and i in needed]
    nodes = {}
    for i in shared:
        parents = tuple(p for p in plan.stages[i].spec.parents if p in shared)
        nodes[i] = Node(i, folder.stage_folder(i), False, parents)
    for point in points:
        needs = tuple(i for i in point.stages if i in shared)
        nodes[point.id] = Node(point.id, folder.point_folder(point.id), True, needs)
    return nodes
