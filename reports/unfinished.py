"""A run that is not finished, as far as it got: still running, killed, or given up on.

Reads whatever shard files are there and stops at the first line of each that is torn or damaged. What it has no
right to say it leaves out: no headline figure, only the mean of each group so far, and how much is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from evals import stats
from evals.api import MetricValue
from evals.errors import InputError
from evals.io.jsonl import read_rows
from evals.results import RunData, load, metric_to_json

SO_FAR = "so far; the run is not finished"


@dataclass(frozen=True)
class UnfinishedRun(RunData):
    """A run folder without its final files. `results` holds counts and group means of what is there."""

    def outputs(self) -> Iterator[dict[str, Any]]:
        """The outputs that are on disk, in plan order within each shard, each once."""
        return iter(self._outputs.values())

    def scores(self) -> Iterator[dict[str, Any]]:
        """The scores that are on disk, each once."""
        return iter(self._scores.values())

    @cached_property
    def _outputs(self) -> dict[tuple[str, int], dict[str, Any]]:
        return _rows(self.root, "outputs")

    @cached_property
    def _scores(self) -> dict[tuple[str, int], dict[str, Any]]:
        return _rows(self.root, "scores")


def load_any(root: Path) -> RunData:
    """A finished run as `evals.results.load` reads it, or the part of an unfinished one that is there.

    Raises: InputError as `load`.
    """
    run = load(root)
    if run.is_finished:
        return run
    partly = UnfinishedRun(run.root, run.manifest, None)
    return replace(partly, results=_results_so_far(partly))


def _rows(root: Path, stem: str) -> dict[tuple[str, int], dict[str, Any]]:
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for path in sorted(root.glob(f"{stem}*.jsonl")):
        try:
            for row in read_rows(path):
                found.setdefault((row["sample_id"], row["image_index"]), row)
        except (InputError, ValueError, KeyError):  # the torn end of a killed process, or worse
            continue
    return found


def _results_so_far(run: UnfinishedRun) -> Mapping[str, Any]:
    outputs, scores = list(run.outputs()), list(run.scores())
    scored = [row for row in scores if row.get("value") is not None]
    metrics = [_group_mean(name, scored, scores) for name in run.manifest["task"]["groups"]]
    parts = (run.manifest["model"], run.manifest["judge"])
    return {
        "is_test_double": any(part and part["is_test_double"] for part in parts),
        "counts": {
            "samples": len({row["sample_id"] for row in outputs}),
            "outputs": len(outputs),
            "failed": sum(row.get("status") != "ok" for row in outputs),
            "scored": len(scored),
            "unscored": len(scores) - len(scored),
        },
        "metrics": {metric.name: metric_to_json(metric) for metric in metrics},
        "warnings": list(run.manifest["warnings"]),
        "timing": {},
    }


def _group_mean(name: str, scored: list[dict[str, Any]], scores: list[dict[str, Any]]) -> MetricValue:  # fmt: skip
    rows = [row for row in scored if row["group"] == name]
    unscored = sum(row["group"] == name for row in scores) - len(rows)
    if not rows:
        return MetricValue(name, None, 0, unscored, note=SO_FAR)
    found = stats.mean([float(row["value"]) for row in rows], [row["sample_id"] for row in rows])
    bounds = None if found.ci is None else (found.lo, found.hi)
    return MetricValue(
        name,
        found.value,
        found.n,
        unscored,
        bounds,
        clusters=found.n_clusters,
        method=found.method,
        note=SO_FAR,
    )
