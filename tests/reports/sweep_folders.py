"""Makes sweep folders as a finished (or half finished) sweep leaves them, without training anything.

The study's six cells by default: {CLIP + flow, CLIP + MSE, VAE + flow} x {sequential, joint}. Verdicts are drawn from a
chance that the cell, the seed, the prompt and the checkpoint decide; pictures are those of a template run, washed out
where the cell draws badly. Run folders are written with the harness's own writers, from two template runs.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evals.api import MetricValue
from evals.comparison import metrics_of
from evals.io.files import write_json
from evals.io.jsonl import read_rows
from evals.results import load, metric_to_json, score_from_json
from evals.stats import wilson
from evals.sweeps.api import Compute, Estimate, StageResult, StageSpec
from evals.sweeps.folder import (
    CurveRow,
    Evaluation,
    Figure,
    Point,
    PointResult,
    State,
    SweepFolder,
    digest_of,
    write_curve,
    write_point,
    write_result,
    write_stage,
    write_stage_result,
    write_state,
)

CELLS = [
    {"target": target, "objective": objective, "schedule": schedule}
    for target, objective in (("clip", "flow"), ("clip", "mse"), ("vae", "flow"))
    for schedule in ("sequential", "joint")
]
SKILL = {"clip+flow": 0.62, "clip+mse": 0.38, "vae+flow": 0.2}
STEPS = 400
SECONDS = {"clip": 1.1, "vae": 1.4}  # of training a step


@dataclass(frozen=True)
class Wanted:
    """What a generated sweep holds. `templates`: task -> finished run folder. `checkpoints`: shares of the training."""

    templates: Mapping[str, Path]
    cells: Sequence[Mapping[str, Any]] = tuple(CELLS)
    seeds: Sequence[int] = (0, 1, 2)
    checkpoints: Sequence[float] = (0.25, 0.5, 0.75)
    baseline: int = 0
    name: str = "ablation"
    pictures: bool = True
    checkpoint_pictures: bool = False
    set_figures: bool = True
    ceiling: bool = True


def cell_id(values: Mapping[str, Any]) -> str:
    return ",".join(f"{k}={v}" for k, v in values.items())


def skill_of(values: Mapping[str, Any], seed: int) -> float:
    base = SKILL.get(f"{values.get('target')}+{values.get('objective')}", 0.5)
    base -= 0.04 * (values.get("schedule") == "joint")
    return base + random.Random(f"{sorted(values.items())} {seed}").gauss(0, 0.03)


def make_sweep(root: Path, wanted: Wanted) -> Path:
    """A finished sweep; take things away from it for the others."""
    points = [_point(values, seed, wanted) for values in wanted.cells for seed in wanted.seeds]
    _write_definition(root, points, wanted)
    folder = SweepFolder(root)
    for number, point in enumerate(points):
        _write_point(folder, point, number, wanted)
    return root


def set_state(root: Path, point_id: str, status: str, error: str | None = None, **more: Any) -> None:
    """Make a point one that failed, was skipped, still runs or was never started: what it had is taken away."""
    folder = SweepFolder(root).point_folder(point_id)
    (folder / "result.json").unlink(missing_ok=True)
    shutil.rmtree(folder / "eval" / "final", ignore_errors=True)
    if status in ("pending", "skipped"):
        (folder / "curve.jsonl").unlink(missing_ok=True)
        shutil.rmtree(folder / "eval", ignore_errors=True)
    else:
        folder_of = SweepFolder(root)
        write_curve(folder, [row for row in folder_of.curve(point_id) if not row.is_final])
    write_state(folder, State(status, 1, error, **more))  # type: ignore[arg-type]


def _stages(values: Mapping[str, Any], seed: int) -> list[StageSpec]:
    def stage(name: str, parents: tuple[str, ...], own: dict[str, Any]) -> StageSpec:
        digest = digest_of([name, parents, own, seed])[:12]
        return StageSpec(f"{name}-{digest}", name, parents, own, seed, Estimate(STEPS, 400.0, 1000, 8 * STEPS, 500))

    if values.get("schedule") == "joint":
        return [stage("joint", (), dict(values))]
    first = stage("understanding", (), {"steps": STEPS})
    return [first, stage("generation", (first.id,), dict(values))]


def _point(values: Mapping[str, Any], seed: int, wanted: Wanted) -> Point:
    names = [f"step-{round(share * STEPS)}" for share in wanted.checkpoints]
    evaluations = [
        Evaluation(name, task, None if name == "final" else int(name[5:]), {"task": task, "seed": seed})
        for name in (*names, "final")
        for task in wanted.templates
    ]
    cell = cell_id(values)
    return Point(
        f"{cell},seed={seed}", cell, dict(values), seed, tuple(s.id for s in _stages(values, seed)),
        tuple(evaluations), digest_of([dict(values), seed]),
    )  # fmt: skip


def _write_definition(root: Path, points: Sequence[Point], wanted: Wanted) -> None:
    cells: dict[str, list[str]] = {}
    for point in points:
        cells.setdefault(point.cell, []).append(point.id)
    labels = list(wanted.cells[0])
    figures = [f"geneval/{m}" for m in ("overall", "single_object", "two_object", "counting", "colors", "position")]
    figures += ["geneval/color_attr"]
    metrics = [name for task in wanted.templates for name in (figures if task == "geneval" else [f"{task}/accuracy"])]
    definition = {
        "name": wanted.name,
        "base": {"train": {"steps": STEPS}, "run": {}, "evaluate": {"tasks": list(wanted.templates)}},
        "axes": {f"train.{k}": list(dict.fromkeys(c[k] for c in wanted.cells)) for k in labels},
        "seeds": list(wanted.seeds),
    }  # fmt: skip
    write_json(
        root_made(root) / "sweep.json",
        {
            "schema": 1,
            "name": wanted.name,
            "description": "CLIP or VAE features, squared error or flow matching, joint or sequential training.",
            "definition": definition,
            "digest": digest_of(definition),
            "axes": {k: list(dict.fromkeys(c[k] for c in wanted.cells)) for k in labels},
            "points": [point.id for point in points],
            "stages": {s: [p.id for p in points if s in p.stages] for point in points for s in point.stages},
            "left_out": {"target=vae,objective=mse,seed=0": "latents of a VAE are no features to regress"},
            "cells": cells,
            "baseline": cell_id(wanted.cells[wanted.baseline]),
            # Planned under its short name; the figure itself says on which features it was taken.
            "metrics": metrics + (["fid_stickers/kid"] if wanted.set_figures else []),
            "tasks": {task: {"kind": "generation" if task == "geneval" else "understanding", "version": "1"}
                      for task in wanted.templates},
            "created": "2026-11-22T02:59:00+00:00",
            "versions": {"blip3o-eval": "0.1", "torch": "2.11"},
            "git": {"commit": "a" * 40, "is_dirty": False},
        },
    )  # fmt: skip


def root_made(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    return root


def _write_point(folder: SweepFolder, point: Point, number: int, wanted: Wanted) -> None:
    own = folder.point_folder(point.id)
    own.mkdir(parents=True)
    write_point(own, point)
    for stage in _stages(point.values, point.seed):
        place = folder.stage_folder(stage.id)
        place.mkdir(parents=True, exist_ok=True)
        write_stage(place, stage)
        write_state(place, State("done", 1))
        took = Compute(STEPS, 300.0, 8 * STEPS)
        write_stage_result(place, StageResult(took, 3_400_000, digest_of([stage.id, "weights"]), {}))
        if stage.id == point.stages[-1]:
            flops = {"flops": 2e14 + 2e12 * point.seed, "flops_before": 3e14 if len(point.stages) > 1 else 0.0}
            (place / "done.json").write_text(json.dumps({"info": {"budget": flops}}))
        if wanted.ceiling and stage.id == point.stages[-1]:
            top = 0.88 if point.values.get("target") == "clip" else 0.95
            figures = {"scenes": 192, "split": "test_seen", "psnr_db": 24.6, "f1": top, "counts": 0.9, "color": 0.93}
            (place / "ceiling.json").write_text(json.dumps({**figures, "real": {"f1": 0.99, "counts": 0.98}}))
    sequential = len(point.stages) > 1
    pace = SECONDS[str(point.values.get("target", "clip"))]
    shared = Compute(STEPS, 300.0, 8 * STEPS) if sequential else Compute()
    rows, metrics = [], {}
    for share in (*wanted.checkpoints, 1.0):
        step = round(share * STEPS)
        own_compute = Compute(step, pace * step, 8 * step)
        metrics = {}
        for task, template in wanted.templates.items():
            name = "final" if share == 1.0 else f"step-{step}"
            place = folder.eval_folder(point.id, name, task)
            skill = skill_of(point.values, point.seed) * (0.25 + 0.75 * share)
            if task != "geneval":
                skill = 0.5 + 0.25 * (1 if sequential else 0.6) * share
            drawn = wanted.pictures and (share == 1.0 or wanted.checkpoint_pictures)
            metrics |= _write_run(place, template, point, skill, drawn)
        if wanted.set_figures:
            kid = 0.2 - 0.15 * skill_of(point.values, point.seed) * share
            metrics["fid_stickers/kid-stickers"] = Figure(kid, kid - 0.01, kid + 0.01, 160, "distance", False)
        rows.append(CurveRow(step, shared + own_compute, metrics, share == 1.0))
    write_curve(own, rows)
    write_result(
        own,
        PointResult(metrics, Compute(STEPS, pace * STEPS, 8 * STEPS), shared, 3_400_000 + 1000 * sequential,
                    digest_of([point.id, "weights"]), 42.0, False, point.stages),
    )  # fmt: skip
    began = f"2026-11-22T03:{number % 60:02d}:00+00:00"
    write_state(
        own, State("done", 1, started=began, finished=began.replace(":00+", ":50+"), seconds=500.0, host="node", pid=1)
    )


def _write_run(place: Path, template: Path, point: Point, skill: float, with_pictures: bool) -> dict[str, Figure]:
    """A run folder like the template's with other verdicts; returns its figures as the sweep names them."""
    run = load(template)
    place.mkdir(parents=True)
    rng = random.Random(f"{point.id} {place.parent.name} {place.name}")
    outputs, scores = list(read_rows(template / "outputs.jsonl")), list(read_rows(template / "scores.jsonl"))
    for row, output in zip(scores, outputs, strict=True):
        output["seed"] = point.seed * 1000 + output["image_index"]
        chance = skill + random.Random(row["sample_id"]).gauss(0, 0.18)
        row.update(value=float(rng.random() < chance))
        row["reason"] = "" if row["value"] else "expected something else"
        row.pop("unscored", None)
        output["status"] = "ok"
        if output.get("path") and with_pictures:
            _picture(template / output["path"], place / output["path"], skill)
        elif output.get("path"):
            output["path"] = None
    for name, rows in (("outputs", outputs), ("scores", scores)):
        (place / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    manifest = json.loads((template / "manifest.json").read_text())
    manifest.pop("content_sha256")
    manifest["config"]["seed"] = point.seed
    manifest["model"] |= {
        "name": f"blip3o:{point.id}", "weights_sha256": digest_of([point.id, "weights"]), "is_test_double": False,
    }  # fmt: skip
    if manifest["judge"]:
        manifest["judge"]["is_test_double"] = False
    write_json(place / "manifest.json", manifest)
    kept = [score_from_json(row) for row in scores]
    if place.parent.name == "final":
        found = [metric.compute(kept) for metric in metrics_of(run)[0]]
    else:  # quicker, and near enough for a checkpoint
        found = _plain_means(kept, run.manifest["task"])
    results = {k: v for k, v in dict(run.results or {}).items() if k != "content_sha256"}
    results |= {"is_test_double": False, "metrics": {m.name: metric_to_json(m) for m in found}}
    write_json(place / "results.json", results)
    return {
        f"{place.name}/{m.name}": Figure(
            m.value, m.ci95 and m.ci95[0], m.ci95 and m.ci95[1], m.n, m.unit, m.higher_is_better, m.note
        )
        for m in found
        if m.value is not None
    }


def _plain_means(rows: Sequence[Any], task: Mapping[str, Any]) -> list[MetricValue]:
    groups = {g: [r.score.value for r in rows if r.group == g] for g in task["groups"]}
    figures = {g: v for g, v in groups.items() if v}
    figures["overall" if task["name"] == "geneval" else "accuracy"] = [r.score.value for r in rows]
    return [
        MetricValue(name, sum(v) / len(v), len(v), 0, wilson(sum(v), len(v)), clusters=len(v), method="wilson")
        for name, v in figures.items()
    ]


def _picture(source: Path, target: Path, skill: float) -> None:
    """The picture of the template, the more blurred the less the model can."""
    from PIL import Image, ImageFilter

    target.parent.mkdir(parents=True, exist_ok=True)
    if not source.exists():
        return
    with Image.open(source) as image:
        image.convert("RGB").filter(ImageFilter.GaussianBlur(3 * max(0.0, 0.65 - skill))).save(target, compress_level=1)


__all__ = ["CELLS", "Wanted", "cell_id", "make_sweep", "replace", "set_state"]
