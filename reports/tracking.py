"""Finished runs in MLflow: parameters, metrics with bounds, tags, the report.

The run folder is the truth and MLflow a copy of it: whatever goes wrong here becomes one warning line and an "error"
in the record that is returned, never an exception. MLflow is imported inside the function, with its telemetry off.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.io.redact import redact
from evals.results import RunData, load
from reports import tracking_db
from reports.format import words
from reports.tracking_values import MAX_NAME, clean, metrics_of, params_of, tags_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

log = logging.getLogger("reports")

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A server that is down must not hold up a finished evaluation for minutes (MLflow's defaults: 7 tries of 120 s).
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    # No connection outlives its use, so a database that was replaced meanwhile is never written to under its old name.
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
}
ARTIFACTS = ("results.json", "manifest.json", "outputs.jsonl", "scores.jsonl", "report.html")
MAX_METRICS_A_CALL, MAX_OTHERS_A_CALL = 500, 100  # MLflow takes 1,000 metrics, 100 parameters and 100 tags
KEY_TAG = "blip3o_eval.key"
"""Names the run folder's own run: the id that MLflow gives is lost when a process dies right after asking for it."""

Record = dict[str, Any]


def log_run(
    root: str | Path,
    *,
    experiment: str = "blip3o-eval",
    tracking_uri: str | None = None,
    tags: Mapping[str, str] | None = None,
    previous: Mapping[str, Any] | None = None,
    save: Callable[[Record], None] = lambda record: None,
) -> Record:
    """Copy a finished run folder into MLflow and say where it went.

    Args: tracking_uri: default MLFLOW_TRACKING_URI, else SQLite at `runs/mlflow.db`. previous: the record of an
    earlier attempt; its MLflow run is continued if the store still has it. save: keeps the record; it is called before
    anything is created, as soon as the MLflow run is there, and at the end.
    Returns: {"status": "logged" or "failed", "key", "run_id", "experiment", "tracking_uri"} and "error" (one line) if
    something went wrong; run_id is None if there is no MLflow run. Never raises, save excepted.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or _default_uri()
    record: Record = {
        "status": "pending",
        "key": (previous or {}).get("key") or uuid.uuid4().hex,
        "run_id": (previous or {}).get("run_id"),
        "experiment": experiment,
        "tracking_uri": redact(uri),
    }
    save(record)
    try:
        _log_run(load(root), uri, clean(experiment, MAX_NAME), dict(tags or {}), record, save)
        record["status"] = "logged"
    except Exception as error:  # databases, servers and their drivers raise anything
        record["status"] = "failed"
        record["error"] = redact(_one_line(error).replace(uri, record["tracking_uri"]))
        log.warning(
            "not tracked in MLflow (%s); the run itself is complete, "
            "`blip3o-eval track sync %s` logs it later",
            record["error"],
            root,
        )
    save(record)
    return record


def import_mlflow() -> None:
    """Import MLflow with its telemetry off, unless the user said otherwise, and without its progress messages."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _default_uri() -> str:
    return tracking_db.uri_of(tracking_db.DEFAULT_DATABASE)


def _log_run(
    run: RunData,
    uri: str,
    experiment: str,
    tags: dict[str, str],
    record: Record,
    save: Callable[[Record], None],
) -> None:
    if not run.is_finished:
        raise RuntimeError(f"{run.root} is not finished")
    import_mlflow()
    path = tracking_db.path_of(uri)
    if path is None:
        _write(_client(uri), run, experiment, None, tags, record, save)
        return
    with tracking_db.locked(path):
        # Before any client: making one would create or migrate the tables in place.
        tracking_db.ensure(path)
        artifacts = path.parent / tracking_db.ARTIFACTS / _folder_name(experiment)
        client = _client(tracking_db.patient_uri(uri))
        _write(client, run, experiment, artifacts.as_uri(), tags, record, save)


def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _write(
    client: MlflowClient,
    run: RunData,
    experiment: str,
    artifact_location: str | None,
    tags: dict[str, str],
    record: Record,
    save: Callable[[Record], None],
) -> None:
    experiment_id = _experiment_id(client, experiment, artifact_location)
    mlflow_run = _find_run(client, record["run_id"]) or _find_by_key(
        client, experiment_id, record["key"]
    )
    record["run_id"] = None
    if mlflow_run is None:
        name = f"{run.manifest['task']['name']}-{run.manifest['model']['name']}"
        mlflow_run = client.create_run(
            experiment_id, run_name=clean(name, MAX_NAME), tags={KEY_TAG: record["key"]}
        )
    run_id = record["run_id"] = mlflow_run.info.run_id
    save(record)
    status = "FAILED"
    try:
        _log_values(client, mlflow_run, run, tags)
        for file in ARTIFACTS:
            if (run.root / file).exists():
                client.log_artifact(run_id, str(run.root / file))
        _log_chart(client, run_id, run)
        status = "FINISHED"
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to be told
            client.set_terminated(run_id, status)
        raise
    client.set_terminated(run_id, status)


def _log_values(client: MlflowClient, mlflow_run: Run, run: RunData, tags: dict[str, str]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    now, run_id = int(time.time() * 1000), mlflow_run.info.run_id
    # Parameters cannot be set twice, and metrics are a history: a continued run keeps what it has.
    params = [
        Param(k, v) for k, v in params_of(run).items() if k not in mlflow_run.data.params
    ]
    metrics = [
        Metric(k, v, now, 0)
        for k, v in metrics_of(run).items()
        if mlflow_run.data.metrics.get(k) != v
    ]
    labels = [RunTag(k, v) for k, v in tags_of(run, tags).items()]
    for start in range(0, len(metrics), MAX_METRICS_A_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + MAX_METRICS_A_CALL])
    for start in range(0, len(params), MAX_OTHERS_A_CALL):
        client.log_batch(run_id, params=params[start : start + MAX_OTHERS_A_CALL])
    for start in range(0, len(labels), MAX_OTHERS_A_CALL):
        client.log_batch(run_id, tags=labels[start : start + MAX_OTHERS_A_CALL])


def _log_chart(client: MlflowClient, run_id: str, run: RunData) -> None:
    from reports.plots import interval_chart, to_png

    groups = run.manifest["task"]["groups"]
    metrics = [m for i, m in enumerate(run.metric_values()) if i == 0 or m.name in groups]
    if not metrics or {m.unit for m in metrics} - {"fraction"}:
        return
    fig, _ = interval_chart(
        [words(m.name) for m in metrics], [m.value for m in metrics], [m.ci95 for m in metrics]
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.png"
        path.write_bytes(to_png(fig))
        client.log_artifact(run_id, str(path))


def _find_run(client: MlflowClient, run_id: str | None) -> Run | None:
    """The run to continue; None if there is none, or it was deleted, or the store is another one."""
    from mlflow.exceptions import MlflowException

    if not run_id:
        return None
    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return found if found.info.lifecycle_stage == "active" else None


def _find_by_key(client: MlflowClient, experiment_id: str, key: str) -> Run | None:
    """The run that a process created and did not live to note."""
    found = client.search_runs(
        [experiment_id], filter_string=f"tags.`{KEY_TAG}` = '{key}'", max_results=1
    )
    return found[0] if found else None


def _experiment_id(client: MlflowClient, name: str, artifact_location: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            kind = {
                "mlflow.experimentKind": "custom_model_development"
            }  # tables of runs, not chat traces
            return str(
                client.create_experiment(name, artifact_location=artifact_location, tags=kind)
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another process was faster
    if found is None or found.lifecycle_stage != "active":
        raise RuntimeError(
            f"experiment {name!r} was deleted in MLflow: restore it, or choose another with --experiment"
        )
    return str(found.experiment_id)


def _folder_name(experiment: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", experiment).strip("-.") or "experiment"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."
