"""``local``: a pool on this machine. Cores, GPUs and memory are counted; a job sees the GPUs it was given.

Jobs without GPUs come from keepers that stay and have imported what all of them need (`warm`), one for each job that
runs at once; others get a keeper each.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from evals.errors import ConfigError
from evals.processes import kill_marked
from evals.sweeps.api import JobStatus, Resources
from evals.sweeps.executors import machine
from evals.sweeps.executors.base import ExecutorError, status_of
from evals.sweeps.executors.files import (
    Ended,
    Order,
    log_path,
    read_ended,
    read_handle,
    write_handle,
    write_order,
)
from evals.sweeps.executors.keeper import Handle, Single, start
from evals.sweeps.executors.settings import LocalSettings
from evals.sweeps.executors.warm import IS_POSSIBLE, WarmKeeper

_KEEPER_S = 5.0  # what a keeper may take beyond the grace of its job


class LocalPool:
    """Starts each job at once, as long as there is room; ends them all when it is closed, or dies."""

    name = "local"

    def __init__(
        self, settings: LocalSettings, max_parallel: int | None = None, imports: Sequence[str] = ()
    ) -> None:
        """``imports``: modules that every job needs. Raises: ConfigError if a job asks for more than the pool has."""
        self._settings, self._imports = settings, tuple(imports)
        self._warm: list[WarmKeeper] = []
        self._gpus = machine.gpus()[: settings.total_gpus]
        if len(self._gpus) < (settings.total_gpus or 0):
            raise ConfigError(
                f"executor.total_gpus = {settings.total_gpus}, this machine shows {len(self._gpus)}: "
                "lower it, or look at CUDA_VISIBLE_DEVICES and nvidia-smi"
            )
        self.capacity: Resources | None = Resources(
            settings.total_cores or machine.cores(),
            len(self._gpus),
            settings.total_memory_gb or machine.memory_gb(),
        )
        self.per_job = self._defaults(max_parallel)
        self._check_possible(self.per_job)
        self._jobs: list[LocalJob] = []

    def _defaults(self, max_parallel: int | None) -> Resources:
        """One GPU each where there are some; the cores are divided among the jobs that run at once."""
        assert self.capacity is not None
        gpus = self._settings.gpus
        if gpus is None:
            gpus = 1 if self.capacity.gpus else 0
        by_gpu = self.capacity.gpus // gpus if gpus else None
        parallel = min((n for n in (max_parallel, by_gpu) if n), default=1)
        cores = self._settings.cores or max(1, self.capacity.cores // parallel)
        return Resources(cores, gpus, self._settings.memory_gb)

    def _check_possible(self, wanted: Resources) -> None:
        assert self.capacity is not None
        for what, one, all_ in (
            ("cores", wanted.cores, self.capacity.cores),
            ("GPUs", wanted.gpus, self.capacity.gpus),
            ("GB of memory", wanted.memory_gb, self.capacity.memory_gb),
        ):
            if one is not None and all_ is not None and one > all_:
                raise ConfigError(
                    f"a job asks for {one:g} {what}, the pool has {all_:g}: ask for less, or use another executor"
                )

    def has_room(self, resources: Resources) -> bool:
        """Whether a job with these needs can start right now."""
        assert self.capacity is not None
        running = [job.resources for job in self._running()]
        memory = sum(r.memory_gb or 0 for r in running) + (resources.memory_gb or 0)
        return (
            sum(r.cores for r in running) + resources.cores <= self.capacity.cores
            and sum(r.gpus for r in running) + resources.gpus <= self.capacity.gpus
            and (self.capacity.memory_gb is None or memory <= self.capacity.memory_gb)
        )

    def submit(self, folder: Path, resources: Resources) -> LocalJob:
        self._check_possible(resources)
        if not self.has_room(resources):
            raise ExecutorError(f"no room for {folder.name}: {resources} beside what is running")
        taken = {gpu for job in self._running() for gpu in job.gpus}
        gpus = tuple(gpu for gpu in self._gpus if gpu not in taken)[: resources.gpus]
        env = {
            **machine.thread_variables(resources.cores),
            "CUDA_VISIBLE_DEVICES": ",".join(gpus),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as nvidia-smi counts
        }
        order = write_order(folder, env, self.name, self._settings.grace_s)
        try:
            keeper = self._keeper(folder, env, resources)
        except OSError as error:
            raise ExecutorError(f"no process can be started for {folder.name}: {error}") from None
        write_handle(folder, order, str(keeper.pid))
        job = LocalJob(folder, order, keeper, resources, gpus)
        self._jobs.append(job)
        return job

    def _keeper(self, folder: Path, env: Mapping[str, str], resources: Resources) -> Handle:
        if not self._imports or not IS_POSSIBLE or resources.gpus:
            return Single(start(folder))
        busy = [job.keeper for job in self._jobs]
        self._warm = [k for k in self._warm if k.is_alive]
        found = next((k for k in self._warm if k not in busy and k.env == env), None)
        if found is None:
            found = WarmKeeper(self._imports, env, log_path(folder))
            self._warm.append(found)
        # One that has just died is lost with its job, which is started again.
        with contextlib.suppress(BrokenPipeError):
            found.give(folder)
        return found

    def submit_all(self, folders: Sequence[Path], resources: Resources) -> list[LocalJob]:
        return [self.submit(folder, resources) for folder in folders]

    def attach(self, folder: Path) -> None:
        """Jobs die with the pool. One that is still on its way out is ended here, so that nobody else writes."""
        handle = read_handle(folder)
        if handle is not None and handle.host == os.uname().nodename:
            kill_marked(handle.token)

    def _running(self) -> list[LocalJob]:
        self._jobs = [job for job in self._jobs if job.poll() == "running"]
        return self._jobs

    def close(self) -> None:
        """End what still runs, all at the same time."""
        jobs = self._running()
        for job in jobs:
            job.signal()
        for job in jobs:
            job.cancel()
        for keeper in self._warm:
            keeper.close()
        self._jobs, self._warm = [], []

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LocalJob:
    """A keeper of this process. ``gpus``: ids it was given. ``reason``: why it was lost, one line."""

    is_waiting = False

    def __init__(
        self,
        folder: Path,
        order: Order,
        keeper: Handle,
        resources: Resources,
        gpus: tuple[str, ...],
    ) -> None:
        self.folder, self.resources, self.gpus = folder, resources, gpus
        self.log: Path | None = log_path(folder)
        self.reason: str | None = None
        self._order, self.keeper = order, keeper
        self._status: JobStatus = "running"

    @property
    def pid(self) -> int:
        """Of the keeper."""
        return self.keeper.pid

    def poll(self) -> JobStatus:
        if self._status == "running" and (code := self.keeper.poll()) is not None:
            self.keeper.release()
            if code < 0:  # the keeper was killed, and could not clear up behind its job
                kill_marked(self._order.token)
            # The disk may have been too full for the keeper to write the end; its own exit code says the same.
            ended = read_ended(self.folder, self._order.token) or Ended.of(self._order.token, code)
            self._status, self.reason = status_of(self.folder, ended)
        return self._status

    def signal(self) -> None:
        """Ask the keeper to end the job; returns at once."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.keeper.pid, signal.SIGTERM)

    def cancel(self) -> None:
        if self.poll() != "running":
            return
        self.signal()
        until = time.monotonic() + self._order.grace_s + _KEEPER_S
        while self.poll() == "running":
            if time.monotonic() > until:
                self.keeper.kill()
                self.keeper.wait()
            time.sleep(0.02)
