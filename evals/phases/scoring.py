"""Second and third phase of a run: outputs -> scores on disk -> results.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, overload

from evals.api import Metric, MetricValue, Score, ScoreItem, ScoreRow, Task
from evals.io.jsonl import LineWriter, Scan
from evals.phases import readymade
from evals.phases.attempts import Attempts
from evals.phases.calls import one_line
from evals.phases.plan import Batch, Plan
from evals.results import (
    SCHEMA_VERSION,
    metric_to_json,
    output_from_json,
    score_from_json,
    score_to_json,
)
from evals.store import SCORES, RunStore, writing


class Advances(Protocol):
    """Is told how many outputs were scored."""

    def advance(self, done: int, failed: int = 0) -> None: ...


FAILED = "failed"  # key in details: "output" or "judge"; such rows count against --max-errors


ROWS_IN_MEMORY = 20_000  # up to here all scores are held at once: metrics pass over them many times
BYTES_IN_MEMORY = 64 * 2**20  # and unless they are larger, as where scores hold a picture's features


def score_outputs(
    store: RunStore,
    plan: Plan,
    outputs: Scan,
    pending: Iterable[Batch],
    call: Callable[[Sequence[ScoreItem]], Sequence[Any]],
    attempts: Attempts,
    progress: Advances,
) -> None:
    """Score the pending batches of outputs; each is on disk before the next starts."""
    path = store.root / SCORES
    with writing(path), LineWriter(path) as writer, outputs.reader() as reader:
        for batch in pending:
            rows = [json.loads(reader.line(p)) for p in batch.positions]
            attempts.starting(batch.start)
            scores = _score_batch(store, plan, batch, rows, call)
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
    call: Callable[[Sequence[ScoreItem]], Sequence[Any]],
) -> list[Score]:
    items = []
    for position, row in zip(batch.positions, rows, strict=True):
        if row["status"] == "ok":
            image = store.read_image(row) if "path" in row else None
            items.append(ScoreItem(plan.place(position)[0], output_from_json(row), image))
    made = iter(call(items)) if items else iter(())
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
    task: Task,
    manifest: Mapping[str, Any],
    rows: Sequence[ScoreRow],
    timing: Mapping[str, Any],
    further: Sequence[Metric] = (),
) -> dict[str, Any]:
    """The content of ``results.json``; ``further`` metrics come after the task's own."""
    metrics: Sequence[MetricValue] = [m.compute(rows) for m in (*task.metrics(), *further)]
    if readymade.needs_all_outputs(manifest):
        metrics = readymade.without_headline(metrics, rows)
    seed, mode = manifest["config"]["seed"], manifest["config"]["seed_mode"]
    if readymade.is_made_elsewhere(manifest):
        seed = mode = None
    groups = _count_groups(task, rows)
    total = _Counts.sum_of(groups.values())
    return {
        "schema": SCHEMA_VERSION,
        "task": _short(manifest["task"], "name", "version", "prompts_sha256"),
        "model": _short(
            manifest["model"], "name", "version", "weights_sha256", "domain", "settings"
        ),
        "judge": manifest["judge"]
        and _short(manifest["judge"], "name", "version", "weights_sha256", "domain", "settings"),
        "config_sha256": manifest["config_sha256"],
        "seed": {"seed": seed, "mode": mode},
        "partial": manifest["partial"],
        "is_test_double": any(
            m is not None and m["is_test_double"] for m in (manifest["model"], manifest["judge"])
        ),
        "deviations": manifest["deviations"],
        "warnings": [*manifest["warnings"], *_task_warnings(task, rows)],
        **({"parent": manifest["parent"]} if manifest.get("parent") else {}),
        "metrics": {m.name: metric_to_json(m) for m in metrics},
        "groups": {
            name: {**counts.to_json(), "mean": counts.total / counts.scored if counts.scored else None}
            for name, counts in groups.items()
        },
        "counts": total.to_json(),
        "judge_accuracy": (manifest["judge"] or {}).get("accuracy", {}),
        "timing": dict(timing),
    }


def _task_warnings(task: Task, rows: Sequence[ScoreRow]) -> list[str]:
    """What the task's optional ``warnings(rows)`` says about all scores of a run."""
    warn = getattr(task, "warnings", None)
    return list(warn(rows)) if warn is not None else []


def _short(source: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: source[key] for key in keys}


@dataclass
class _Counts:
    samples: int = 0
    outputs: int = 0
    failed: int = 0
    scored: int = 0
    total: float = 0.0

    @classmethod
    def sum_of(cls, parts: Iterable[_Counts]) -> _Counts:
        whole = cls()
        for part in parts:
            whole.samples += part.samples
            whole.outputs += part.outputs
            whole.failed += part.failed
            whole.scored += part.scored
        return whole

    def to_json(self) -> dict[str, int]:
        return {
            "samples": self.samples,
            "outputs": self.outputs,
            "failed": self.failed,
            "scored": self.scored,
            "unscored": self.outputs - self.scored,
        }


def _count_groups(task: Task, rows: Iterable[ScoreRow]) -> dict[str, _Counts]:
    """Counts per group, in the task's order. The rows of one sample stand next to each other."""
    found: dict[str, _Counts] = {}
    before: str | None = None
    for row in rows:
        counts = found.setdefault(row.group, _Counts())
        counts.samples += row.sample_id != before
        before = row.sample_id
        counts.outputs += 1
        counts.failed += _is_failure(row.score)
        if row.score.value is not None:
            counts.scored += 1
            counts.total += row.score.value
    order = [*(g for g in task.groups if g in found), *(g for g in found if g not in task.groups)]
    return {name: found[name] for name in order}


class ScoreTable(Sequence[ScoreRow]):
    """All scores in plan order, read from the disk each time they are passed over."""

    def __init__(self, scores: Scan) -> None:
        self._scores = scores

    def __len__(self) -> int:
        return self._scores.num_done

    def __iter__(self) -> Iterator[ScoreRow]:
        return (score_from_json(json.loads(line)) for line in self._scores.lines())

    @overload
    def __getitem__(self, index: int) -> ScoreRow: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[ScoreRow]: ...

    def __getitem__(self, index: int | slice) -> ScoreRow | Sequence[ScoreRow]:
        places = range(len(self))[index]
        with self._scores.reader() as reader:
            if isinstance(places, int):
                return score_from_json(json.loads(reader.line(places)))
            return [score_from_json(json.loads(reader.line(p))) for p in places]


def read_scores(scores: Scan) -> Sequence[ScoreRow]:
    """All scores of a finished scan in plan order; many of them, or large ones, stay on disk."""
    table = ScoreTable(scores)
    size = sum(file.stat().st_size for file in scores.files)
    return list(table) if len(table) <= ROWS_IN_MEMORY and size <= BYTES_IN_MEMORY else table
