"""Finished runs in MLflow: parameters, metrics with bounds, tags, the report.

The run folder is the truth and MLflow a copy of it: whatever goes wrong here becomes one warning line and an "error"
in the record that is returned, never an exception. MLflow is imported inside the function, with its telemetry off.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.io.redact import redact
from evals.results import RunData, load
from reports.format import words
from reports.tracking_client import (
    ENVIRONMENT,
    KEY_TAG,
    chosen_uri,
    find_by_key,
    find_run,
    import_mlflow,
    log_values,
    one_line,
    store,
)
from reports.tracking_values import MAX_NAME, clean, metrics_of, params_of, tags_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["ENVIRONMENT", "KEY_TAG", "Record", "import_mlflow", "log_run"]

log = logging.getLogger("reports")

ARTIFACTS = ("results.json", "manifest.json", "outputs.jsonl", "scores.jsonl", "report.html")

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
    uri = chosen_uri(tracking_uri)
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
        record["error"] = redact(one_line(error).replace(uri, record["tracking_uri"]))
        log.warning(
            "not tracked in MLflow (%s); the run itself is complete, "
            "`blip3o-eval track sync %s` logs it later",
            record["error"],
            root,
        )
    save(record)
    return record


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
    with store(uri, experiment) as (client, experiment_id):
        _write(client, experiment_id, run, tags, record, save)


def _write(
    client: MlflowClient,
    experiment_id: str,
    run: RunData,
    tags: dict[str, str],
    record: Record,
    save: Callable[[Record], None],
) -> None:
    mlflow_run = find_run(client, record["run_id"]) or find_by_key(
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
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    # Metrics are a history: a continued run keeps what it has.
    metrics = [
        Metric(k, v, now, 0)
        for k, v in metrics_of(run).items()
        if mlflow_run.data.metrics.get(k) != v
    ]
    log_values(client, mlflow_run, metrics, params_of(run), tags_of(run, tags))


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
