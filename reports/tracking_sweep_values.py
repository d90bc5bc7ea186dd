"""What a sweep and its points say in MLflow: figures with bounds, curves by step, parameters, tags, a note."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from evals.sweeps.folder import Figure
from reports.format import number, words
from reports.tracking_values import MAX_NAME, MAX_PARAM, MAX_TAG, clean, metric_name, unique_names

if TYPE_CHECKING:
    from mlflow.entities import Metric

    from reports.sweep_points import PointData

CURVE = "curve"
"""Before the names of figures of checkpoints: they often rest on fewer prompts than the final ones, so the two are
never one series."""


def digest_of_point(point: PointData) -> str:
    """What of a point was logged: another digest, and it is logged again."""
    state = point.state
    content: list[Any] = [
        state.status, state.error, state.attempts, state.finished,
        None if point.result is None else asdict(point.result),
        [asdict(row) for row in point.curve],
        [path.name for path in point.files],
        point.problem,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def final_metrics(point: PointData, model_id: str | None) -> list[Metric]:
    """The figures of the end as `task/metric`, their bounds, and what training and scoring took.

    With the model's id they also stand with the model in MLflow.
    """
    from mlflow.entities import Metric

    if point.result is None:
        return []
    result, at = point.result, point.finished_ms or point.started_ms or 0
    found = dict(_with_bounds(result.metrics))
    found |= {
        "train/steps": result.total.steps,
        "train/seconds": result.total.seconds,
        "train/shared_seconds": result.shared.seconds,
        "train/images": result.total.images,
        "train/parameters": result.parameters,
        "evaluation/seconds": result.evaluation_seconds,
        **({"train/flops": sum(point.flops.values())} if point.flops else {}),
        **{f"train/flops_{phase}": flops for phase, flops in point.flops.items()},
    }
    step = point.last_step
    return [
        Metric(name, float(value), at, step, model_id=model_id)
        for name, value in unique_names(found).items()
        if math.isfinite(value)
    ]


def curve_metrics(point: PointData) -> list[Metric]:
    """Figures of the checkpoints by training step, with the seconds and images that each took to get there.

    Their times are the start of the point plus those seconds, so that a curve against time is one against training.
    """
    from mlflow.entities import Metric

    began = point.started_ms or 0
    found = []
    for row in point.curve:
        values = {
            f"{CURVE}/train_seconds": row.total.seconds,
            f"{CURVE}/train_images": float(row.total.images),
            **{f"{CURVE}/{name}": value for name, value in _with_bounds(row.metrics)},
        }
        at = began + int(1000 * row.total.seconds)
        found += [
            Metric(name, float(value), at, row.step)
            for name, value in unique_names(values).items()
            if math.isfinite(value)
        ]
    return found


def _with_bounds(figures: Mapping[str, Figure]) -> Iterator[tuple[str, float]]:
    for name, figure in figures.items():
        base = name[: MAX_NAME - 8]
        ends = ((name, figure.value), (f"{base}_ci_low", figure.ci_low), (f"{base}_ci_high", figure.ci_high))
        yield from ((key, value) for key, value in ends if value is not None)


def params_of_point(point: PointData) -> dict[str, str]:
    """The values of the swept axes, the seed, and the cell."""
    found = {**point.point.values, "seed": point.point.seed, "cell": point.point.cell}
    return unique_names({k: clean(_text(v), MAX_PARAM) for k, v in found.items()})


def tags_of_point(point: PointData, extra: Mapping[str, str]) -> dict[str, str]:
    """How it ended, where it ran, from what."""
    state, result = point.state, point.result
    found: dict[str, Any] = {
        "mlflow.source.name": "blip3o-eval sweep",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": (point.sweep.sweep().get("git") or {}).get("commit"),
        "mlflow.note.content": _note(point),
        "status": state.status,
        "error": state.error,
        "attempts": state.attempts,
        "host": state.host,
        "stages": ", ".join(point.point.stages) or None,
        "config_sha256": point.point.digest,
        "weights_sha256": result.weights_sha256 if result else None,
        "unreadable": point.problem,
    }
    return _tags(found, extra)


def tags_of_sweep(
    sweep: Mapping[str, Any], points: Sequence[PointData], extra: Mapping[str, str]
) -> dict[str, str]:
    """What was asked, how far it is, and with which code."""
    git = sweep.get("git") or {}
    counts = Counter(point.state.status for point in points)
    found: dict[str, Any] = {
        "mlflow.source.name": "blip3o-eval sweep",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": git.get("commit"),
        "mlflow.note.content": sweep.get("description") or None,
        "git.is_dirty": git.get("is_dirty"),
        "sweep": sweep["name"],
        "sweep.digest": sweep.get("digest"),
        "sweep.baseline": sweep.get("baseline"),
        "points": ", ".join(f"{n} {status}" for status, n in sorted(counts.items())),
        **{f"version.{name}": version for name, version in (sweep.get("versions") or {}).items()},
    }
    return _tags(found, extra)


def params_of_sweep(sweep: Mapping[str, Any]) -> dict[str, str]:
    """The axes with their values, and the definition's other settings, flat."""
    found: dict[str, Any] = {f"axis.{label}": values for label, values in sweep["axes"].items()}
    definition = {k: v for k, v in sweep["definition"].items() if k not in ("name", "description", "axes")}
    for key, value in _flat(definition):
        found.setdefault(key, value)
    return unique_names({k: clean(_text(v), MAX_PARAM) for k, v in found.items()})


def summary(points: Sequence[PointData]) -> tuple[dict[str, float], str]:
    """Counts and training compute of all points, and the status of the parent run when the sweep is left."""
    counts = Counter(point.state.status for point in points)
    figures = {f"points/{status}": float(counts[status]) for status in ("done", "failed", "skipped", "pending")}
    results = [point.result for point in points if point.result is not None]
    figures["train/own_seconds"] = sum(result.own.seconds for result in results)
    figures["evaluation/seconds"] = sum(result.evaluation_seconds for result in results)
    if counts["pending"] or counts["running"]:
        return figures, "KILLED"
    return figures, "FINISHED" if counts["done"] else "FAILED"


def _note(point: PointData) -> str | None:
    if point.result is None:
        return point.state.error
    lines = ["| figure | value | bounds | n |", "| --- | --- | --- | --- |"]
    for name, figure in point.result.metrics.items():
        bounds = f"{number(figure.ci_low, figure.unit)} to {number(figure.ci_high, figure.unit)}"
        lines.append(f"| {words(name)} | {number(figure.value, figure.unit)} | {bounds} | {figure.n} |")
    return "\n".join(lines)


def _tags(found: Mapping[str, Any], extra: Mapping[str, str]) -> dict[str, str]:
    texts = {
        metric_name(k): str(v).lower() if isinstance(v, bool) else str(v) for k, v in found.items() if v is not None
    }
    texts |= unique_names({str(k): str(v) for k, v in extra.items()})
    return {key: clean(value, MAX_TAG) for key, value in texts.items()}


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping) and inner:
            yield from _flat(inner, f"{name}.")
        elif inner not in (None, [], {}, ""):
            yield name, inner


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
