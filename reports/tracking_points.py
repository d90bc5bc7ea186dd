"""One point of a sweep in MLflow: a child run with its figures, curves, data sets, model and small files.

What is given twice stays once: figures carry times that come from the folder, data sets are named by their digests,
and the model is found by its key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reports.sweep_points import DataSet, PointData
from reports.tracking_client import KEY_TAG, log_values
from reports.tracking_sweep_values import (
    curve_metrics,
    final_metrics,
    params_of_point,
    tags_of_point,
)
from reports.tracking_values import clean

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

STATUS = {"running": "RUNNING", "done": "FINISHED", "failed": "FAILED", "skipped": "KILLED", "pending": "SCHEDULED"}
MAX_DIGEST = 36  # MLflow's own limit; the whole digest stands in the data set's profile


def log_point(
    client: MlflowClient, experiment_id: str, run: Any, point: PointData, tags: Mapping[str, str], key: str
) -> None:
    """Everything of a point into its MLflow run, whatever of it is there already."""
    run_id = run.info.run_id
    if point.data_sets:
        client.log_inputs(run_id, datasets=[_dataset_input(one) for one in point.data_sets])
    model_id = _model(client, experiment_id, run, point, key) if point.model else None
    metrics = [*curve_metrics(point), *final_metrics(point, model_id)]
    log_values(client, run, metrics, params_of_point(point), tags_of_point(point, tags))
    for path in point.files:
        inside = path.parent.relative_to(point.folder).as_posix()
        client.log_artifact(run_id, str(path), None if inside == "." else inside)
    status = STATUS[point.state.status]
    if point.state.has_ended:
        client.set_terminated(run_id, status, point.finished_ms)
    elif run.info.status != status:
        client.update_run(run_id, status=status)


def _dataset_input(data: DataSet) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = json.dumps({"sha256": data.digest})
    dataset = Dataset(data.name, data.digest[:MAX_DIGEST], "local", data.source or data.name, profile=profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", data.context)])


def _model(client: MlflowClient, experiment_id: str, run: Any, point: PointData, key: str) -> str:
    """The id of the point's LoggedModel: what it trained is an output of the run, what it only used an input."""
    from mlflow.entities import LoggedModelInput, LoggedModelOutput

    assert point.model is not None
    run_id = run.info.run_id
    name, digest = point.model
    is_trained = bool(point.point.stages)
    own = f"{key if is_trained else key.partition('/')[0]}/{digest[:16]}"
    found = client.search_logged_models([experiment_id], filter_string=f"tags.`{KEY_TAG}` = '{own}'", max_results=1)
    if found:
        model = found[0]
    else:
        params = {k: clean(str(v), 500) for k, v in point.point.values.items()} if is_trained else {}
        model = client.create_logged_model(
            experiment_id, name=model_name(name), source_run_id=run_id if is_trained else None,
            tags={KEY_TAG: own, "weights_sha256": digest}, params=params,
            model_type="unified multimodal model",
        )  # fmt: skip
    if str(model.status) != "READY":
        client.finalize_logged_model(model.model_id, "READY")
    # MLflow refuses the same link twice.
    linked = getattr(run.outputs, "model_outputs", None) if is_trained else getattr(run.inputs, "model_inputs", None)
    if model.model_id in {one.model_id for one in linked or ()}:
        pass
    elif is_trained:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, point.last_step)])
    else:
        client.log_inputs(run_id, models=[LoggedModelInput(model.model_id)])
    return str(model.model_id)


def model_name(text: str) -> str:
    """A name that MLflow takes for a model: it may hold no `/ : . % " '`."""
    return clean("".join("-" if c in "/:.%\"'" else c for c in text), 200) or "model"
