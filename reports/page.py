"""What the page of one run says, as plain values for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evals.api import MetricValue
from evals.frames import metrics_frame
from evals.results import RunData
from reports import confusion, definitions, plots, published, tables
from reports.accuracy import judge_context, readings_agreement
from reports.banners import banners, is_stickers
from reports.credits import credits_of
from reports.downloads import CSV, File, as_json, csv_file, json_file, stem_of
from reports.embed import markup, script_json
from reports.facts import command_of, facts
from reports.failures import RIGHT, verdict_words
from reports.format import interval, number, words
from reports.gallery import Gallery, build_gallery, shown_samples
from reports.heatmap import Matrix, to_svg

if TYPE_CHECKING:
    import pandas

TASK_TITLES = {
    "geneval": "GenEval", "geneval_long": "GenEval, long prompts", "dpg": "DPG-Bench", "fid": "FID",
    "clipscore": "CLIPScore", "vqascore": "VQAScore", "wise": "WISE", "wise_verified": "WISE_Verified", "mme": "MME",
    "mmmu": "MMMU", "vqav2": "VQAv2", "textvqa": "TextVQA", "realworldqa": "RealWorldQA", "seedbench": "SEED-Bench",
    "mmbench": "MMBench",
}  # fmt: skip
HALVES = ("seen_half", "unseen_half")
FULL_IN, BESIDE_IN, NARROW_IN = 10.4, 7.0, 3.7
"""Widths of a figure over the whole page, beside the headline, and in a narrow window, in inches."""


def run_page(run: RunData) -> dict[str, Any]:
    """The template's values for a run, finished or as far as it got."""
    manifest, results = run.manifest, run.results
    assert results is not None
    samples = tables.samples_frame(run)
    metrics = run.metric_values()
    task = manifest["task"]
    groups = [m for m in metrics if m.name in task["groups"]]
    headline = metrics[0] if metrics and run.is_finished else None
    halves = [m for m in metrics if m.name in HALVES and m.value is not None]
    pictures = confusion.asked_pictures(run.root, samples)
    by_pixels = _by_pixels(groups, metrics, pictures)
    placed = {m.name for m in (*groups, *halves, *(e["pixels"] for e in by_pixels))}
    placed |= {headline.name} if headline else set()
    modes = _both_modes(metrics)
    placed |= {m.name for row in modes for m in (row["fixed"], row["official"])}
    matrices = confusion.matrices(pictures, samples)
    classes = confusion.class_table(pictures)
    accuracy = (manifest["judge"] or {}).get("accuracy") or {}
    judged = judge_context(manifest["judge"], accuracy, task["name"])
    said = verdict_words(task["name"], task["kind"])
    stem = stem_of(task["name"], str(manifest["model"]["name"]))
    kinds = _failures(samples, stem, said)
    figures = [_matrix_figure(matrix, stem) for matrix in matrices]
    files = [
        *_files(run, samples, stem),
        csv_file(f"{stem}-kinds.csv", kinds["records"]) if kinds else None,
        *(csv_file(figure["csv"], m.records()) for figure, m in zip(figures, matrices, strict=True)),
        csv_file(f"{stem}-classes-all.csv", map(_class_record, classes)) if classes else None,
    ]
    held = [file for file in files if file is not None]
    gallery = build_gallery(run.root, samples)
    return {
        "title": f"{task_title(task['name'])} on {manifest['model']['name']}",
        "task_title": task_title(task["name"]),
        "run": run,
        "manifest": manifest,
        "results": results,
        "counts": results["counts"],
        "banners": banners(run),
        "headline": headline,
        "reading": definitions.reading(headline, task["name"]) if headline else "",
        "groups": groups,
        "halves": halves if len(halves) == 2 else [],
        "by_pixels": by_pixels,
        "modes": modes,
        "others": [m for m in metrics if m.name not in placed and m.value is not None],
        "charts": _result_charts(
            [headline] if headline else [], groups or [row["fixed"] for row in modes if row["level"] == 1]
        ),
        "stem": stem,
        "failures": kinds,
        "matrices": figures,
        "classes": classes,
        **judged,
        "published": _published(task["name"], list(task["groups"])),
        "facts": facts(run),
        "command": command_of(manifest),
        "is_stickers": is_stickers(run),
        "credits": credits_of(manifest),
        "started": (manifest.get("sessions") or [{}])[0].get("started", ""),
        **glossary_context(
            metrics,
            task,
            {"interval", "scored", "prompts", "unscored"}
            | ({"judge"} if judged["verdicts"] else set())
            | ({"held_out"} if halves else set()),
            is_judged=manifest["judge"] is not None,
        ),
        **gallery_context(gallery, said),
        **files_context(held),
    }


def glossary_context(
    metrics: Sequence[MetricValue], task: Any, terms: set[str], *, is_judged: bool
) -> dict[str, Any]:
    """`glossary`, its entries; `def_of`, figure -> id of its entry; `more_of`, figure -> how it was estimated."""
    thing = verdict_words(task["name"], task["kind"])["thing"]
    entries = definitions.glossary(metrics, task["name"], task["groups"], terms, thing=thing, is_judged=is_judged)
    return {
        "glossary": entries,
        "def_of": {m.name: e.id for m, e in zip(metrics, entries, strict=False)},
        "more_of": {m.name: definitions.estimation(m, thing) for m in metrics},
    }


def gallery_context(gallery: Gallery, said: Mapping[str, str]) -> dict[str, Any]:
    """The gallery, with its JSON ready for script elements. `said`: of `verdict_words`."""
    gallery.data["words"] = dict(said)
    return {
        "gallery": gallery,
        "gallery_json": script_json(gallery.data),
        "gallery_blocks": [script_json(block) for block in gallery.blocks],
    }


def files_context(files: Sequence[File]) -> dict[str, Any]:
    """The listed files, and all of them as JSON for the page's script."""
    return {
        "downloads": [file for file in files if file.text],
        "files_json": script_json(as_json(files)),
    }


def task_title(name: str) -> str:
    """`GenEval` for `geneval`; other names as they are."""
    return TASK_TITLES.get(name, name)


def both_widths(
    draw: Any, title: str, text: str, wide_in: float = FULL_IN
) -> list[dict[str, Any]]:
    """A figure drawn by `draw(width_in)`, for wide and for narrow windows, as SVG."""
    charts = []
    for kind, width_in in (("wide", wide_in), ("narrow", NARROW_IN)):
        fig, _ = draw(width_in)
        charts.append({"kind": kind, "svg": markup(plots.to_svg(fig, f"{title} ({kind})", text))})
    return charts


def _both_modes(metrics: Sequence[MetricValue]) -> list[dict[str, Any]]:
    """DPG-Bench's categories that have a value, by both modes; ``level`` 2 for those that one of level 1 holds."""
    named = {m.name: m for m in metrics}
    categories = [n.removeprefix("official_") for n in named if n.startswith("official_")]
    return [
        {
            "name": name,
            "level": 2 if name.partition("_")[0] in categories and "_" in name else 1,
            "fixed": named[name],
            "official": named[f"official_{name}"],
        }
        for name in categories
        if name in named and named[name].value is not None
    ]


def _by_pixels(
    groups: Sequence[MetricValue],
    metrics: Sequence[MetricValue],
    pictures: Sequence[confusion.Asked],
) -> list[dict[str, Any]]:
    """Groups whose verdicts exist with both readings of colours; `agreement`: share of pictures with equal verdicts."""
    named = {m.name: m for m in metrics}
    return [
        {
            "name": g.name,
            "judge": g,
            "pixels": named[f"{g.name}_by_pixels"],
            "agreement": readings_agreement(p for p in pictures if p.group == g.name),
        }
        for g in groups
        if f"{g.name}_by_pixels" in named
    ]


def _result_charts(
    headline: Sequence[MetricValue], groups: Sequence[MetricValue]
) -> list[dict[str, Any]]:
    metrics = [*headline, *(g for g in groups if g not in headline)]
    units = {m.unit for m in metrics}
    is_drawable = len(units) == 1 and not units - {"fraction", "percent"}
    if len(metrics) < 2 or not is_drawable or all(m.value is None for m in metrics):
        return []
    text = "; ".join(
        f"{words(m.name)} {number(m.value, m.unit)} ({interval(m.ci95, m.unit)}, n {m.n})"
        for m in metrics
    )

    def draw(width_in: float) -> Any:
        notes = [f"n {m.n:,}" for m in metrics] if width_in > NARROW_IN else []
        return plots.interval_chart(
            [words(m.name) for m in metrics],
            [m.value for m in metrics],
            [m.ci95 for m in metrics],
            width_in=width_in,
            top=1.0 if units == {"fraction"} else 100.0,
            emphasised=len(headline),
            notes=notes,
        )

    return both_widths(draw, "Results with 95 % intervals", text, BESIDE_IN)


def _failures(samples: pandas.DataFrame, stem: str, said: Mapping[str, str]) -> dict[str, Any] | None:
    counts = tables.kinds_frame(samples)
    if len(counts.columns) < 2:
        return None
    colors = [plots.css_color(c) for c in plots.kind_colors(list(counts.columns))]
    called = {kind: said["right"] if kind == RIGHT else kind for kind in counts.columns}
    text = "; ".join(
        f"{words(group)}: " + ", ".join(f"{called[kind]} {n}" for kind, n in row.items() if n)
        for group, row in counts.iterrows()
    )
    shown = counts.rename(index=words)
    charts = both_widths(
        lambda width_in: plots.kinds_chart(shown, width_in=width_in),
        said["title"],
        text,
    )
    return {
        "title": said["title"],
        "caption": said["caption"],
        "charts": charts,
        "csv": f"{stem}-kinds.csv",
        "legend": [
            {"kind": kind, "name": called[kind], "color": color, "n": int(counts[kind].sum())}
            for kind, color in zip(counts.columns, colors, strict=True)
        ],
        "rows": [
            {"group": group, "total": int(row.sum()), "counts": [int(n) for n in row]}
            for group, row in counts.iterrows()
        ],
        "records": [
            {"group": group, "kind": called[kind], "outputs": int(n)}
            for group, row in counts.iterrows()
            for kind, n in row.items()
        ],
        "columns": list(called.values()),
    }


def _matrix_figure(matrix: Matrix, stem: str) -> dict[str, Any]:
    svg, width = to_svg(matrix)
    return {
        "matrix": matrix,
        "svg": markup(svg),
        "width": round(1.2 * width),
        "name": f"{stem}-{matrix.key}",
        "csv": f"{stem}-{matrix.key}.csv",
    }


def _class_record(row: confusion.ClassRow) -> dict[str, Any]:
    low, high = row.estimate.ci or (None, None)
    return {
        "class": row.name,
        "asked": row.estimate.n,
        "found": row.found,
        "share": row.estimate.value,
        "ci_low": low,
        "ci_high": high,
        "prompts": row.estimate.n_clusters,
        "instead": "; ".join(f"{name} {n}" for name, n in row.instead),
    }


def _published(task: str, groups: Sequence[str]) -> dict[str, Any] | None:
    rows = published.rows_for(task)
    if not rows:
        return None
    return {
        "plain": [row for row in rows if not row.is_rewritten],
        "rewritten": [row for row in rows if row.is_rewritten],
        "groups": [g for g in groups if any(g in row.scores for row in rows)],
        "sources": {
            source: (i, published.date_of(source))
            for i, source in enumerate(dict.fromkeys(r.source for r in rows), 1)
        },
        "collected": published.collected(),
        "disagreements": published.disagreements(rows),
    }


def _files(run: RunData, samples: pandas.DataFrame, stem: str) -> list[File]:
    kept = shown_samples(samples)
    what = (
        "Every output and its score"
        if len(kept) == len(samples)
        else f"{len(kept):,} of {len(samples):,} outputs and their scores (those of the gallery)"
    )
    results = run.results if run.is_finished else {"unfinished": True, **(run.results or {})}
    figures = tables.metrics_csv(metrics_frame(run))
    return [
        File(f"{stem}-metrics.csv", figures, CSV, "Figures with intervals, CSV"),
        json_file(f"{stem}-results.json", results, "Figures, JSON"),
        json_file(f"{stem}-manifest.json", run.manifest, "How it was made, JSON"),
        File(f"{stem}-outputs.csv", tables.samples_csv(kept), CSV, f"{what}, CSV"),
    ]
