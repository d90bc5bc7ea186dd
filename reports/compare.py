"""Several runs side by side: figures, paired differences against the first, and their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evals import stats
from evals.api import MetricValue
from evals.errors import UsageError
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
        "differences": _differences(samples, shared, list(task["groups"]), names),
        "n_shared": len(shared),
        "meanings": MEANINGS,
        "gallery_json": script_json(_gallery(runs, samples, names)),
        "downloads": _downloads(runs, names),
    }


def check_comparable(runs: Sequence[RunData]) -> None:
    """Refuse runs of different tasks, prompts or judges. Raises UsageError."""
    first = runs[0]

    def judge_of(run: RunData) -> Any:
        judge = run.manifest["judge"]
        return judge and (judge["name"], judge["version"], judge["weights_sha256"][:12])

    for run in runs[1:]:
        pairs = {
            "task": (first.manifest["task"]["name"], run.manifest["task"]["name"]),
            "task version": (first.manifest["task"]["version"], run.manifest["task"]["version"]),
            "prompts": (
                first.manifest["task"]["prompts_sha256"],
                run.manifest["task"]["prompts_sha256"],
            ),
            "judge": (judge_of(first), judge_of(run)),
        }
        differing = [f"{key}: {a} and {b}" for key, (a, b) in pairs.items() if a != b]
        if differing:
            raise UsageError(
                f"{first.root} and {run.root} do not compare ({'; '.join(differing)}): "
                "report them one by one, or judge both with the same judge"
            )


def run_names(runs: Sequence[RunData]) -> list[str]:
    """Model names; the configuration's first digits, then a number, tell equal ones apart."""
    names = [str(run.manifest["model"]["name"]) for run in runs]
    if len(set(names)) < len(names):
        names = [f"{n} {r.manifest['config_sha256'][:8]}" for n, r in zip(names, runs, strict=True)]
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[i] = f"{name} ({seen[name]})"
    return names


def _metric_rows(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    by_run = [{m.name: m for m in run.metric_values()} for run in runs]
    names = list(dict.fromkeys(name for metrics in by_run for name in metrics))
    rows: list[dict[str, Any]] = []
    for name in names:
        cells: list[MetricValue | None] = [metrics.get(name) for metrics in by_run]
        if any(cell is not None and cell.value is not None for cell in cells):
            rows.append({"name": name, "cells": cells})
    return rows


def _differences(
    samples: Sequence[pandas.DataFrame],
    shared: Sequence[tuple[str, int]],
    groups: Sequence[str],
    names: Sequence[str],
) -> list[dict[str, Any]]:
    """Per further run: the difference to the first in each group and overall, on shared samples only.

    p-values are Holm-adjusted over everything in the table.
    """
    if not shared:
        return []
    aligned = []
    for frame in samples:
        indexed = frame.set_index(["sample_id", "image_index"]).loc[list(shared)]
        aligned.append(indexed["value"].astype(float).to_numpy())
    first = samples[0].set_index(["sample_id", "image_index"]).loc[list(shared)]
    group_of = list(first["group"])
    prompts = [sample_id for sample_id, _ in shared]
    bounded = all(((v >= 0) & (v <= 1)).all() for v in aligned)
    present = [g for g in groups if g in set(group_of)]
    found = []
    for run, values in enumerate(aligned[1:], 1):
        parts: list[tuple[str, stats.PairedDifference]] = []
        if len(present) == len(groups) > 1:
            overall = stats.paired_difference(
                values, aligned[0], prompts, group_of, bounded=bounded
            )
            parts.append(("overall", overall))
        for group in present:
            rows = [i for i, g in enumerate(group_of) if g == group]
            difference = stats.paired_difference(
                values[rows], aligned[0][rows], [prompts[i] for i in rows], bounded=bounded
            )
            parts.append((group, difference))
        found.append((run, parts))
    adjusted = iter(stats.holm(d.p_value for _, parts in found for _, d in parts))
    return [
        {
            "name": names[run],
            "rows": [{"group": group, "d": d, "p": next(adjusted)} for group, d in parts],
        }
        for run, parts in found
    ]


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
