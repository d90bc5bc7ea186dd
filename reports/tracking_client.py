"""The way into MLflow that runs and sweeps share: import without telemetry, one writer per database, runs by key.

Nothing here knows what is logged. Errors of MLflow, its drivers and servers pass through: whoever logs turns them into
one warning (`reports.tracking`, `reports.tracking_sweep`).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from reports import tracking_db

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

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
MAX_METRICS_A_CALL, MAX_OTHERS_A_CALL = 500, 100  # MLflow takes 1,000 metrics, 100 parameters and 100 tags
KEY_TAG = "blip3o_eval.key"
"""Names the folder's own run: the id that MLflow gives is lost when a process dies right after asking for it."""


def import_mlflow() -> None:
    """Import MLflow with its telemetry off, unless the user said otherwise, and without its progress messages."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


def chosen_uri(tracking_uri: str | None) -> str:
    """The given address, else MLFLOW_TRACKING_URI, else SQLite at `runs/mlflow.db`."""
    given = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    return given or tracking_db.uri_of(tracking_db.DEFAULT_DATABASE)


@contextmanager
def store(uri: str, experiment: str) -> Iterator[tuple[MlflowClient, str]]:
    """A client and the experiment's id, made where it is missing; of a database file the only writer.

    Raises: RuntimeError for a database in use, an outdated one, or an experiment that was deleted; and what MLflow,
    its drivers and servers raise.
    """
    import_mlflow()
    path = tracking_db.path_of(uri)
    if path is None:
        client = new_client(uri)
        yield client, _experiment_id(client, experiment, None)
        return
    with tracking_db.locked(path):
        # Before any client: making one would create or migrate the tables in place.
        tracking_db.ensure(path)
        artifacts = path.parent / tracking_db.ARTIFACTS / _folder_name(experiment)
        client = new_client(tracking_db.patient_uri(uri))
        yield client, _experiment_id(client, experiment, artifacts.as_uri())


def new_client(uri: str) -> MlflowClient:
    """A client of the store at that address."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def find_run(client: MlflowClient, run_id: str | None) -> Run | None:
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


def find_by_key(client: MlflowClient, experiment_id: str, key: str) -> Run | None:
    """The run that a process created and did not live to note."""
    found = client.search_runs(
        [experiment_id], filter_string=f"tags.`{KEY_TAG}` = '{key}'", max_results=1
    )
    return found[0] if found else None


def log_values(
    client: MlflowClient,
    run: Run,
    metrics: Sequence[Metric],
    params: Mapping[str, str],
    tags: Mapping[str, str],
) -> None:
    """Metrics, parameters and tags in as few calls as MLflow's limits allow.

    Parameters cannot be set twice, so those that the run has stay as they are.
    """
    from mlflow.entities import Param, RunTag

    run_id = run.info.run_id
    new = [Param(k, v) for k, v in params.items() if k not in run.data.params]
    labels = [RunTag(k, v) for k, v in tags.items()]
    for start in range(0, len(metrics), MAX_METRICS_A_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + MAX_METRICS_A_CALL])
    for start in range(0, len(new), MAX_OTHERS_A_CALL):
        client.log_batch(run_id, params=new[start : start + MAX_OTHERS_A_CALL])
    for start in range(0, len(labels), MAX_OTHERS_A_CALL):
        client.log_batch(run_id, tags=labels[start : start + MAX_OTHERS_A_CALL])


def one_line(error: Exception) -> str:
    """The error's text in one line of at most 300 characters; its class if it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."


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
