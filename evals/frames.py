"""Finished runs as tables: one row per metric, one row per output. The one home of their columns.

Reports, ``export``, ``Run.to_pandas`` and notebooks start from here. Rows are plain Python; pandas is
imported by the functions that return frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

    from evals.results import RunData

METRIC_COLUMNS = (
    "metric", "value", "ci_low", "ci_high", "n", "unscored", "clusters", "unit",
    "higher_is_better", "method", "note",
)  # fmt: skip
BULKY_DETAILS = ("features", "logits")

SAMPLE_COLUMNS = (
    "sample_id", "image_index", "group", "prompt", "value", "reason", "unscored", "answer", "details", "seed",
    "status", "path", "text", "error", "sha256", "bytes", "seconds",
)  # fmt: skip


def metric_rows(run: RunData) -> list[tuple[Any, ...]]:
    """One row per metric (``METRIC_COLUMNS``), in printing order; None where there is no value."""
    return [
        (
            metric.name,
            metric.value,
            *(metric.ci95 or (None, None)),
            metric.n,
            metric.unscored,
            metric.clusters,
            metric.unit,
            metric.higher_is_better,
            metric.method,
            metric.note,
        )
        for metric in run.metric_values()
    ]


def metrics_frame(run: RunData) -> pandas.DataFrame:
    """One row per metric, in printing order; value, ci_low and ci_high are NaN where there is none."""
    import pandas

    frame = pandas.DataFrame(metric_rows(run), columns=list(METRIC_COLUMNS))
    return frame.astype({"value": float, "ci_low": float, "ci_high": float})


def sample_rows(run: RunData) -> list[dict[str, Any]]:
    """One row per output with its score (``SAMPLE_COLUMNS``), in plan order; what a row lacks is None."""
    has_scores = (run.root / "scores.jsonl").exists()
    scores = (
        {(row["sample_id"], row["image_index"]): without_bulk(row) for row in run.scores()}
        if has_scores
        else {}
    )
    columns = dict.fromkeys(SAMPLE_COLUMNS)
    rows = []
    for output in run.outputs():
        score = scores.get((output["sample_id"], output["image_index"]), {})
        rows.append({**columns, **encodable(score), **encodable(output)})
    return rows


def without_bulk(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A score's line without a picture's features: only metrics read them, and they are 16 kB a picture."""
    details = row.get("details")
    if not isinstance(details, Mapping) or not any(key in details for key in BULKY_DETAILS):
        return row
    return {**row, "details": {k: v for k, v in details.items() if k not in BULKY_DETAILS}}


def samples_frame(run: RunData) -> pandas.DataFrame:
    """One row per output with its score; details is a column of dicts.

    ``value`` and ``seconds`` are floats with NaN where there is none, the other columns Python objects
    with None: pandas' own text type refuses what JSON can hold.
    """
    import pandas

    frame = pandas.DataFrame(sample_rows(run), columns=list(SAMPLE_COLUMNS), dtype=object)
    return frame.astype({"value": float, "seconds": float})


def encodable(value: Any) -> Any:
    """The value without lone surrogates, which JSON can hold and no encoding can write."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {encodable(k): encodable(v) for k, v in value.items()}
    if isinstance(value, list):
        return [encodable(v) for v in value]
    return value


def spreadsheet_safe(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula is quoted: prompts and names are other people's."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value
