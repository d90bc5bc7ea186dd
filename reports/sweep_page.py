"""What the page of a sweep says, as plain values for the template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evals.api import MetricValue
from evals.sweeps.results import Cell, Row
from evals.sweeps.sweepfile import load_sweep, shipped
from reports import definitions, plots
from reports.accuracy import judge_context
from reports.banners import is_stickers
from reports.credits import credits_of
from reports.downloads import csv_file, json_file, stem_of
from reports.failures import verdict_words
from reports.format import count, number, signed, words
from reports.page import NARROW_IN, both_widths, files_context, gallery_context
from reports.sweep_banners import point_rows, sweep_banners
from reports.sweep_compute import compute_section
from reports.sweep_curves import axis_figures, curve_figures, plane_figure
from reports.sweep_data import SweepData
from reports.sweep_export import STEPS_OF_NEED
from reports.sweep_pictures import picture_tasks, sheet, sweep_gallery, training_sheet
from reports.sweep_sources import source_records, source_tables
from reports.sweep_stats import Effect
from reports.sweep_words import answer, difference_ci, effect_word, reading, row_word, value_text
from reports.verdicts import ALPHA

MAX_DRAWN = 40  # cells in one chart
MAX_NOTES = 12
HALF_IN = 5.4  # of a figure that shares the width of the page with another


def sweep_page(data: SweepData) -> dict[str, Any]:
    """The template's values for a sweep, finished or as far as it got."""
    sweep = data.sweep
    stem = stem_of("sweep", sweep["name"])
    effects = data.study.corrected(data.study.effects(data.shown, data.axes), data.headlines)
    curves, curve_file = curve_figures(data, stem)
    plane = plane_figure(data, stem)
    tasks = [t for t in picture_tasks(data) if t in data.runs] or list(data.runs)
    gallery = sweep_gallery(data, tasks[0]) if tasks else None
    sheets = {
        "cells": sheet(data, gallery) if gallery is not None else None,
        "training": training_sheet(data, tasks[0]) if tasks else None,
    }
    judged = data.runs.get(tasks[0]) if tasks else None
    judge = judged.manifest["judge"] if judged is not None else None
    accuracy = (judge or {}).get("accuracy") or {}
    rows = point_rows(data)
    compute = compute_section(data)
    apart = source_tables(data)
    files = [
        csv_file(f"{stem}-table.csv", data.table.records(), "Cells and metrics with intervals and differences, CSV"),
        csv_file(f"{stem}-effects.csv", map(_effect_record, effects), "Effects of the axes, CSV") if effects else None,
        csv_file(f"{stem}-seeds.csv", source_records(apart), "Intervals over seeds and over prompts apart, CSV")
        if apart else None,
        curve_file,
        plane["csv"] if plane else None,
        csv_file(f"{stem}-compute.csv", compute["records"], "Training compute by cell, CSV")
        if compute["rows"] else None,
        csv_file(f"{stem}-stages.csv", compute["stages"], "Stages of training, CSV") if compute["stages"] else None,
        csv_file(f"{stem}-points.csv", rows, "Every point, CSV"),
        json_file(f"{stem}.json", dict(sweep), "The sweep as it was asked for, JSON"),
    ]
    metrics = [_metric_value(data, name) for name in data.shown]
    return {
        "title": f"Sweep {sweep['name']}",
        "sweep": sweep,
        "data": data,
        "stem": stem,
        "banners": sweep_banners(data),
        "points": rows,
        "n_done": len(data.study.results),
        "n_seeds": len({p.point.seed for p in data.points}),
        "cells": [_cell(data, cell) for cell in data.cells],
        "metrics": [
            {"name": m, "title": data.metric_name(m), "value": v, "up": v.higher_is_better}
            for m, v in zip(data.shown, metrics, strict=True)
        ],
        "grid_charts": _grid_charts(data),
        "differences": _differences(data, stem),
        "tests": _tests(data),
        "effects": [_effect(data, e) for e in effects if e.metric in data.headlines],
        "more_effects": [_effect(data, e) for e in effects if e.metric not in data.headlines],
        "answers": [answer(data, e) for e in effects if e.metric in data.headlines and e.value is not None],
        "needs": _needs(data),
        "sources": apart,
        "need_steps": STEPS_OF_NEED,
        "axis_figures": axis_figures(data, stem),
        "curves": curves,
        "plane": plane,
        "compute": compute,
        "ceilings": _ceilings(data),
        "gallery": None,
        "gallery_task": tasks[0] if tasks else "",
        "sheets": sheets,
        "judge": judge,
        **judge_context(judge, accuracy, tasks[0] if tasks else ""),
        "is_stickers": any(map(is_stickers, data.runs.values())),
        "credits": credits_of(judged.manifest) if judged is not None else [],
        "provenance": _provenance(data),
        "yaml": _yaml(sweep["definition"]),
        "command": f"blip3o-eval sweep run {sweep['name']}{'' if _is_shipped(sweep) else '.yaml'}",
        "left_out": sweep["left_out"],
        "notes": _notes(data),
        **_glossary(data, metrics, bool(accuracy)),
        **(gallery_context(gallery, verdict_words(tasks[0], _kind(data, tasks[0]))) if gallery is not None else {}),
        **files_context([f for f in files if f is not None]),
    }


def _kind(data: SweepData, task: str) -> str:
    return str((data.sweep["tasks"].get(task) or {}).get("kind", "generation"))


def is_shown(p_holm: float | None) -> bool:
    """Whether a difference is more than chance would make, after correction."""
    return p_holm is not None and p_holm < ALPHA


def _metric_value(data: SweepData, metric: str) -> MetricValue:
    row = next(r for r in data.table.of(metric) if r.value is not None)
    return MetricValue(
        metric.partition("/")[2], row.value, row.n, 0, None, row.unit, row.higher_is_better, method=row.method
    )


def _cell(data: SweepData, cell: Cell) -> dict[str, Any]:
    rows = {row.metric: row for row in data.table.rows if row.cell == cell.id}
    return {
        "id": cell.id, "name": data.names[cell.id], "values": cell.values, "rows": rows,
        "is_baseline": cell.id == data.table.baseline, "done": len(cell.done), "asked": len(cell.points),
        "color": plots.run_color(data.places[cell.id]), "ceiling": data.ceilings.get(cell.id),
    }  # fmt: skip


def _charts(
    data: SweepData, rows: Sequence[Row], title: str, text: str, draw: Callable[[Sequence[Row], float], Any]
) -> list[dict[str, Any]]:
    return both_widths(lambda width_in: draw(rows, width_in), title, text)


def _grid_charts(data: SweepData) -> list[dict[str, Any]]:
    """The headlines of the tasks, cells below each other; fractions and percents only, which have an axis."""
    found = []
    for metric in data.headlines:
        rows = [r for r in data.table.of(metric) if r.value is not None][:MAX_DRAWN]
        if not rows or rows[0].unit not in ("fraction", "percent"):
            continue
        top = 1.0 if rows[0].unit == "fraction" else 100.0

        def draw(rows: Sequence[Row], width_in: float, top: float = top) -> Any:
            notes = [f"{number(r.value, r.unit)}  {len(r.seeds)} seed{'s' * (len(r.seeds) != 1)}" for r in rows]
            return plots.interval_chart(
                [data.names[r.cell] for r in rows], [r.value for r in rows], [_ci(r) for r in rows],
                width_in=width_in, top=top, emphasised=0, notes=notes if width_in > NARROW_IN else [],
            )  # fmt: skip

        text = "; ".join(f"{data.names[r.cell]} {number(r.value, r.unit)}" for r in rows)
        title = data.metric_name(metric)
        charts = both_widths(lambda width_in: draw(rows, width_in), f"{title} of all cells", text, HALF_IN)  # noqa: B023
        found.append({"title": title, "charts": charts, "metric": metric.replace("/", "-")})
    return found


def _differences(data: SweepData, stem: str) -> list[dict[str, Any]]:
    """Per metric the cells against the baseline: table rows, and a chart for headlines."""
    found = []
    for metric in data.shown:
        rows = [r for r in data.table.of(metric) if r.difference is not None][:MAX_DRAWN]
        left_out = [r for r in data.table.of(metric) if r.difference is None and r.difference_note]
        if not rows and not left_out:
            continue
        charts = []
        if metric in data.headlines and rows:

            def draw(rows: Sequence[Row], width_in: float) -> Any:
                notes = [f"{signed(r.difference, r.unit)}" for r in rows]
                return plots.difference_chart(
                    [data.names[r.cell] for r in rows], [r.difference or 0.0 for r in rows],
                    [difference_ci(r) for r in rows], [is_shown(r.p_holm) for r in rows], width_in=width_in,
                    notes=notes if width_in > 5 else [],
                )  # fmt: skip

            text = "; ".join(f"{data.names[r.cell]} {signed(r.difference, r.unit)}" for r in rows)
            charts = _charts(data, rows, f"{data.metric_name(metric)}, minus the baseline", text, draw)
        found.append({
            "title": data.metric_name(metric), "charts": charts, "is_headline": metric in data.headlines,
            "figure": f"{stem}-{metric.replace('/', '-')}-differences",
            "rows": [
                {"name": data.names[r.cell], "row": r, "ci": difference_ci(r),
                 "reading": reading(r.difference, row_word(data, r), r.p_holm)} for r in rows
            ],
            "left_out": [(data.names[r.cell], r.difference_note) for r in left_out],
        })  # fmt: skip
    return found


def _tests(data: SweepData) -> tuple[int, int]:
    """How many p-values each family of Holm's correction holds: headlines, all others."""
    tested = [row.metric in data.headlines for row in data.table.rows if row.p_value is not None]
    return sum(tested), len(tested) - sum(tested)


def _effect(data: SweepData, effect: Effect) -> dict[str, Any]:
    return {
        "effect": effect, "axis": words(effect.axis), "metric": data.metric_name(effect.metric),
        "step": f"{value_text(effect.before)} to {value_text(effect.after)}",
        "reading": reading(effect.value, effect_word(data, effect), effect.p_holm),
    }  # fmt: skip


def _effect_record(e: Effect) -> dict[str, Any]:
    return {
        "axis": e.axis, "from": e.before, "to": e.after, "metric": e.metric, "unit": e.unit, "effect": e.value,
        "ci_low": e.ci and e.ci[0], "ci_high": e.ci and e.ci[1], "p": e.p_value, "p_holm": e.p_holm,
        "seeds_low": e.ci_seeds and e.ci_seeds[0], "seeds_high": e.ci_seeds and e.ci_seeds[1],
        "prompts_low": e.ci_prompts and e.ci_prompts[0], "prompts_high": e.ci_prompts and e.ci_prompts[1],
        "pairs_of_cells": e.pairs, "pairs_asked": e.asked_pairs,
        "seeds": " ".join(map(str, e.seeds)), "method": e.method, "note": e.note,
    }  # fmt: skip


def _needs(data: SweepData) -> list[dict[str, Any]]:
    found = []
    for metric in data.headlines:
        need = data.study.needs(metric, STEPS_OF_NEED)
        if need is not None:
            found.append({"title": data.metric_name(metric), "need": need})
    return found


def _ceilings(data: SweepData) -> dict[str, Any] | None:
    if not data.ceilings:
        return None
    columns = list(dict.fromkeys(name for c in data.ceilings.values() for name in c.figures))
    metric = next((m for m in data.headlines if data.kind(m) == "generation"), None)
    reached = {row.cell: row for row in data.table.of(metric)} if metric else {}
    rows = [
        {"name": data.names[cell], "cells": [c.figures.get(name) for name in columns], "scenes": c.scenes,
         "reached": reached[cell].value if cell in reached else None}
        for cell, c in data.ceilings.items()
    ]  # fmt: skip
    return {
        "columns": [(c, "decibel" if c.endswith("_db") else "fraction") for c in columns], "rows": rows,
        "reached": data.metric_name(metric) if metric else None,
        "unit": next((r.unit for r in reached.values() if r.value is not None), "fraction"),
    }  # fmt: skip


def _notes(data: SweepData) -> list[str]:
    """The table's notes without folders of this machine; the first dozen of many."""
    notes = [data.without_root(note) for note in data.table.notes]
    more = len(notes) - MAX_NOTES
    return notes if more <= 1 else [*notes[:MAX_NOTES], f"and {more} more"]


def _provenance(data: SweepData) -> list[tuple[str, list[tuple[str, str]]]]:
    sweep = data.sweep
    git = sweep.get("git") or {}
    commit = git.get("commit") or "not from a repository"
    versions = sweep.get("versions") or {}
    parts = [
        ("sweep", [
            ("name", sweep["name"]), ("digest", sweep["digest"]), ("created", sweep.get("created") or ""),
            ("commit", f"{commit}, with uncommitted changes" if git.get("is_dirty") else commit),
            ("versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)),
            ("hosts", ", ".join(sorted({p.state.host for p in data.points if p.state.host}))),
        ]),
    ]  # fmt: skip
    for task, run in data.runs.items():
        judge = run.manifest["judge"] or {}
        plan = run.manifest["plan"]
        prompts = f"{count(plan['samples'])} prompts x {plan['per_sample']} = {count(plan['outputs'])} outputs a point"
        parts.append((task, [
            ("version", str(run.manifest["task"]["version"])),
            ("outputs", prompts),
            ("prompts sha256", str(run.manifest["task"]["prompts_sha256"])),
            ("judge", f"{judge.get('name')} {judge.get('version')}" if judge else ""),
            ("judge weights", str(judge.get("weights_sha256") or "")),
        ]))  # fmt: skip
    return parts


def _is_shipped(sweep: Mapping[str, Any]) -> bool:
    """Whether the name alone runs this sweep: the installed one of that name is the same."""
    if sweep["name"] not in shipped():
        return False
    config, _ = load_sweep(sweep["name"])
    return bool(config.model_dump(mode="json") == sweep["definition"])


def _yaml(definition: Mapping[str, Any]) -> str:
    import yaml

    kept = {k: v for k, v in definition.items() if v not in (None, [], {}, "")}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=100)


def _glossary(data: SweepData, metrics: Sequence[MetricValue], has_accuracy: bool) -> dict[str, Any]:
    entries = []
    for i, (name, metric) in enumerate(zip(data.shown, metrics, strict=True)):
        task = name.partition("/")[0]
        run = data.runs.get(task)
        groups = run.manifest["task"]["groups"] if run is not None else ()
        text = definitions.definition(metric, task, groups)
        entries.append(definitions.Entry(f"def-m{i}", data.metric_name(name), text))
    for key, (name, text) in definitions.SWEEP_TERMS.items():
        entries.append(definitions.Entry(f"def-{key}", name, text))
    if has_accuracy:
        entries.append(definitions.Entry("def-judge", *definitions.TERMS["judge"]))
    return {"glossary": entries, "def_of": {name: f"def-m{i}" for i, name in enumerate(data.shown)}}


def _ci(row: Row) -> tuple[float, float] | None:
    return None if row.ci_low is None or row.ci_high is None else (row.ci_low, row.ci_high)
