"""What the page of one run says, as plain values for the template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evals.api import MetricValue
from evals.results import RunData
from reports import plots, published, tables
from reports.accuracy import accuracy_tables
from reports.embed import data_uri, markup, script_json
from reports.facts import command_of, facts
from reports.format import count, interval, number, words
from reports.gallery import build_gallery

if TYPE_CHECKING:
    import pandas

TASK_TITLES = {"geneval": "GenEval", "dpg": "DPG-Bench", "fid": "FID"}
STICKERS = "stickers"
MEANINGS = {
    "overall": "plain mean of the group means",
    "seen_half": "prompts with two objects whose combination the model may have been trained on",
    "unseen_half": "prompts with two objects whose exact combination was kept out of training",
}
METHODS = {
    "bootstrap": "cluster bootstrap over prompts",
    "wilson": "Wilson interval at the effective sample size",
    "mover": "combined Wilson intervals of the groups",
    "t": "cluster-robust Student interval",
    "t+2": "Student interval with two added observations",
}


def run_page(run: RunData) -> dict[str, Any]:
    """The template's values for a finished run."""
    manifest, results = run.manifest, run.results
    assert results is not None
    samples = tables.samples_frame(run)
    metrics = run.metric_values()
    gallery = build_gallery(run.root, samples)
    task = manifest["task"]
    groups = [m for m in metrics if m.name in task["groups"]]
    by_pixels = [
        {"group": g, "judge": g, "pixels": m}
        for g in groups
        for m in metrics
        if m.name == f"{g.name}_by_pixels"
    ]
    by_pixels = [
        {"name": e["group"].name, "judge": e["judge"], "pixels": e["pixels"]} for e in by_pixels
    ]
    halves = [m for m in metrics if m.name in ("seen_half", "unseen_half") and m.value is not None]
    placed = {m.name for m in (*groups, *metrics[:1], *halves, *(e["pixels"] for e in by_pixels))}
    return {
        "title": f"{task_title(task['name'])} on {manifest['model']['name']}",
        "task_title": task_title(task["name"]),
        "run": run,
        "manifest": manifest,
        "results": results,
        "counts": results["counts"],
        "banners": banners(run),
        "headline": metrics[0] if metrics else None,
        "groups": groups,
        "halves": halves if len(halves) == 2 else [],
        "by_pixels": by_pixels,
        "others": [m for m in metrics if m.name not in placed and m.value is not None],
        "meanings": MEANINGS,
        "methods": METHODS,
        "charts": _result_charts(metrics[:1], groups),
        "failures": _failures(samples),
        "colors": _colors(samples),
        "accuracy": accuracy_tables((manifest["judge"] or {}).get("accuracy") or {}),
        "published": _published(run),
        "gallery": gallery,
        "gallery_json": script_json(gallery.data),
        "facts": facts(run),
        "command": command_of(manifest["config"]),
        "downloads": _downloads(run, samples),
        "is_stickers": is_stickers(run),
        "started": (manifest.get("sessions") or [{}])[0].get("started", ""),
    }


def task_title(name: str) -> str:
    """`GenEval` for `geneval`; other names as they are."""
    return TASK_TITLES.get(name, name)


def is_stickers(run: RunData) -> bool:
    """Whether the figures come from the sticker world's judge."""
    judge = run.manifest["judge"]
    return judge is not None and judge["domain"] == STICKERS


def banners(run: RunData) -> list[dict[str, str]]:
    """What a reader must know before the first number, gravest first; `level` is stop, warn or note."""
    manifest, results = run.manifest, run.results
    assert results is not None
    counts, found = results["counts"], []
    doubles = [
        f"{role} {part['name']!r}"
        for role in ("model", "judge")
        if (part := manifest[role]) is not None and part["is_test_double"]
    ]
    if doubles or results["is_test_double"]:
        who = " and ".join(doubles) or "a part of this run"
        found.append(
            (
                "stop",
                "Not a measurement",
                f"Made with a test double ({who}). These figures mean nothing.",
            )
        )
    if manifest["partial"]:
        plan = manifest["plan"]
        found.append(
            ("warn", "Partial run",
             f"{count(plan['samples'])} of {count(plan['official_samples'])} prompts were run. "
             "The figures are estimates for the whole and are not the benchmark's score.")
        )  # fmt: skip
    if counts["failed"]:
        found.append(
            ("warn", f"{count(counts['failed'])} failed",
             f"{count(counts['failed'])} of {count(counts['outputs'])} outputs failed in the model or the judge. "
             "They have no score and are not counted as wrong.")
        )  # fmt: skip
    if left := counts["unscored"] - counts["failed"]:
        found.append(
            ("warn", f"{count(left)} not scored",
             f"{count(left)} of {count(counts['outputs'])} outputs were made but could not be scored. "
             "They are left out of every figure.")
        )  # fmt: skip
    if is_stickers(run):
        found.append(
            ("note", "Sticker judge",
             "Judged by the sticker world's own judge, which was measured on sticker pictures only. These figures "
             "do not compare with published ones, which rest on photographs and another detector.")
        )  # fmt: skip
    skip = {
        f"{manifest['plan']['samples']} of {manifest['plan']['official_samples']} samples were run (--limit)"
    }
    found += [
        ("note", "Differs from the protocol", text)
        for text in manifest["deviations"]
        if text not in skip
    ]
    found += [("warn", "Warning", text) for text in manifest["warnings"]]
    order = ("stop", "warn", "note")
    found.sort(key=lambda banner: order.index(banner[0]))
    return [{"level": level, "title": title, "text": text} for level, title, text in found]


def _result_charts(
    headline: Sequence[MetricValue], groups: Sequence[MetricValue]
) -> list[dict[str, Any]]:
    """The interval chart twice: for wide and for narrow windows."""
    metrics = [*headline, *(g for g in groups if g not in headline)]
    units = {m.unit for m in metrics}
    if len(metrics) < 2 or len(units) != 1 or units - {"fraction", "percent"}:
        return []
    text = "; ".join(
        f"{words(m.name)} {number(m.value, m.unit)} ({interval(m.ci95, m.unit)})" for m in metrics
    )
    charts = []
    for kind, width_in in (("wide", 7.0), ("narrow", 3.7)):
        fig, _ = plots.interval_chart(
            [words(m.name) for m in metrics],
            [m.value for m in metrics],
            [m.ci95 for m in metrics],
            width_in=width_in,
            top=1.0 if units == {"fraction"} else 100.0,
        )
        svg = plots.to_svg(fig, f"Results with 95 % intervals ({kind})", text)
        charts.append({"kind": kind, "svg": markup(svg)})
    return charts


def _failures(samples: pandas.DataFrame) -> dict[str, Any] | None:
    counts = tables.kinds_frame(samples)
    if len(counts.columns) < 2:
        return None
    colors = [plots.css_color(c) for c in plots.kind_colors(list(counts.columns))]
    text = "; ".join(
        f"{words(group)}: " + ", ".join(f"{kind} {n}" for kind, n in row.items() if n)
        for group, row in counts.iterrows()
    )
    charts = []
    for kind, width_in in (("wide", 10.4), ("narrow", 3.7)):
        shown = counts.rename(index=words)
        fig, _ = plots.kinds_chart(shown, width_in=width_in)
        charts.append(
            {"kind": kind, "svg": markup(plots.to_svg(fig, f"What went wrong ({kind})", text))}
        )
    return {
        "charts": charts,
        "legend": [
            {"kind": kind, "color": color, "n": int(counts[kind].sum())}
            for kind, color in zip(counts.columns, colors, strict=True)
        ],
        "rows": [
            {"group": group, "total": int(row.sum()), "counts": [int(n) for n in row]}
            for group, row in counts.iterrows()
        ],
        "columns": list(counts.columns),
    }


def _colors(samples: pandas.DataFrame) -> list[dict[str, Any]]:
    """Asked against seen colours, by the judge and by the pixels, as counts with a shade per row."""
    found = []
    for key, title in (
        ("color", "Colour according to the judge"),
        ("pixel_color", "Colour of the pixels"),
    ):
        frame = tables.color_frame(samples, key)
        if frame is None:
            continue
        rows = []
        for asked, row in frame.iterrows():
            total = int(row.sum())
            cells = [
                {
                    "seen": seen,
                    "n": int(n),
                    "share": round(100 * n / total) if total else 0,
                    "is_right": seen == asked,
                }
                for seen, n in row.items()
            ]
            rows.append({"asked": asked, "total": total, "cells": cells})
        right = sum(c["n"] for r in rows for c in r["cells"] if c["is_right"])
        total = sum(r["total"] for r in rows)
        found.append(
            {
                "title": title,
                "columns": list(frame.columns),
                "rows": rows,
                "right": right,
                "total": total,
            }
        )
    return found


def _published(run: RunData) -> dict[str, Any] | None:
    rows = published.rows_for(run.manifest["task"]["name"])
    if not rows:
        return None
    groups = [g for g in run.manifest["task"]["groups"] if any(g in row.scores for row in rows)]
    return {
        "plain": [row for row in rows if not row.is_rewritten],
        "rewritten": [row for row in rows if row.is_rewritten],
        "groups": groups,
        "sources": {source: i for i, source in enumerate(dict.fromkeys(r.source for r in rows), 1)},
        "collected": published.collected(),
    }


def _downloads(run: RunData, samples: pandas.DataFrame) -> list[dict[str, str]]:
    stem = f"{run.manifest['task']['name']}-{run.manifest['model']['name']}"
    stem = "".join(c if c.isalnum() or c in "-._" else "-" for c in stem)
    metrics = tables.metrics_csv(tables.metrics_frame(run))
    files = [
        ("metrics.csv", "Figures with intervals, CSV", metrics, "text/csv"),
        ("results.json", "Figures, JSON", _pretty(run.results), "application/json"),
        ("manifest.json", "How it was made, JSON", _pretty(run.manifest), "application/json"),
        ("outputs.csv", "Every output and its score, CSV", tables.samples_csv(samples), "text/csv"),
    ]
    return [
        {
            "name": f"{stem}-{name}",
            "text": text,
            "href": data_uri(content, kind),
            "kb": count(max(1, len(content) // 1000)),
        }
        for name, text, content, kind in files
    ]


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
