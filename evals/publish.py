"""Hands a finished run to ``reports``: the HTML page and MLflow. The only place that does."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.config import TrackingConfig
from evals.errors import EvalError, InputError, LockedError
from evals.io.redact import redact
from evals.phases.calls import one_line
from evals.results import load
from evals.store import RunStore

log = logging.getLogger("evals")

# Folders in which MLflow keeps copies of what runs logged: a manifest in there is no run of ours.
_OF_MLFLOW = {"mlartifacts", "mlruns", "artifacts"}


def write_report(root: Path) -> None:
    """Write ``report.html`` of a finished run."""
    from reports import html

    html.write_report(root)


def is_logged(record: Mapping[str, Any] | None) -> bool:
    """Whether the manifest's ``mlflow`` says that logging ended well."""
    if record is None:
        return False
    return record.get("status", "failed" if "error" in record else "logged") == "logged"


def track(
    store: RunStore, tracking: TrackingConfig, previous: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Log a finished run to MLflow, continuing the MLflow run of an earlier attempt.

    What becomes of it goes into the manifest as it happens (the key before the MLflow run is created,
    its id right after), so that a process killed at any moment leaves no second MLflow run behind.
    An evaluation never fails because tracking failed: the error is logged and returned under
    "error", beside the run id if one was made.
    """

    def save(record: Mapping[str, Any]) -> None:
        store.update_manifest(lambda manifest: manifest.update(mlflow=dict(record)))

    try:
        from reports import tracking as tracker

        return tracker.log_run(
            store.root,
            experiment=tracking.experiment,
            tracking_uri=tracking.tracking_uri,
            tags=tracking.tags,
            previous=previous,
            save=save,
        )
    except Exception as error:  # a broken installation of MLflow may raise anything on import
        problem = redact(one_line(error))
        log.warning("not tracked in MLflow (%s); the run itself is complete", problem)
        record = {**(previous or {}), "status": "failed", "error": problem}
        try:
            save(record)
        except EvalError as also:
            log.warning("the manifest could not be written either (%s)", also)
        return record


@dataclass(frozen=True)
class Synced:
    """What ``sync`` did with a run folder: "logged", "already logged", "not tracked", "unfinished", "busy" or
    "failed", with the MLflow run id or the reason."""

    root: Path
    outcome: str
    detail: str = ""

    @property
    def is_problem(self) -> bool:
        return self.outcome in ("failed", "busy")


def run_folders(places: Iterable[str | Path], with_sweeps: bool = False) -> list[Path]:
    """Run folders among and below the places, sorted within each. Raises InputError for a place without any.

    ``with_sweeps``: a sweep's folder stands for all runs of its points, which are logged as parts of it.
    """
    found: list[Path] = []
    for place in map(Path, places):
        mine = []
        for folder, inner, files in os.walk(place):
            if "manifest.json" in files or (with_sweeps and "sweep.json" in files):
                mine.append(Path(folder))
                inner.clear()  # a run folder holds no other, and thousands of folders of pictures
            inner[:] = sorted(i for i in inner if not i.startswith(".") and i not in _OF_MLFLOW)
        if not mine:
            raise InputError(f"{place} is no run folder and holds none")
        found += mine
    return list(dict.fromkeys(found))


def sync_sweep(
    root: Path, *, tracking_uri: str | None = None, experiment: str | None = None, include_untracked: bool = False
) -> Synced:
    """Bring MLflow up to date with a sweep's folder, finished or not; arguments as of ``sync``."""
    from evals.io.locks import FileLock
    from evals.sweeps.folder import LOCK
    from reports import tracking_sweep

    record = tracking_sweep.read_record(root)
    is_elsewhere = tracking_uri is not None or experiment is not None
    if not record and not include_untracked and not is_elsewhere:
        return Synced(root, "not tracked", "it ran with --no-track; --all logs it too")
    if tracking_sweep.is_up_to_date(root) and not is_elsewhere:
        return Synced(root, "already logged", str(record["run_id"]))
    lock = FileLock(root / LOCK)
    try:
        lock.acquire(what="sweep")
        made = tracking_sweep.log_sweep(root, experiment=experiment, tracking_uri=tracking_uri)
    except LockedError as error:
        return Synced(root, "busy", str(error))
    except (EvalError, OSError) as error:
        return Synced(root, "failed", str(error))
    finally:
        lock.release()
    if "error" in made:
        return Synced(root, "failed", str(made["error"]))
    return Synced(root, "logged", str(made["run_id"]))


def sync(
    root: Path,
    *,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    include_untracked: bool = False,
) -> Synced:
    """Log a finished run whose logging failed, was interrupted or (``include_untracked``) never meant.

    It goes to the store and experiment of the first attempt, unless others are given.
    """
    store = RunStore(root)
    try:
        data = load(root)
        record = data.manifest["mlflow"]
        if not data.is_finished:
            return Synced(root, "unfinished", "the command that started it finishes it")
        if is_logged(record) and tracking_uri is None and experiment is None:
            return Synced(root, "already logged", str(record["run_id"]))
        if record is None and not include_untracked:
            return Synced(root, "not tracked", "it ran with --no-track; --all logs it too")
        store.lock()
        given = TrackingConfig.model_validate(data.manifest["config"]["tracking"])
        made = track(
            store,
            TrackingConfig(
                experiment=experiment or (record or {}).get("experiment") or given.experiment,
                tracking_uri=tracking_uri or _uri_of(record) or given.tracking_uri,
                tags=given.tags,
            ),
            record,
        )
    except LockedError as error:
        return Synced(root, "busy", str(error))
    except EvalError as error:
        return Synced(root, "failed", str(error))
    finally:
        store.close()
    if "error" in made:
        return Synced(root, "failed", str(made["error"]))
    return Synced(root, "logged", str(made["run_id"]))


def _uri_of(record: Mapping[str, Any] | None) -> str | None:
    """The address of the first attempt. Manifests hold no passwords: the environment may know it with one."""
    recorded = (record or {}).get("tracking_uri")
    own = os.environ.get("MLFLOW_TRACKING_URI")
    return own if own and redact(own) == recorded else recorded
