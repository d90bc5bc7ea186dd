"""Finished runs in MLflow: parameters, metrics with bounds, tags, the report.

The run folder is the truth and MLflow a copy of it: whatever goes wrong here becomes one warning line and an "error"
in the record that is returned, never an exception. MLflow is imported inside the function, with its telemetry off.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from evals.results import RunData, load
from reports import tracking_db
from reports.format import interval, number, words

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
MAX_PARAM, MAX_TAG, MAX_NAME = 500, 5000, 250


def log_run(
    root: str | Path,
    *,
    experiment: str = "blip3o-eval",
    tracking_uri: str | None = None,
    tags: Mapping[str, str] | None = None,
    run_id: str | None = None,
) -> dict[str, Any]:
    """Copy a finished run folder into MLflow and say where it went.

    Args: tracking_uri: default MLFLOW_TRACKING_URI, else SQLite at `runs/mlflow.db`. run_id: continue this MLflow
    run (of an earlier attempt) if the store still has it.
    Returns: {"run_id", "experiment", "tracking_uri"} and "error" (one line) if something went wrong; run_id is None
    if there is no MLflow run. Never raises.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or _default_uri()
    record: dict[str, Any] = {
        "run_id": run_id,
        "experiment": experiment,
        "tracking_uri": without_password(uri),
    }
    try:
        _log_run(load(root), uri, experiment, dict(tags or {}), record)
    except Exception as error:  # databases, servers and their drivers raise anything
        record["error"] = _one_line(error).replace(uri, record["tracking_uri"])
        log.warning("not tracked in MLflow (%s); the run itself is complete", record["error"])
    return record


def import_mlflow() -> None:
    """Import MLflow with its telemetry off, unless the user said otherwise, and without its progress messages."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


def metric_name(name: str) -> str:
    """A name that MLflow accepts: `CLIP(ViT-B/32)` -> `CLIP_ViT-B/32`."""
    name = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)
    name = re.sub(r"_{2,}", "_", name).strip("_/ .") or "unnamed"
    return re.sub(r"/{2,}", "/", name)[:MAX_NAME]


def metrics_of(run: RunData) -> dict[str, float]:
    """Every figure as `name`, its bounds as `name_ci_low` and `name_ci_high`, then counts and times."""
    assert run.results is not None
    found: dict[str, float] = {}
    for metric in run.metric_values():
        name = metric_name(metric.name)
        if metric.value is None:
            continue
        found[name] = float(metric.value)
        if metric.ci95 is not None:
            found[f"{name}_ci_low"], found[f"{name}_ci_high"] = map(float, metric.ci95)
    for section, prefix in (("counts", "outputs"), ("timing", "timing")):
        for key, value in run.results[section].items():
            if isinstance(value, (int, float)):
                found[metric_name(f"{prefix}/{key}")] = float(value)
    return found


def params_of(run: RunData) -> dict[str, str]:
    """What changes outputs or scores, flat."""
    return {metric_name(k): str(v)[:MAX_PARAM] for k, v in run.manifest["fingerprint"].items()}


def tags_of(run: RunData, extra: Mapping[str, str]) -> dict[str, str]:
    """Who made the figures, from what, and the caveats; `extra` wins."""
    manifest, results = run.manifest, run.results
    assert results is not None
    git = manifest.get("git") or {}
    found = {
        "mlflow.source.name": "blip3o-eval",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": git.get("commit"),
        "mlflow.note.content": description(run),
        "git.is_dirty": git.get("is_dirty"),
        "task": manifest["task"]["name"],
        "task.version": manifest["task"]["version"],
        "model": manifest["model"]["name"],
        "judge": (manifest["judge"] or {}).get("name"),
        "judge.domain": (manifest["judge"] or {}).get("domain"),
        "partial": manifest["partial"],
        "test_double": results["is_test_double"],
        "config_sha256": manifest["config_sha256"],
        **{
            f"version.{name}": version for name, version in (manifest.get("versions") or {}).items()
        },
    }
    texts = {
        k: str(v).lower() if isinstance(v, bool) else str(v)
        for k, v in found.items()
        if v is not None
    }
    texts |= {metric_name(str(k)): str(v) for k, v in extra.items()}
    return {key: value[:MAX_TAG] for key, value in texts.items()}


def description(run: RunData) -> str:
    """The run's note in MLflow, Markdown: caveats first, then the figures."""
    manifest, results = run.manifest, run.results
    assert results is not None
    caveats = []
    if results["is_test_double"]:
        caveats.append("**Made with a test double: these figures mean nothing.**")
    if manifest["partial"]:
        caveats.append("**Partial run: not the benchmark's score.**")
    if manifest["judge"] and manifest["judge"]["domain"] == "stickers":
        caveats.append("Sticker judge: not comparable with published figures.")
    lines = ["| figure | value | 95 % interval | scored |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {words(m.name)} | {number(m.value, m.unit)} | {interval(m.ci95, m.unit)} | {m.n} |"
        for m in run.metric_values()
    ]
    return "\n\n".join([*caveats, "\n".join(lines)])


def without_password(uri: str) -> str:
    """The address without user and password."""
    parts = urlsplit(uri)
    return (
        urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        if "@" in parts.netloc
        else uri
    )


def _default_uri() -> str:
    return tracking_db.uri_of(tracking_db.DEFAULT_DATABASE)


def _log_run(
    run: RunData, uri: str, experiment: str, tags: dict[str, str], record: dict[str, Any]
) -> None:
    if not run.is_finished:
        raise RuntimeError(f"{run.root} is not finished")
    import_mlflow()
    path = tracking_db.path_of(uri)
    if path is None:
        _write(_client(uri), run, experiment, None, tags, record)
        return
    with tracking_db.locked(path):
        tracking_db.ensure(
            path
        )  # before any client: making one would create or migrate the tables in place
        artifacts = path.parent / tracking_db.ARTIFACTS / _folder_name(experiment)
        _write(_client(uri), run, experiment, artifacts.as_uri(), tags, record)


def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _write(
    client: MlflowClient,
    run: RunData,
    experiment: str,
    artifact_location: str | None,
    tags: dict[str, str],
    record: dict[str, Any],
) -> None:
    mlflow_run = _find_run(client, record["run_id"])
    record["run_id"] = None
    if mlflow_run is None:
        experiment_id = _experiment_id(client, experiment, artifact_location)
        name = f"{run.manifest['task']['name']}-{run.manifest['model']['name']}"
        mlflow_run = client.create_run(experiment_id, run_name=name[:MAX_NAME])
    run_id = record["run_id"] = mlflow_run.info.run_id
    status = "FAILED"
    try:
        _log_values(client, mlflow_run, run, tags)
        for file in ARTIFACTS:
            if (run.root / file).exists():
                client.log_artifact(run_id, str(run.root / file))
        _log_chart(client, run_id, run)
        status = "FINISHED"
    finally:
        client.set_terminated(run_id, status)


def _log_values(client: MlflowClient, mlflow_run: Run, run: RunData, tags: dict[str, str]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    # Parameters cannot be set twice; a continued run keeps those it has.
    params = {k: v for k, v in params_of(run).items() if k not in mlflow_run.data.params}
    client.log_batch(
        mlflow_run.info.run_id,
        metrics=[Metric(name, value, now, 0) for name, value in metrics_of(run).items()],
        params=[Param(name, value) for name, value in params.items()],
        tags=[RunTag(name, value) for name, value in tags_of(run, tags).items()],
    )


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
