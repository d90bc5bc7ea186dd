"""Training curves in MLflow: every logged row becomes metrics at its step."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from blip3o.storage import read_json, write_json

logger = logging.getLogger(__name__)

MEMORY = "mlflow.json"


def _remembered(client: Any, folder: Path | None, uri: str) -> str | None:
    """The MLflow run of an interrupted training, running again; None if there is none in this store."""
    if folder is None or not (folder / MEMORY).is_file():
        return None
    memory = read_json(folder / MEMORY)
    if memory.get("uri") != uri:
        return None
    run_id = str(memory["run_id"])
    try:
        client.update_run(run_id, status="RUNNING")
    except Exception as error:
        logger.warning("the MLflow run %s is no longer in %s (%s): a new one is begun", run_id, uri, error)
        return None
    return run_id


@contextlib.contextmanager
def mlflow_curves(
    uri: str | None, name: str, folder: Path | None = None
) -> Iterator[list[Callable[[Mapping[str, Any]], None]]]:
    """Log hooks for a training run: none without ``uri`` or on processes other than the first.

    ``folder``: of the training; it remembers the MLflow run, so that a resumed training goes on with its own curves. A
    store that cannot be reached costs the curves, never the training: one warning, then silence.
    """
    if uri is None or os.environ.get("RANK", "0") != "0":
        yield []
        return
    # before the import: MLflow reports its use unless told not to
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    run_id = None
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name("blip3o-training")
        found = experiment.experiment_id if experiment else client.create_experiment("blip3o-training")
        run_id = _remembered(client, folder, uri)
        if run_id is None:
            run_id = client.create_run(found, run_name=name).info.run_id
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                write_json(folder / MEMORY, {"uri": uri, "run_id": run_id})
    except Exception as error:
        logger.warning("no curves: the MLflow store %s cannot be used (%s)", uri, error)

    def log(row: Mapping[str, Any]) -> None:
        nonlocal run_id
        if run_id is None:
            return
        try:
            if "config" in row:
                for key, value in row["config"].items():
                    client.log_param(run_id, key, value)
            elif not row.get("finished"):
                step = int(row.get("step", 0))
                for key, value in row.items():
                    if isinstance(value, int | float) and key != "step" and not isinstance(value, bool):
                        client.log_metric(run_id, key, float(value), step=step)
        except Exception as error:
            logger.warning("curves end here: the MLflow store %s failed (%s)", uri, error)
            run_id = None

    try:
        yield [log]
    except BaseException:
        if run_id is not None:
            with contextlib.suppress(Exception):
                client.set_terminated(run_id, "FAILED")
        raise
    if run_id is not None:
        with contextlib.suppress(Exception):
            client.set_terminated(run_id)
