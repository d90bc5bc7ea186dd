"""A sweep in MLflow: one parent run, a child for each point (a combination of the axes with one seed).

The sweep folder is the truth and MLflow a copy of it, written by the one process that schedules the sweep. Its file
`mlflow.json` says how far the copy is: the parent's key and run id, and per point its run id and the digest of what was
logged. So logging again costs nothing where nothing changed, and a process that died half-way leaves no second run
behind: a child is found by its key (the parent's and the point's id), and every figure has a time of its own that
comes from the folder, so that writing it twice is writing it once.

Whatever goes wrong becomes one warning line and an "error" in the record, never an exception.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.errors import EvalError
from evals.io.files import write_json
from evals.io.redact import redact
from evals.sweeps.folder import REPORT, SWEEP, TABLE, SweepFolder, read_json
from reports.sweep_points import PointData, ms_of, read_points
from reports.tracking_client import (
    KEY_TAG,
    chosen_uri,
    find_by_key,
    find_run,
    log_values,
    one_line,
    store,
)
from reports.tracking_points import log_point
from reports.tracking_sweep_values import (
    digest_of_point,
    params_of_sweep,
    summary,
    tags_of_sweep,
)
from reports.tracking_values import MAX_NAME, clean

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("reports")

RECORD = "mlflow.json"
RETRY_AFTER_S = 300.0  # a store that failed is left alone for so long while the sweep goes on
DEFAULT_EXPERIMENT = "blip3o-eval"
ARTIFACTS = (SWEEP, TABLE, REPORT)

Record = dict[str, Any]


def log_sweep(
    root: str | Path,
    *,
    experiment: str | None = None,
    tracking_uri: str | None = None,
    tags: Mapping[str, str] | None = None,
    final: bool = True,
) -> Record:
    """Bring MLflow up to date with a sweep folder, finished or not, and say where it went.

    Call it in the process that schedules the sweep only. Args: experiment, tracking_uri: default those of the earlier
    attempt, then "blip3o-eval" and MLFLOW_TRACKING_URI, then SQLite at `runs/mlflow.db`. final: the sweep has ended or
    is being synced: report and table are logged and the parent gets its status; False logs only points that changed,
    and does nothing for `RETRY_AFTER_S` after a failure.
    Returns: {"status": "logged", "failed" or "pending", "key", "run_id", "experiment", "tracking_uri", "points"} and
    "error" (one line) if something went wrong. Never raises.
    """
    root = Path(root)
    record = read_record(root)
    if not final and time.time() < record.get("retry_at", 0.0):
        return record
    uri = tracking_uri or _uri_of(record) or chosen_uri(None)
    experiment = experiment or record.get("experiment") or DEFAULT_EXPERIMENT
    if record.get("tracking_uri") not in (None, redact(uri)) or record.get("experiment") not in (None, experiment):
        record["points"], record["run_id"] = {}, None  # another place: everything again
    record |= {"status": "pending", "experiment": experiment, "tracking_uri": redact(uri)}
    record.setdefault("key", uuid.uuid4().hex)
    for name in ("error", "retry_at"):
        record.pop(name, None)
    try:
        _save(root, record)
        folder = SweepFolder(root)
        with store(uri, clean(experiment, MAX_NAME)) as (client, experiment_id):
            _Writer(client, experiment_id, folder, dict(tags or {}), record).write(final)
        record["status"] = "logged" if final else "pending"
    except Exception as error:  # databases, servers and their drivers raise anything
        told = redact(one_line(error).replace(uri, record["tracking_uri"]))
        is_new = record.get("warned") != told
        record |= {"status": "failed", "error": told, "warned": told, "retry_at": time.time() + RETRY_AFTER_S}
        if final or is_new:
            log.warning(
                "sweep not tracked in MLflow (%s); the sweep itself is complete on disk, "
                "`blip3o-eval track sync %s` logs it later",
                record["error"],
                root,
            )
    try:
        _save(root, record)
    except EvalError as error:  # a full disk
        log.warning("%s", error)
        record |= {"status": "failed", "error": str(error)}
    return record


class Tracker:
    """Keeps MLflow up to date beside a running sweep, in a thread: a slow or dead server holds nothing up.

    `changed` returns at once; what changed while a log was being written is logged after it. `finish` waits for the
    thread, logs the rest with report and table, and returns the record.
    """

    def __init__(self, root: Path, **options: Any) -> None:
        """`options`: experiment, tracking_uri and tags of `log_sweep`."""
        self._log: Callable[[bool], Record] = lambda final: log_sweep(root, final=final, **options)
        self._wanted = threading.Event()
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def changed(self) -> None:
        """A point started, reached a checkpoint or ended."""
        self._wanted.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
            self._thread.start()

    def finish(self) -> Record:
        """The last word: call it when report and table are written."""
        self._is_over.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()
        return self._log(True)

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            if self._is_over.is_set():
                return
            self._wanted.clear()
            self._log(False)


def read_record(root: Path) -> Record:
    """`mlflow.json`; empty where there is none, or one that a full disk cut short (its runs are found by key)."""
    try:
        return read_json(root / RECORD)
    except EvalError:
        return {}


def is_up_to_date(root: Path) -> bool:
    """Whether everything in the folder was logged, report and table included."""
    record = read_record(root)
    if record.get("status") != "logged":
        return False
    logged = record.get("points", {})
    return all(
        logged.get(point.id, {}).get("digest") == digest_of_point(point)
        for point in read_points(SweepFolder(root))
        if point.state.status != "pending"
    )


class _Writer:
    """One visit to the store."""

    def __init__(
        self, client: MlflowClient, experiment_id: str, folder: SweepFolder, tags: dict[str, str], record: Record
    ) -> None:
        self.client, self.experiment_id, self.folder = client, experiment_id, folder
        self.tags, self.record = tags, record
        self.logged: dict[str, Any] = record.setdefault("points", {})

    def write(self, final: bool) -> None:
        points = read_points(self.folder)
        sweep = self.folder.sweep()
        began = ms_of(sweep.get("created"))
        parent = self._run(self.record.get("run_id"), self.record["key"], sweep["name"], {}, began)
        self.record["run_id"] = parent.info.run_id
        _save(self.folder.root, self.record)
        started = {p.id for p in points if p.state.status != "pending"}
        for point in points:
            if point.id in started and self.logged.get(point.id, {}).get("digest") != digest_of_point(point):
                self._child(point, parent.info.run_id)
        self._parent(parent, points, final)

    def _run(self, run_id: str | None, key: str, name: str, more: Mapping[str, str], start: int | None = None) -> Any:
        found = find_run(self.client, run_id) or find_by_key(self.client, self.experiment_id, key)
        return found or self.client.create_run(
            self.experiment_id, start_time=start, run_name=clean(name, MAX_NAME), tags={KEY_TAG: key, **more}
        )

    def _child(self, point: PointData, parent_id: str) -> None:
        key = f"{self.record['key']}/{point.id}"
        previous = self.logged.get(point.id, {}).get("run_id")
        run = self._run(previous, key, point.id, {"mlflow.parentRunId": parent_id}, point.started_ms)
        # Noted before anything is logged: after a failure the record has it, after a kill the key finds it.
        self.logged[point.id] = {"run_id": run.info.run_id, "digest": None}
        log_point(self.client, self.experiment_id, run, point, self.tags, key)
        self.logged[point.id]["digest"] = digest_of_point(point)
        _save(self.folder.root, self.record)

    def _parent(self, run: Any, points: list[PointData], final: bool) -> None:
        from mlflow.entities import Metric

        run_id = run.info.run_id
        figures, status = summary(points)
        at = int(time.time() * 1000)
        metrics = [Metric(k, v, at, 0) for k, v in figures.items() if run.data.metrics.get(k) != v]
        labels = tags_of_sweep(self.folder.sweep(), points, self.tags)
        new = {k: v for k, v in labels.items() if run.data.tags.get(k) != v}
        log_values(self.client, run, metrics, params_of_sweep(self.folder.sweep()), new)
        if not final:
            if run.info.status != "RUNNING":
                self.client.update_run(run_id, status="RUNNING")
            return
        for name in ARTIFACTS:
            if (self.folder.root / name).exists():
                self.client.log_artifact(run_id, str(self.folder.root / name))
        self.client.set_terminated(run_id, status, max((p.finished_ms for p in points if p.finished_ms), default=None))


def _save(root: Path, record: Record) -> None:
    write_json(root / RECORD, record, is_durable=False)


def _uri_of(record: Mapping[str, Any]) -> str | None:
    """The address of the first attempt. Records hold no passwords: the environment may know it with one."""
    recorded = record.get("tracking_uri")
    if recorded is None:
        return None
    own = chosen_uri(None)
    return own if redact(own) == recorded else str(recorded)
