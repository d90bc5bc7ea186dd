"""``slurm``: jobs of a cluster, handed over through submitit. Jobs handed over together are one job array.

What became of a job is read from the files that it leaves in its folder, which every node sees; the queue is asked
only where these are silent, and a queue that does not answer stops nothing. A job survives the process that handed
it over (a closed terminal on the login node), and the next ``sweep run`` finds it again. One that reaches its time
limit is lost and goes on in the next run; one that the cluster preempts is queued again by submitit and goes on by
itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evals.errors import EvalError, MissingRequirementError
from evals.processes import kill_marked, marked
from evals.sweeps.api import JobStatus, Resources
from evals.sweeps.executors import keeper, machine
from evals.sweeps.executors.base import ExecutorError, status_of
from evals.sweeps.executors.files import (
    Ended,
    Order,
    Stop,
    log_path,
    read_alive,
    read_ended,
    read_handle,
    read_order,
    write_handle,
    write_order,
    write_stop,
)
from evals.sweeps.executors.settings import SlurmSettings

ASK_EVERY_S = 30.0  # seconds between two questions to the queue
SETTLE_S = 20.0  # how long a shared file system may take to show the end of a job that the queue calls ended
SILENCE_S = 180.0  # without a sign of life and without a queue to ask, a job is lost
CANCEL_S = 30.0
DEFAULT_CORES = 4
OVER_TIME = "ended at its time limit; started again, it goes on from there"

_OPEN_STATES = {
    "READY", "PENDING", "RUNNING", "UNKNOWN", "REQUEUED", "COMPLETING", "PREEMPTED", "CONFIGURING",
    "SUSPENDED", "RESIZING", "REQUEUE_HOLD", "SIGNALING", "STAGE_OUT",
}  # fmt: skip


class SlurmQueue:
    """Hands jobs to the queue, which decides when they run."""

    name = "slurm"
    capacity: Resources | None = None

    def __init__(
        self, settings: SlurmSettings, root: Path, max_parallel: int | None = None
    ) -> None:
        """``root``: the sweep folder; it has to lie on a file system that all nodes see."""
        try:
            import submitit
        except ImportError:
            raise MissingRequirementError(
                "executor 'slurm' needs submitit: pip install \"blip3o-eval[slurm]\""
            ) from None
        if settings.cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise ExecutorError(
                "executor 'slurm' finds no sbatch and srun here: run it on a login node of the cluster, or use "
                "--executor local"
            )
        logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns at each silence of sacct
        self._settings, self._max_parallel = settings, max_parallel
        self._submitit = submitit.AutoExecutor(root / "job" / "submitit" / "%j", cluster=settings.cluster)
        self._job_class = self._submitit._executor.job_class
        self.per_job = Resources(
            settings.cores or DEFAULT_CORES, settings.gpus or 0, settings.memory_gb
        )
        self._jobs: list[SlurmJob] = []

    def has_room(self, resources: Resources) -> bool:
        return True

    def submit(self, folder: Path, resources: Resources) -> SlurmJob:
        return self.submit_all([folder], resources)[0]

    def submit_all(self, folders: Sequence[Path], resources: Resources) -> list[SlurmJob]:
        if not folders:
            return []
        env = machine.thread_variables(resources.cores)
        orders = [write_order(f, env, self.name, self._settings.grace_s) for f in folders]
        self._submitit.update_parameters(**self._parameters(folders, resources))
        jobs = [KeptJob(folder.absolute()) for folder in folders]
        try:
            given = self._submitit.submit_array(jobs)
        except (OSError, RuntimeError, ValueError) as error:  # submitit's and sbatch's refusals
            raise ExecutorError(f"the queue takes no job: {_first_line(error)}") from None
        taken = []
        for folder, order, job in zip(folders, orders, given, strict=True):
            write_handle(folder, order, job.job_id)
            taken.append(SlurmJob(folder, order, job))
        self._jobs += taken
        return taken

    def _parameters(self, folders: Sequence[Path], resources: Resources) -> dict[str, Any]:
        """As ``submitit.AutoExecutor.update_parameters`` names them; unset ones are the cluster's own."""
        ours = self._settings
        name = folders[0].name if len(folders) == 1 else f"{folders[0].parent.parent.name}-sweep"
        found: dict[str, Any] = {
            "name": name[:64],
            "timeout_min": ours.time,
            "tasks_per_node": 1,
            "cpus_per_task": resources.cores,
            "slurm_partition": ours.partition,
            "slurm_account": ours.account,
            "slurm_qos": ours.qos,
            "slurm_constraint": ours.constraint,
            "slurm_nodelist": ours.nodelist,
            "slurm_exclude": ours.exclude,
            "slurm_additional_parameters": dict(ours.extra) or None,
            "slurm_setup": list(ours.setup) or None,
            "slurm_array_parallelism": self._max_parallel or len(folders),
            # Long enough for the keeper to end the job and to write that it did.
            "slurm_signal_delay_s": int(ours.grace_s) + 60,
            "gpus_per_node": resources.gpus or None,
            "mem_gb": resources.memory_gb,
        }
        if ours.cluster == "local":
            found = {k: v for k, v in found.items() if not k.startswith("slurm_")}
        return {k: v for k, v in found.items() if v is not None}

    def attach(self, folder: Path) -> SlurmJob | None:
        """What an earlier process handed over, unless it has ended."""
        handle = read_handle(folder)
        if handle is None or handle.executor != self.name:
            return None
        order = read_order(folder)
        if order.token != handle.token:
            return None
        given = self._job_class(self._submitit.folder, handle.job_id)
        job = SlurmJob(folder, order, given)
        if job.poll() != "running":
            return None
        self._jobs.append(job)
        return job

    def close(self) -> None:
        """Take back what is queued, and end what runs."""
        running = [job for job in self._jobs if job.poll() == "running"]
        for job in running:
            job.recall()
        for job in running:
            job.cancel()
        self._jobs = []

    def __enter__(self) -> SlurmQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class KeptJob:
    """What submitit pickles and calls on the node: the keeper of a folder, until its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> int:
        kept = keeper.start(self.folder)
        try:
            return kept.wait()
        except SystemExit:  # submitit's answer to a preemption: it is queued again, not at its end
            _stop(kept, self.folder, "preempted, and queued again", is_final=False)
            raise
        except BaseException as error:  # submitit's at the time limit; or the end of this process
            timed_out = type(error).__name__ == "UncompletedJobError"
            _stop(kept, self.folder, OVER_TIME if timed_out else "cancelled")
            raise


def _stop(kept: subprocess.Popen[bytes], folder: Path, why: str, is_final: bool = True) -> None:
    order = read_order(folder)
    with contextlib.suppress(EvalError):  # a full disk; the job has to end all the same
        write_stop(folder, Stop(order.token, why, is_final))
    with contextlib.suppress(ProcessLookupError):
        kept.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        kept.wait(order.grace_s + 5)


class SlurmJob:
    """A job that is queued or runs. ``job_id``: as squeue shows it."""

    def __init__(self, folder: Path, order: Order, given: Any) -> None:
        self.folder = folder
        self.log: Path | None = log_path(folder)
        self.reason: str | None = None
        self.job_id: str = given.job_id
        self._order, self._given = order, given
        self._status: JobStatus = "running"
        self._beat: int | None = None
        self._heard = time.monotonic()  # of the last sign of life
        self._over_since: float | None = None
        self._asked = float("-inf")
        self._is_recalled = False

    @property
    def is_waiting(self) -> bool:
        return self._status == "running" and read_alive(self.folder, self._order.token) is None

    def poll(self) -> JobStatus:
        if self._status != "running":
            return self._status
        ended = read_ended(self.folder, self._order.token)
        if ended is None:
            why = self._why_lost()
            # What ends between two looks has written its end by now.
            ended = read_ended(self.folder, self._order.token)
            if ended is None and why is not None:
                ended = Ended(self._order.token, None, None, why)
        if ended is not None:
            self._status, self.reason = status_of(self.folder, ended)
        return self._status

    def _why_lost(self) -> str | None:
        """The reason, once it is certain that the job ended without a word; None while it may be there."""
        now = time.monotonic()
        alive = read_alive(self.folder, self._order.token)
        if alive is not None and alive.beat != self._beat:
            self._beat, self._heard, self._over_since = alive.beat, now, None
        is_mute = now - self._heard > 2 * keeper.BEAT_S
        if alive is not None and alive.host == socket.gethostname() and is_mute:
            if not marked(self._order.token):
                return f"its processes on {alive.host} are gone"
        state = self._state()
        if state not in _OPEN_STATES and (is_mute or alive is None):
            self._over_since = self._over_since or now
            if now - self._over_since > SETTLE_S:
                return f"SLURM: {state}"
        elif state == "UNKNOWN" and now - self._heard > SILENCE_S:
            where = f" from {alive.host}" if alive is not None else ""
            return f"no sign of life{where} for {SILENCE_S:.0f} s, and no word of job {self.job_id} from the queue"
        return None

    def _state(self) -> str:
        """The queue's word for it; UNKNOWN where it does not answer."""
        now = time.monotonic()
        mode = "cache"
        if now - self._asked >= ASK_EVERY_S:
            self._asked, mode = now, "force"
        info = self._given.get_info(mode)
        # submitit's own processes call it jobState; "CANCELLED by 1000" is one state.
        state = str(info.get("State") or info.get("jobState") or "UNKNOWN").split(" ")[0].upper()
        if state == "UNKNOWN" and mode == "force" and self.job_id.split("_")[0].isdigit():
            state = _squeue(self.job_id)
        return "UNKNOWN" if state == "NO" else state  # "NO PROCESS AND NO RESULT"

    def recall(self) -> None:
        """Ask the queue to take it back or end it; returns at once."""
        self._is_recalled = True
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            self._given.cancel(check=False)

    def cancel(self) -> None:
        if self.poll() != "running":
            return
        if not self._is_recalled:
            self.recall()
        alive = read_alive(self.folder, self._order.token)
        # A job that has not started leaves no end behind.
        until = time.monotonic() + (CANCEL_S + self._order.grace_s if alive is not None else 2.0)
        while self.poll() == "running" and time.monotonic() < until:
            time.sleep(0.05)
        if alive is not None and alive.host == socket.gethostname():
            kill_marked(self._order.token)
        if self._status == "running":
            ended = Ended(self._order.token, None, None, "cancelled")
            self._status, self.reason = status_of(self.folder, ended)


def _squeue(job_id: str) -> str:
    """State by ``squeue``, for clusters without accounting; UNKNOWN if it does not answer."""
    try:
        asked = subprocess.run(
            ["squeue", "--noheader", "--jobs", job_id, "--format", "%T"],
            capture_output=True, text=True, timeout=30, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return "UNKNOWN"
    if asked.returncode == 0:
        return asked.stdout.split()[0] if asked.stdout.split() else "NOT IN THE QUEUE"
    return "NOT IN THE QUEUE" if "Invalid job id" in asked.stderr else "UNKNOWN"


def _first_line(error: Exception) -> str:
    lines = str(getattr(error, "stderr", "") or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
