"""Several runs side by side: figures, paired differences against the first, and their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evals.api import MetricValue
from evals.comparison import check_comparable, paired_comparisons, run_names
from evals.results import RunData
from reports import tables
from reports.embed import data_uri, script_json
from reports.facts import command_of
from reports.format import count
from reports.gallery import BUDGET_BYTES, build_gallery, interleaved
from reports.page import MEANINGS, banners, task_title

if TYPE_CHECKING:
    import pandas

PICTURES_PER_RUN = 2  # of each prompt, side by side


def comparison_page(runs: Sequence[RunData]) -> dict[str, Any]:
    """The template's values for two or more finished runs of one task.

    Raises: UsageError naming what differs when the runs cannot be set side by side.
    """
    check_comparable(runs)
    names = run_names(runs)
    samples = [tables.samples_frame(run) for run in runs]
    shared = tables.shared_samples(samples)
    task = runs[0].manifest["task"]
    all_banners = [banners(run) for run in runs]
    common = [b for b in all_banners[0] if all(b in others for others in all_banners)]
    return {
        "title": f"{task_title(task['name'])}: {', '.join(names)}",
        "task_title": task_title(task["name"]),
        "runs": [
            {
                "name": name,
                "manifest": run.manifest,
                "results": run.results,
                "banners": [b for b in own if b not in common],
                "command": command_of(run.manifest["config"]),
            }
            for name, run, own in zip(names, runs, all_banners, strict=True)
        ],
        "banners": common,
        "metrics": _metric_rows(runs),
        "differences": paired_comparisons(runs) if shared else [],
        "n_shared": len(shared),
        "meanings": MEANINGS,
        "gallery_json": script_json(_gallery(runs, samples, names)),
        "downloads": _downloads(runs, names),
    }


def _metric_rows(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    by_run = [{m.name: m for m in run.metric_values()} for run in runs]
    names = list(dict.fromkeys(name for metrics in by_run for name in metrics))
    rows: list[dict[str, Any]] = []
    for name in names:
        cells: list[MetricValue | None] = [metrics.get(name) for metrics in by_run]
        if any(cell is not None and cell.value is not None for cell in cells):
            rows.append({"name": name, "cells": cells})
    return rows


def _gallery(
    runs: Sequence[RunData], samples: Sequence[pandas.DataFrame], names: Sequence[str]
) -> dict[str, Any]:
    """The first pictures of each prompt that all runs have, run after run."""
    ids = set.intersection(*(set(frame["sample_id"]) for frame in samples))
    galleries = []
    for run, frame in zip(runs, samples, strict=True):
        kept = frame[frame["sample_id"].isin(ids)]
        kept = kept[kept.groupby("sample_id").cumcount() < PICTURES_PER_RUN]
        galleries.append(build_gallery(run.root, kept, BUDGET_BYTES * 2 // (1 + len(runs))).data)
    kinds = list(dict.fromkeys(kind for gallery in galleries for kind in gallery["kinds"]))
    by_id: dict[str, dict[str, Any]] = {}
    for number, gallery in enumerate(galleries):
        for entry in gallery["samples"]:
            for output in entry["o"]:
                output["k"] = [kinds.index(gallery["kinds"][k]) for k in output["k"]]
                output["n"] = number
            if entry["id"] in by_id:
                by_id[entry["id"]]["o"] += entry["o"]
            else:
                by_id[entry["id"]] = entry
    groups = galleries[0]["groups"]
    return {
        **galleries[0],
        "kinds": kinds,
        "runs": list(names),
        "samples": interleaved(sorted(by_id.values(), key=lambda e: str(e["id"])), len(groups)),
    }


def _downloads(runs: Sequence[RunData], names: Sequence[str]) -> list[dict[str, str]]:
    import pandas

    frames = []
    for run, name in zip(runs, names, strict=True):
        frame = tables.metrics_frame(run)
        frame.insert(0, "run", name)
        frames.append(frame)
    content = tables.metrics_csv(pandas.concat(frames))
    return [
        {
            "name": "comparison.csv",
            "text": "Figures of all runs with intervals, CSV",
            "href": data_uri(content, "text/csv"),
            "kb": count(max(1, len(content) // 1000)),
        }
    ]
