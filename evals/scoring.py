"""Second and third phase of a run: outputs -> scores on disk -> results.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evals.api import Score, ScoreItem, ScoreRow, Task
from evals.generate import call_split, one_line
from evals.jsonl import LineWriter, Scan
from evals.plan import Batch, Plan
from evals.progress import Progress
from evals.results import (
    SCHEMA_VERSION,
    metric_to_json,
    output_from_json,
    score_from_json,
    score_to_json,
)
from evals.store import SCORES, RunStore, writing

FAILED = "failed"  # key in details: "output" or "judge"; such rows count against --max-errors


def score_outputs(
    store: RunStore,
    plan: Plan,
    outputs: Scan,
    pending: Iterable[Batch],
    task: Task,
    judge: Any | None,
    progress: Progress,
) -> None:
    """Score the pending batches of outputs; each is on disk before the next starts."""
    path = store.root / SCORES
    with writing(path), LineWriter(path) as writer, outputs.reader() as reader:
        for batch in pending:
            rows = [json.loads(reader.line(p)) for p in batch.positions]
            scores = _score_batch(store, plan, batch, rows, task, judge)
            writer.append(
                score_to_json(ScoreRow(row["sample_id"], row["image_index"], row["group"], score))
                for row, score in zip(rows, scores, strict=True)
            )
            progress.advance(len(rows), sum(_is_failure(s) for s in scores))


def _score_batch(
    store: RunStore,
    plan: Plan,
    batch: Batch,
    rows: Sequence[Mapping[str, Any]],
    task: Task,
    judge: Any | None,
) -> list[Score]:
    items = []
    for position, row in zip(batch.positions, rows, strict=True):
        if row["status"] == "ok":
            image = store.read_image(row) if "path" in row else None
            items.append(ScoreItem(plan.place(position)[0], output_from_json(row), image))
    made = iter(call_split(lambda part: task.score(part, judge), items)) if items else iter(())
    scores = []
    for row in rows:
        if row["status"] != "ok":
            scores.append(Score.unscored(f"output failed: {row['error']}", **{FAILED: "output"}))
            continue
        score = next(made)
        if isinstance(score, Exception):
            score = Score.unscored(f"judge failed: {one_line(score)}", **{FAILED: "judge"})
        scores.append(score)
    return scores


def _is_failure(score: Score) -> bool:
    return not score.is_scored and FAILED in score.details


def compute_results(
    task: Task, manifest: Mapping[str, Any], rows: Sequence[ScoreRow], timing: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of ``results.json``."""
    metrics = [metric.compute(rows) for metric in task.metrics()]
    failed = [row for row in rows if _is_failure(row.score)]
    scored = sum(row.score.is_scored for row in rows)
    return {
        "schema": SCHEMA_VERSION,
        "task": _short(manifest["task"], "name", "version", "prompts_sha256"),
        "model": _short(
            manifest["model"], "name", "version", "weights_sha256", "domain", "settings"
        ),
        "judge": manifest["judge"]
        and _short(manifest["judge"], "name", "version", "weights_sha256", "domain", "settings"),
        "config_sha256": manifest["config_sha256"],
        "seed": {"seed": manifest["config"]["seed"], "mode": manifest["config"]["seed_mode"]},
        "partial": manifest["partial"],
        "is_test_double": any(
            m is not None and m["is_test_double"] for m in (manifest["model"], manifest["judge"])
        ),
        "deviations": manifest["deviations"],
        "warnings": manifest["warnings"],
        "metrics": {m.name: metric_to_json(m) for m in metrics},
        "groups": {g: _group(g, rows) for g in _groups_in_order(task, rows)},
        "counts": {
            "samples": len({row.sample_id for row in rows}),
            "outputs": len(rows),
            "failed": len(failed),
            "scored": scored,
            "unscored": len(rows) - scored,
        },
        "judge_accuracy": (manifest["judge"] or {}).get("accuracy", {}),
        "timing": dict(timing),
    }


def _short(source: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: source[key] for key in keys}


def _groups_in_order(task: Task, rows: Sequence[ScoreRow]) -> list[str]:
    present = dict.fromkeys(row.group for row in rows)
    return [
        *(g for g in task.groups if g in present),
        *(g for g in present if g not in task.groups),
    ]


def _group(group: str, rows: Sequence[ScoreRow]) -> dict[str, Any]:
    mine = [row for row in rows if row.group == group]
    values = [row.score.value for row in mine if row.score.value is not None]
    return {
        "samples": len({row.sample_id for row in mine}),
        "outputs": len(mine),
        "failed": sum(_is_failure(row.score) for row in mine),
        "scored": len(values),
        "unscored": len(mine) - len(values),
        "mean": sum(values) / len(values) if values else None,
    }


def read_scores(scores: Scan) -> list[ScoreRow]:
    """All scores in plan order."""
    return [score_from_json(json.loads(line)) for line in scores.lines()]
