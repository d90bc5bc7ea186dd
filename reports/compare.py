"""Several runs side by side: figures, paired differences against the first, and their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evals.api import MetricValue
from evals.comparison import (
    Difference,
    RunDifferences,
    check_comparable,
    paired_comparisons,
    run_names,
)
from evals.frames import metrics_frame
from evals.results import RunData
from reports import plots, tables
from reports.accuracy import OWN_PICTURES, judge_context
from reports.banners import banners, is_stickers
from reports.credits import credits_of
from reports.downloads import CSV, File, csv_file, json_file, stem_of
from reports.facts import command_of
from reports.failures import verdict_words
from reports.format import interval, number, signed, signed_interval, words
from reports.gallery import BUDGET_BYTES, Gallery, build_gallery, side_by_side
from reports.page import both_widths, files_context, gallery_context, glossary_context, task_title

if TYPE_CHECKING:
    import pandas

PICTURES_PER_RUN = 2  # of each prompt, side by side
ALPHA = 0.05
MAX_SHOWN_SETTINGS = 4


def comparison_page(runs: Sequence[RunData]) -> dict[str, Any]:
    """The template's values for two or more runs of one task.

    Raises: UsageError naming what differs when the runs cannot be set side by side.
    """
    check_comparable(runs)
    names = run_names(runs)
    samples = [tables.samples_frame(run) for run in runs]
    task = runs[0].manifest["task"]
    all_banners = [banners(run) for run in runs]
    common = [b for b in all_banners[0] if all(b in others for others in all_banners)]
    comparisons = paired_comparisons(runs)
    roots = [str(run.root) for run in runs]
    metrics = _metric_rows(runs)
    settings = _settings(runs)
    # One judge, but a later run may know more about it: labels of the model's own pictures come after its weights.
    measured = [(run.manifest["judge"] or {}).get("accuracy") or {} for run in runs]
    accuracy = next((a for a in measured if OWN_PICTURES in a), measured[0])
    judged = judge_context(runs[0].manifest["judge"], accuracy, task["name"])
    said = verdict_words(task["name"], task["kind"])
    stem = stem_of(task["name"], "comparison")
    shown = [row["first"] for row in metrics]
    return {
        "title": f"{task_title(task['name'])}: {', '.join(names)}",
        "task_title": task_title(task["name"]),
        "runs": [
            {
                "name": name,
                "color": plots.run_color(i),
                "manifest": run.manifest,
                "results": run.results,
                "headline": _headline(run),
                "differs": _own_settings(settings, i),
                "banners": [b for b in own if b not in common],
                "command": command_of(run.manifest),
            }
            for i, (name, run, own) in enumerate(zip(names, runs, all_banners, strict=True))
        ],
        "banners": common,
        "metrics": metrics,
        "charts": _runs_charts(metrics, names, list(task["groups"])),
        "stem": stem,
        "differences": [_difference(found, names[0], stem, roots) for found in comparisons],
        "n_shared": len(tables.shared_samples(samples)),
        "settings": settings,
        "same_seeds": len({r.manifest["config"]["seed"] for r in runs}) == 1
        and len({r.manifest["config"]["seed_mode"] for r in runs}) == 1,
        **judged,
        "is_stickers": is_stickers(runs[0]),
        "credits": credits_of(runs[0].manifest),
        **glossary_context(
            shown,
            task,
            {"interval", "scored", "prompts", "difference", "p"}
            | ({"judge"} if judged["verdicts"] else set()),
            is_judged=runs[0].manifest["judge"] is not None,
        ),
        "things": f"{said['thing']}s",
        **gallery_context(_gallery(runs, samples, names), said),
        **files_context(_files(runs, names, comparisons, stem)),
    }


def _headline(run: RunData) -> MetricValue | None:
    metrics = run.metric_values()
    return metrics[0] if metrics and run.is_finished else None


def _metric_rows(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    by_run = [{m.name: m for m in run.metric_values()} for run in runs]
    # Of an unfinished run there are only group means, so the order is that of the one with most figures.
    fullest = max(by_run, key=len)
    names = list(dict.fromkeys([*fullest, *(name for metrics in by_run for name in metrics)]))
    rows: list[dict[str, Any]] = []
    for name in names:
        cells: list[MetricValue | None] = [metrics.get(name) for metrics in by_run]
        given = [cell for cell in cells if cell is not None and cell.value is not None]
        if given:
            rows.append({"name": name, "cells": cells, "first": given[0]})
    return rows


def _runs_charts(
    metrics: Sequence[dict[str, Any]], names: Sequence[str], groups: Sequence[str]
) -> list[dict[str, Any]]:
    rows = [row for i, row in enumerate(metrics) if i == 0 or row["name"] in groups]
    units = {row["first"].unit for row in rows}
    if not rows or len(units) != 1 or units - {"fraction", "percent"}:
        return []
    text = "; ".join(
        f"{words(row['name'])}: "
        + ", ".join(
            f"{name} {number(c.value, c.unit)} ({interval(c.ci95, c.unit)})"
            for name, c in zip(names, row["cells"], strict=True)
            if c is not None
        )
        for row in rows
    )
    return both_widths(
        lambda width_in: plots.runs_chart(
            [words(row["name"]) for row in rows],
            names,
            [[row["cells"][r] and row["cells"][r].value for row in rows] for r in range(len(names))],
            [[row["cells"][r] and row["cells"][r].ci95 for row in rows] for r in range(len(names))],
            width_in=width_in,
            top=1.0 if units == {"fraction"} else 100.0,
        ),
        "Results of all runs with 95 % intervals",
        text,
    )


def _settings(runs: Sequence[RunData]) -> list[tuple[str, list[Any]]]:
    """(fingerprint key, value in each run) for what is not the same everywhere; absent is None."""
    prints = [run.manifest.get("fingerprint") or {} for run in runs]
    keys = dict.fromkeys(key for fingerprint in prints for key in fingerprint)
    rows = [(key, [fingerprint.get(key) for fingerprint in prints]) for key in keys]
    return [(key, values) for key, values in rows if any(v != values[0] for v in values[1:])]


def _own_settings(settings: Sequence[tuple[str, list[Any]]], number: int) -> str:
    """What sets one run apart from the others, in a few words; digests say nothing to a reader."""
    shown = [
        f"{words(key.rpartition('.')[2])} {values[number]}"
        for key, values in settings
        if "sha256" not in key and key != "model.name" and values[number] is not None
    ]
    return ", ".join(shown[:MAX_SHOWN_SETTINGS])


def _difference(found: RunDifferences, first: str, stem: str, roots: Sequence[str]) -> dict[str, Any]:  # fmt: skip
    """A run against the first with its chart, and the one sentence that it comes to."""
    rows = [row for row in found.rows if row.difference is not None]
    part: dict[str, Any] = {
        "name": found.name,
        "rows": rows,
        "left_out": [r for r in found.rows if r.difference is None and r.note],
        # A page that is sent on has no business naming folders of this machine.
        "notes": [n for n in found.notes if not any(root in n for root in roots)],
        "charts": [],
        "sentence": "",
    }
    if not rows:
        return part
    head = rows[0]
    name = words(head.metric)
    if is_shown(head):
        word = "higher" if (head.difference or 0) > 0 else "lower"
        part["sentence"] = f"{found.name} is {word} than {first} in {name}"
    else:
        part["sentence"] = f"No difference between {found.name} and {first} is shown in {name}"
    part["sentence"] += f": {signed(head.difference, head.unit)}"
    if head.ci95:
        part["sentence"] += f", 95 % interval {signed_interval(head.ci95, head.unit)}"
    if head.p_holm is not None:
        part["sentence"] += f", p = {head.p_holm:.3f} after Holm's correction"
    part["sentence"] += "."
    drawn = [row for row in rows if row.unit == head.unit]
    text = "; ".join(f"{words(r.metric)} {signed(r.difference, r.unit)}" for r in drawn)

    def draw(width_in: float) -> Any:
        notes = [f"{signed(r.difference, r.unit)}  n {r.n:,}" for r in drawn]
        return plots.difference_chart(
            [words(r.metric) for r in drawn],
            [r.difference or 0.0 for r in drawn],
            [r.ci95 for r in drawn],
            [is_shown(r) for r in drawn],
            width_in=width_in,
            notes=notes if width_in > 5 else [],
        )

    part["charts"] = both_widths(draw, f"{found.name} minus {first}", text)
    part["csv"] = f"{stem}-differences.csv"
    part["figure"] = stem_of(stem, "difference", found.name)
    return part


def is_shown(row: Difference) -> bool:
    """Whether the difference is more than chance would make, after correction."""
    return row.p_holm is not None and row.p_holm < ALPHA


def _gallery(
    runs: Sequence[RunData], samples: Sequence[pandas.DataFrame], names: Sequence[str]
) -> Gallery:
    """The first pictures of each prompt that all runs have, run after run."""
    ids = set.intersection(*(set(frame["sample_id"]) for frame in samples))
    galleries = []
    for run, frame in zip(runs, samples, strict=True):
        kept = frame[frame["sample_id"].isin(ids)]
        kept = kept[kept.groupby("sample_id").cumcount() < PICTURES_PER_RUN]
        galleries.append(build_gallery(run.root, kept, BUDGET_BYTES * 2 // (1 + len(runs))))
    return side_by_side(galleries, range(len(runs)), names, sum(map(len, samples)))


def _files(
    runs: Sequence[RunData], names: Sequence[str], comparisons: Sequence[RunDifferences], stem: str
) -> list[File]:
    import pandas

    frames = []
    for run, name in zip(runs, names, strict=True):
        frame = metrics_frame(run)
        frame.insert(0, "run", name)
        frames.append(frame)
    differences = [
        {
            "run": found.name,
            "minus": names[0],
            "figure": row.metric,
            "unit": row.unit,
            "difference": row.difference,
            "ci_low": row.ci95[0] if row.ci95 else None,
            "ci_high": row.ci95[1] if row.ci95 else None,
            "p": row.p_value,
            "p_holm": row.p_holm,
            "outputs": row.n,
            "prompts": row.n_clusters,
            "method": row.method,
            "note": row.note,
        }
        for found in comparisons
        for row in found.rows
    ]
    both = {
        name: {"manifest": run.manifest, "results": run.results}
        for name, run in zip(names, runs, strict=True)
    }
    return [
        File(f"{stem}.csv", tables.metrics_csv(pandas.concat(frames)), CSV, "Figures of all runs with intervals, CSV"),
        csv_file(f"{stem}-differences.csv", differences, "Paired differences, CSV"),
        json_file(f"{stem}.json", both, "Figures and how they were made, JSON"),
    ]  # fmt: skip
