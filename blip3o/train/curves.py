"""Training curves in MLflow: every logged row becomes metrics at its step."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def mlflow_curves(
    uri: str | None, name: str
) -> Iterator[list[Callable[[Mapping[str, Any]], None]]]:
    """Log hooks for a training run: none without ``uri`` or on processes other than the first.

    A store that cannot be reached costs the curves, never the training: one warning, then silence.
    """
    if uri is None or os.environ.get("RANK", "0") != "0":
        yield []
        return
    # before the import: MLflow reports its use unless told not to
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    client, run_id = mlflow.MlflowClient(tracking_uri=uri), None
    try:
        experiment = client.get_experiment_by_name("blip3o-training")
        found = experiment.experiment_id if experiment else client.create_experiment("blip3o-training")
        run_id = client.create_run(found, run_name=name).info.run_id
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
                    if isinstance(value, int | float) and key != "step":
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
