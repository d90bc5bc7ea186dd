"""``ray``: each job is a task of a Ray cluster, which finds it a node with the cores and GPUs that it needs.

The cluster is one of our own, on this machine, started and ended here, or a running one by its address, which is left
as it was found. A task starts the same keeper as everywhere, and Ray retries nothing: what became of a job is read
from the files in its folder, which all nodes have to see.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evals.errors import ConfigError, MissingRequirementError
from evals.processes import MARK, kill_marked
from evals.sweeps.api import JobStatus, Resources
from evals.sweeps.executors import keeper, machine
from evals.sweeps.executors.base import ExecutorError, status_of
from evals.sweeps.executors.files import (
    Ended,
    Order,
    log_path,
    read_alive,
    read_ended,
    read_handle,
    read_order,
    write_handle,
    write_order,
)
from evals.sweeps.executors.settings import RaySettings

_OBJECT_STORE_BYTES = 80 * 1024**2  # tasks exchange folder names alone; Ray's least is 75 MiB
_CANCEL_S = 10.0
# Ray reads these when it is imported. No word to its makers; no warnings about what it may do one day.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a task without GPUs sees none
    "RAY_DEDUP_LOGS": "0",
}


class RayTasks:
    """Hands jobs to Ray, which queues them until a node has room."""

    name = "ray"
    capacity: Resources | None = None

    def __init__(self, settings: RaySettings, max_parallel: int | None = None) -> None:
        os.environ.update(_ENVIRONMENT)
        try:
            import ray
        except ImportError:
            raise MissingRequirementError(
                "executor 'ray' needs ray: pip install \"blip3o-eval[ray]\""
            ) from None
        if ray.is_initialized():
            raise ExecutorError(
                "executor 'ray': this process is connected to a Ray cluster already; call ray.shutdown() first"
            )
        self._settings, self._ray = settings, ray
        self._token = secrets.token_hex(8)
        self._folder = Path(tempfile.mkdtemp(prefix="ray-")) if settings.address is None else None
        try:
            self._connect()
        except (ConnectionError, OSError, RuntimeError, TimeoutError, ValueError) as error:
            self._disconnect()
            what = f"at {settings.address}" if settings.address else "of our own"
            raise ExecutorError(
                f"executor 'ray': no cluster {what}: {str(error).strip().splitlines()[0]}"
            ) from None
        found = ray.cluster_resources()
        self._total = Resources(
            int(found.get("CPU", 0)), int(found.get("GPU", 0)), found.get("memory", 0) / 1e9 or None
        )
        try:
            self.per_job = self._defaults(max_parallel)
        except ConfigError:
            self._disconnect()
            raise
        self._task = ray.remote(max_retries=0, retry_exceptions=False)(run_keeper)
        self._jobs: list[RayJob] = []

    def _connect(self) -> None:
        ours: dict[str, Any] = {}
        if self._folder is not None:
            gpus = machine.gpus()[: self._settings.total_gpus]
            ours = {
                "num_cpus": self._settings.total_cores or machine.cores(),
                "num_gpus": len(gpus),
                "object_store_memory": _OBJECT_STORE_BYTES,
                "include_dashboard": False,
                "_temp_dir": str(self._folder),
            }
        # Ray tells of its token on stdout, where results belong.
        with contextlib.redirect_stdout(sys.stderr), self._marking():
            self._ray.init(
                address=self._settings.address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                **ours,
            )

    @contextlib.contextmanager
    def _marking(self) -> Iterator[None]:
        """What a cluster of our own starts can be found again: a slow one of Ray's services outlives ``shutdown``."""
        before = os.environ.get(MARK)
        if self._folder is not None:
            os.environ[MARK] = self._token
        try:
            yield
        finally:
            os.environ.pop(MARK, None)
            if before is not None:
                os.environ[MARK] = before

    def _disconnect(self) -> None:
        self._ray.shutdown()
        if self._folder is not None:
            kill_marked(self._token)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _defaults(self, max_parallel: int | None) -> Resources:
        capacity, wanted = self._total, self._settings
        gpus = wanted.gpus if wanted.gpus is not None else min(1, capacity.gpus)
        by_gpu = capacity.gpus // gpus if gpus else None
        parallel = min((n for n in (max_parallel, by_gpu) if n), default=1)
        cores = wanted.cores or max(1, capacity.cores // parallel)
        for what, one, all_ in (("cores", cores, capacity.cores), ("GPUs", gpus, capacity.gpus)):
            if one > all_:  # Ray itself would wait for such a node for ever
                raise ConfigError(
                    f"a job asks for {one} {what}, the Ray cluster has {all_}: ask for less"
                )
        return Resources(cores, gpus, wanted.memory_gb)

    def has_room(self, resources: Resources) -> bool:
        return True

    def submit(self, folder: Path, resources: Resources) -> RayJob:
        env = machine.thread_variables(resources.cores)
        order = write_order(folder, env, self.name, self._settings.grace_s)
        options: dict[str, Any] = {"num_cpus": resources.cores, "num_gpus": resources.gpus}
        if resources.memory_gb:
            options["memory"] = int(resources.memory_gb * 1e9)
        task = self._task.options(name=folder.name, **options).remote(str(folder.absolute()))
        write_handle(folder, order, task.task_id().hex())
        job = RayJob(folder, order, task, self._ray)
        self._jobs.append(job)
        return job

    def submit_all(self, folders: Sequence[Path], resources: Resources) -> list[RayJob]:
        return [self.submit(folder, resources) for folder in folders]

    def attach(self, folder: Path) -> None:
        """Tasks die with the process that handed them over; one on its way out here is ended for good."""
        handle = read_handle(folder)
        if handle is not None and handle.host == os.uname().nodename:
            kill_marked(handle.token)

    def close(self) -> None:
        """End what still runs; then our own cluster, or the connection to another's."""
        running = [job for job in self._jobs if job.poll() == "running"]
        for job in running:
            job.recall()
        for job in running:
            job.cancel()
        self._jobs = []
        self._disconnect()

    def __enter__(self) -> RayTasks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_keeper(folder: str) -> int:
    """The task: the keeper of a folder, until its end. Ray has set ``CUDA_VISIBLE_DEVICES``."""
    kept = keeper.start(Path(folder))
    try:
        return kept.wait()
    except BaseException:  # cancelled: Ray raises KeyboardInterrupt here
        with contextlib.suppress(ProcessLookupError):
            kept.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            kept.wait(read_order(Path(folder)).grace_s + 5)
        raise


class RayJob:
    """A task that is queued or runs. ``reason``: why it was lost, one line."""

    def __init__(self, folder: Path, order: Order, task: Any, ray: Any) -> None:
        self.folder = folder
        self.log: Path | None = log_path(folder)
        self.reason: str | None = None
        self._order, self._task, self._ray = order, task, ray
        self._status: JobStatus = "running"
        self._is_recalled = False

    @property
    def is_waiting(self) -> bool:
        return self._status == "running" and read_alive(self.folder, self._order.token) is None

    def poll(self) -> JobStatus:
        if self._status == "running":
            over, _ = self._ray.wait([self._task], timeout=0)
            if over:
                ended = read_ended(self.folder, self._order.token)
                self._status, self.reason = status_of(self.folder, ended or self._end_by_ray())
        return self._status

    def _end_by_ray(self) -> Ended:
        """The end of a job whose keeper was killed with the worker, or never started."""
        kill_marked(self._order.token)  # if it ran on this machine
        token = self._order.token
        try:
            return Ended.of(token, self._ray.get(self._task))
        except self._ray.exceptions.TaskCancelledError:
            return Ended(token, None, None, "cancelled")
        except self._ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines()
            return Ended(token, None, None, f"Ray: {lines[0] if lines else type(error).__name__}")

    def recall(self) -> None:
        """Ask Ray to end it; returns at once. The keeper lets the job clear up."""
        self._is_recalled = True
        self._ray.cancel(self._task, force=False)

    def cancel(self) -> None:
        if self.poll() != "running":
            return
        if not self._is_recalled:
            self.recall()
        if not self._wait(self._order.grace_s + _CANCEL_S):
            self._ray.cancel(self._task, force=True)  # the worker itself; the keeper's pipe closes
            self._wait(_CANCEL_S)
        if self._status == "running":
            ended = Ended(self._order.token, None, None, "cancelled, and Ray has not ended it")
            self._status, self.reason = status_of(self.folder, ended)

    def _wait(self, within_s: float) -> bool:
        until = time.monotonic() + within_s
        while self.poll() == "running":
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True
