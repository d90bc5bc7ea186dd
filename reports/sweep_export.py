"""A sweep's results as one small file, which documents are written from (`reports.sweep_markdown`).

    schema, sweep, digest, commit, made      which sweep, at which commit, and when its last point ended (UTC)
    is_test_double                           true: nothing here is a measurement
    points                                   status -> how many; `asked`: all
    mixed                                    evaluations unlike those of most points, in no figure -> what differs
    seeds, shared_stages                     seeds asked for; stage that was trained once -> seeds that it serves
    baseline, axes                           name of the cell compared with; axis -> values
    tasks                                    name, version, prompts, judge and digests of each
    metrics                                  name -> title, unit, up (higher is better), headline
    cells                                    name, values, seeds, training, ceiling, figures: metric -> value, both,
                                             seeds, prompts (intervals), sd, by_seed, one_training
    effects, differences                     value, ci (both), ci_seeds, ci_prompts, p, p_holm, verdict, by_seed, ...
    needs                                    spread of differences over seeds, and seeds for given differences
    diversity                                distances between pictures of a prompt, by cell; null: not measured
    curves                                   cell, metric, and rows of (step, training seconds, value, low, high)

Numbers have five digits. Nothing depends on the machine, so the file can be tracked, and a test can compare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evals.errors import InputError
from evals.io.strict_json import parse
from evals.stats.seeds import of_values
from evals.sweeps.results import Cell, Row
from reports.sweep_banners import point_rows
from reports.sweep_curves import pooled
from reports.sweep_data import SweepData
from reports.sweep_sources import shared_over_seeds, sources, unreplicated
from reports.sweep_stats import Effect
from reports.sweep_words import difference_ci, effect_word, row_word

SCHEMA = 1
DIVERSITY = "diversity.json"  # of a sweep folder, by tests/benchmarks/diversity_of_sweep.py; there or not
STEPS_OF_NEED = (0.02, 0.05, 0.1)  # in the metric's own scale of 0 to 1


def export(root: str | Path) -> dict[str, Any]:
    """The results of a sweep folder, finished or not. Raises: InputError where `sweep.json` is missing or damaged."""
    data = SweepData(Path(root))
    sweep = data.sweep
    states = Counter(row["status"] for row in point_rows(data))
    effects = data.study.corrected(data.study.effects(data.shown, data.axes), data.headlines)
    ended = [p.state.finished for p in data.points if p.state.finished and p.id in data.study.results]
    return _rounded({
        "schema": SCHEMA,
        "sweep": sweep["name"],
        "digest": sweep["digest"],
        "commit": (sweep.get("git") or {}).get("commit"),
        "is_dirty": bool((sweep.get("git") or {}).get("is_dirty")),
        "made": max(ended)[:10] if ended else None,
        "is_test_double": data.table.is_test_double,
        "points": {"asked": sum(states.values()), **states},
        "mixed": {f"{point} {task}": what for (point, task), what in data.table.mixed.items()},
        "seeds": list(sweep["definition"]["seeds"]),
        "shared_stages": shared_over_seeds(data),
        "baseline": data.names.get(data.table.baseline),
        "axes": {k: list(v) for k, v in data.axes.items()},
        "tasks": {task: _task(data, task) for task in data.runs},
        "metrics": {m: _metric(data, m) for m in data.shown},
        "cells": [_cell(data, cell) for cell in data.cells],
        "effects": [_effect(data, e) for e in effects if e.value is not None],
        "differences": [
            _difference(data, row) for m in data.shown for row in data.table.of(m) if row.difference is not None
        ],
        "needs": [need for m in data.headlines if (need := _need(data, m)) is not None],
        "curves": list(_curves(data)),
        "diversity": _diversity(data),
        "left_out": dict(sweep["left_out"]),
    })  # fmt: skip


def _diversity(data: SweepData) -> dict[str, Any] | None:
    """Distances between pictures of one prompt, as multiples of real scenes': each design's seeds, mean, interval."""
    path = data.folder.root / DIVERSITY
    if not path.exists():
        return None
    found = read_plain(path)
    rows = []
    for cell in data.cells:
        own = [found["points"][i] for i in cell.points if i in found["points"]]
        row: dict[str, Any] = {"name": data.names[cell.id]}
        for kind in ("all", "right"):
            values = [float(p[kind]) for p in own if p[kind] is not None]
            if values:
                row[kind] = {"by_seed": values, "value": sum(values) / len(values), "seeds": of_values(values).ci}
        rows.append(row)
    return {"prompts": found["prompts"], "num_images": found["num_images"], "cells": rows}


def read_plain(path: Path) -> dict[str, Any]:
    """A JSON object. Raises: InputError, one line."""
    try:
        found = parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: damaged, no JSON object")
    return found


def _task(data: SweepData, task: str) -> dict[str, Any]:
    manifest = data.runs[task].manifest
    judge = manifest["judge"] or {}
    return {
        "version": str(manifest["task"]["version"]), "prompts": manifest["plan"]["samples"],
        "outputs": manifest["plan"]["outputs"], "partial": bool(manifest["partial"]),
        "prompts_sha256": manifest["task"]["prompts_sha256"], "judge": judge.get("name"),
        "judge_weights_sha256": judge.get("weights_sha256"),
    }  # fmt: skip


def _metric(data: SweepData, metric: str) -> dict[str, Any]:
    row = next(r for r in data.table.of(metric) if r.value is not None)
    return {
        "title": data.metric_name(metric), "unit": row.unit, "up": row.higher_is_better,
        "headline": metric in data.headlines, "kind": data.kind(metric),
    }  # fmt: skip


def _cell(data: SweepData, cell: Cell) -> dict[str, Any]:
    total = None if cell.own is None or cell.shared is None else cell.own + cell.shared
    ceiling = data.ceilings.get(cell.id)
    found: dict[str, Any] = {
        "name": data.names[cell.id], "values": dict(cell.values), "seeds": list(cell.done), "asked": len(cell.points),
        "training": None if total is None or cell.own is None else {
            "steps": total.steps, "images": total.images, "seconds": total.seconds, "own_seconds": cell.own.seconds,
            "parameters": cell.parameters,
        },
        "ceiling": ceiling and {"scenes": ceiling.scenes, **ceiling.figures},
        "figures": {},
    }  # fmt: skip
    for metric in data.shown:
        row = data.row(cell, metric)
        if row is None or row.value is None:
            continue
        figure: dict[str, Any] = {"value": row.value, "both": _bounds(row.ci_low, row.ci_high), "sd": row.sd_seeds}
        if metric in data.headlines and (apart := sources(data, cell, metric)) is not None:
            figure |= {
                "seeds": apart.over_seeds, "prompts": apart.over_prompts, "by_seed": list(apart.by_seed.values()),
                "one_training": apart.is_one_training,
            }  # fmt: skip
        found["figures"][metric] = figure
    return found


def _effect(data: SweepData, e: Effect) -> dict[str, Any]:
    return {
        "axis": e.axis, "before": e.before, "after": e.after, "metric": e.metric, "value": e.value, "ci": e.ci,
        "ci_seeds": e.ci_seeds, "ci_prompts": e.ci_prompts, "p": e.p_value, "p_holm": e.p_holm, "pairs": e.pairs,
        "asked_pairs": e.asked_pairs, "seeds": list(e.seeds), "by_seed": list(e.by_seed),
        "one_training": unreplicated(data, e), "verdict": effect_word(data, e),
    }  # fmt: skip


def _difference(data: SweepData, row: Row) -> dict[str, Any]:
    return {
        "cell": data.names[row.cell], "metric": row.metric, "value": row.difference, "ci": difference_ci(row),
        "p": row.p_value, "p_holm": row.p_holm, "seeds": list(row.paired_seeds), "verdict": row_word(data, row),
    }  # fmt: skip


def _need(data: SweepData, metric: str) -> dict[str, Any] | None:
    need = data.study.needs(metric, STEPS_OF_NEED)
    if need is None:
        return None
    return {
        "metric": metric, "sd": need.sd_seeds, "sd_interval": need.sd_interval, "dof": need.dof,
        "n_seeds": need.n_seeds, "detectable": need.detectable, "seeds_for": dict(_keyed(need.seeds_for)),
        "paired_for": dict(_keyed(need.paired_for)),
    }  # fmt: skip


def _keyed(pairs: Iterable[tuple[float, int | None]]) -> Iterable[tuple[str, int | None]]:
    return ((f"{d:g}", n) for d, n in pairs)


def _curves(data: SweepData) -> Iterable[dict[str, Any]]:
    for metric in data.headlines:
        for cell in data.cells:
            points = pooled(data, cell, metric)
            if points:
                rows = [[p.step, round(p.seconds), p.value, p.low, p.high] for p in points if not p.is_final]
                yield {"cell": data.names[cell.id], "metric": metric, "rows": rows}


def _bounds(low: float | None, high: float | None) -> tuple[float, float] | None:
    return None if low is None or high is None else (low, high)


def _rounded(value: Any) -> Any:
    """Floats at five significant digits, tuples as lists."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {str(k): _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, (list, tuple)) else value
