"""Which job may start, what became of it, and what follows from that; the folder's lock is held by the caller."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from evals.errors import StoreError
from evals.provenance import now
from evals.sweeps import folder as files
from evals.sweeps.api import Executor, Job
from evals.sweeps.folder import SweepFolder
from evals.sweeps.plan import SweepPlan
from evals.sweeps.records import State
from evals.sweeps.watch import Watch

log = logging.getLogger("evals")

MAX_ATTEMPTS = 3  # of a job whose process dies without a word, in one start of the sweep
_LOOK_EVERY_S = 0.1


@dataclass
class Node:
    """A job to be done: a shared stage, or a point with the shared stages it waits for."""

    id: str
    folder: Path
    is_point: bool
    needs: tuple[str, ...] = ()
    job: Job | None = None
    status: str = "waiting"  # waiting | running | done | failed
    error: str | None = None
    losses: int = 0


@dataclass
class Scheduler:
    plan: SweepPlan
    folder: SweepFolder
    nodes: dict[str, Node]
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
            if files.is_complete(node.folder):
                node.status = "done"
                continue
            node.job = self.workers.attach(node.folder)
            if node.job is not None:
                node.status = "running"
            elif state.status != "pending":
                # Its error stays: the job then tries failed outputs again.
                files.write_state(node.folder, replace(state, status="pending", is_fatal=False, pid=None))

    def _running(self) -> list[Node]:
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

    def _is_ready(self, node: Node) -> bool:
        return all(self.nodes[i].status == "done" for i in node.needs)

    def _lost_need(self, node: Node) -> Node | None:
        return next((self.nodes[i] for i in node.needs if self.nodes[i].status == "failed"), None)

    def _poll(self, node: Node) -> bool:
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

    def _lost(self, node: Node, state: State) -> None:
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

    def _fail(self, node: Node, error: str, has_run: bool = True) -> None:
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

    def _ended(self, node: Node) -> None:
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
