"""The scheduler: which job may start, what became of it, and what follows from that.

Shared stages first, each once, then the points that need them. One process schedules a sweep at a time (a kernel lock
on the folder). What is done stays done: the same command starts only what is missing, and jobs resume inside.
"""

from __future__ import annotations

import fnmatch
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evals.errors import ConfigMismatchError, EvalError, StoreError, UsageError, shown, suggest
from evals.io.files import write_json, writing
from evals.io.locks import FileLock
from evals.provenance import now
from evals.sweeps import folder as files
from evals.sweeps.api import Executor, Job
from evals.sweeps.folder import SCHEMA_VERSION, State, SweepFolder
from evals.sweeps.plan import SweepPlan, differing_keys
from evals.sweeps.watch import Watch

log = logging.getLogger("evals")

DEFAULT_ROOT = Path("runs")
MAX_ATTEMPTS = 3  # of a job whose process dies without a word, in one start of the sweep
_LOOK_EVERY_S = 0.1


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
        return (
            f"{len(lines)} of {len(self.folder.point_ids())} points failed (the same command tries them again):\n  "
            + "\n  ".join(lines[:5]) + more
        )  # fmt: skip


@dataclass
class _Node:
    """A job to be done: a shared stage, or a point with the shared stages it waits for."""

    id: str
    folder: Path
    is_point: bool
    needs: tuple[str, ...] = ()
    job: Job | None = None
    status: str = "waiting"  # waiting | running | done | failed
    error: str | None = None
    losses: int = 0


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
    with FileLock(root / files.LOCK).acquire(what="sweep"):
        folder = open_folder(plan, root)
        nodes = _nodes(plan, folder, chosen)
        with (
            executor(root) as workers,
            Watch(plan, folder, chosen, is_quiet=is_quiet) as watch,
        ):
            scheduler = _Scheduler(plan, folder, nodes, workers, max_parallel, watch, on_point)
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
        recorded = folder.sweep()
        lines = differing_keys(recorded, plan)
        if lines:
            raise ConfigMismatchError(
                f"{root} holds another sweep ({'; '.join(lines)}): give another --output, or take the changes back"
            )
    else:
        strangers = sorted(p.name for p in root.iterdir() if p.name != files.LOCK and not p.name.startswith("."))
        if strangers:
            raise UsageError(
                f"{root} is not empty and is no sweep folder (it holds {strangers[0]!r}): give another --output"
            )
        write_json(root / files.SWEEP, _sweep_json(plan))
    for stage in plan.stages.values():
        path = folder.stage_folder(stage.spec.id)
        if not (path / files.STAGE).exists():
            with writing(path):
                path.mkdir(parents=True, exist_ok=True)
            files.write_stage(path, stage.spec)
    for point in plan.points:
        path = folder.point_folder(point.id)
        if not (path / files.POINT).exists():
            with writing(path):
                path.mkdir(parents=True, exist_ok=True)
            files.write_point(path, point)
    return folder


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


def _nodes(plan: SweepPlan, folder: SweepFolder, chosen: Sequence[str]) -> dict[str, _Node]:
    """Shared stages that the chosen points need, parents first, then these points."""
    points = [p for p in plan.points if p.id in set(chosen)]
    needed = {stage for point in points for stage in point.stages}
    shared = [i for i, stage in plan.stages.items() if stage.is_shared and i in needed]
    nodes = {}
    for i in shared:
        parents = tuple(p for p in plan.stages[i].spec.parents if p in shared)
        nodes[i] = _Node(i, folder.stage_folder(i), False, parents)
    for point in points:
        needs = tuple(i for i in point.stages if i in shared)
        nodes[point.id] = _Node(point.id, folder.point_folder(point.id), True, needs)
    return nodes


# -- scheduling -----------------------------------------------------------------------------------


@dataclass
class _Scheduler:
    plan: SweepPlan
    folder: SweepFolder
    nodes: dict[str, _Node]
    workers: Executor
    max_parallel: int | None
    watch: Watch
    on_point: Callable[[SweepFolder], object]
    is_stopping: bool = field(default=False)

    def run(self) -> None:
        self._look_around()
        self._clear_checkpoints()
        while True:
            self._submit_ready()
            running = self._running()
            if not running:
                break
            if not any([self._poll(node) for node in running]):
                time.sleep(_LOOK_EVERY_S)
            self.watch.tick({node.id: node.job for node in running})

    def put_back(self) -> None:
        """What was running is pending again: nobody works on it any more."""
        for node in self._running():
            state = files.read_state(node.folder)
            if not state.has_ended:
                files.write_state(node.folder, replace(state, status="pending", pid=None, doing=None))

    def _look_around(self) -> None:
        """What is done already, and jobs that an earlier process left in a queue."""
        for node in self.nodes.values():
            state = files.read_state(node.folder)
            if (node.folder / files.RESULT).exists() and (state.status == "done" or not node.is_point):
                node.status = "done"
                continue
            node.job = self.workers.attach(node.folder)
            if node.job is not None:
                node.status = "running"
            elif state.status != "pending":
                # Its error stays: the job then tries failed outputs again.
                files.write_state(node.folder, replace(state, status="pending", is_fatal=False, pid=None))

    def _running(self) -> list[_Node]:
        return [node for node in self.nodes.values() if node.status == "running"]

    def _submit_ready(self) -> None:
        for node in self.nodes.values():
            if node.status == "waiting" and (lost := self._lost_need(node)) is not None:
                self._fail(node, f"its stage {lost.id} failed: {lost.error}", has_run=False)
        while not self.is_stopping:
            ready = [n for n in self.nodes.values() if n.status == "waiting" and self._is_ready(n)]
            limit = len(ready)
            if self.max_parallel is not None:
                limit = min(limit, self.max_parallel - len(self._running()))
            if self.workers.capacity is not None:
                limit = min(limit, 1)  # a pool: one at a time, as long as there is room
            per_job = self.workers.per_job
            if limit < 1 or not self.workers.has_room(per_job):
                return
            if self.plan.config.on_error == "stop" and self._has_unread_end():
                return  # it may be the one after which nothing more is to start
            chosen = ready[:limit]
            jobs = self.workers.submit_all([node.folder for node in chosen], per_job)
            for node, job in zip(chosen, jobs, strict=True):
                node.job, node.status = job, "running"

    def _has_unread_end(self) -> bool:
        return any(n.job is not None and n.job.poll() != "running" for n in self._running())

    def _is_ready(self, node: _Node) -> bool:
        return all(self.nodes[i].status == "done" for i in node.needs)

    def _lost_need(self, node: _Node) -> _Node | None:
        return next((self.nodes[i] for i in node.needs if self.nodes[i].status == "failed"), None)

    def _poll(self, node: _Node) -> bool:
        """Whether the job has ended; what follows from it is done here."""
        assert node.job is not None
        status = node.job.poll()
        if status == "running":
            return False
        state = files.read_state(node.folder)
        if status == "done":
            node.status = "done"
            self._ended(node)
        elif status == "failed":
            if state.is_fatal:
                node.status = "failed"
                raise StoreError(
                    f"{node.id}: {state.error or 'no space left on the device'}; the sweep is stopped, everything "
                    "written so far is kept: free some space and run the same command again"
                )
            self._fail(node, state.error or "no reason is known")
        else:
            self._lost(node, state)
        return True

    def _lost(self, node: _Node, state: State) -> None:
        """Its process is gone and said nothing: killed, out of memory, or the machine went away."""
        assert node.job is not None
        node.losses += 1
        reason = node.job.reason or "its process is gone and left no word"
        if node.losses < MAX_ATTEMPTS:
            log.warning("%s: %s; started again (%d of %d)", node.id, reason, node.losses + 1, MAX_ATTEMPTS)
            files.write_state(node.folder, replace(state, status="pending", pid=None, doing=None))
            node.status, node.job = "waiting", None
            return
        where = f"; see {node.job.log}" if node.job.log is not None else ""
        self._fail(node, f"lost {node.losses} times, the last: {reason}{where}")

    def _fail(self, node: _Node, error: str, has_run: bool = True) -> None:
        node.status, node.error = "failed", error
        state = files.read_state(node.folder)
        if state.status != "failed" or not has_run:
            files.write_state(
                node.folder,
                replace(state, status="failed", error=error, finished=now(), pid=None, doing=None),
            )
        if self.plan.config.on_error == "stop":
            self.is_stopping = True
        self._ended(node)

    def _ended(self, node: _Node) -> None:
        self.watch.ended(node.id, node.is_point, node.error)
        if node.is_point:
            self._clear_checkpoints()
            self.on_point(self.folder)

    def _clear_checkpoints(self) -> None:
        """Remove ``export-step-<n>`` of stages whose points are all done, where the sweep wants that."""
        if self.plan.config.base.evaluate.keep_checkpoints:
            return
        for i, stage in self.plan.stages.items():
            exports = list(self.folder.stage_folder(i).glob("export-step-*")) if stage.spec.export_at else []
            if exports and all(self.folder.state(p).status == "done" for p in stage.users):
                for path in exports:
                    shutil.rmtree(path)
