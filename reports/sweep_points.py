"""The points of a sweep as far as their folders can be read: for the page and for MLflow.

A folder may be half written, damaged or of a sweep that goes on: what can be read is there, what cannot is a line in
the point's `problem`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from evals.errors import EvalError
from evals.results import load
from evals.sweeps.folder import (
    CURVE,
    POINT,
    RESULT,
    CurveRow,
    Evaluation,
    Point,
    PointResult,
    State,
    SweepFolder,
    read_stage,
)
from evals.sweeps.trainers import find_trainer

MAX_SOURCE = 20_000  # characters of a data set's description; MLflow takes 65,535


@dataclass(frozen=True)
class DataSet:
    """What a point was trained or judged on; `digest` names its content."""

    name: str
    digest: str
    source: str
    context: str


@dataclass(frozen=True)
class PointData:
    """A point's folder, read as far as it can be; `problem`: the line of what could not."""

    point: Point
    sweep: SweepFolder
    state: State
    result: PointResult | None
    curve: tuple[CurveRow, ...]
    problem: str | None = None
    files: tuple[Path, ...] = ()

    @property
    def id(self) -> str:
        return self.point.id

    @property
    def folder(self) -> Path:
        return self.sweep.point_folder(self.id)

    @property
    def last_step(self) -> int:
        """The last evaluated step; 0 without training."""
        return max((row.step for row in self.curve), default=0)

    @cached_property
    def data_sets(self) -> list[DataSet]:
        """What its stages were trained on and its evaluations judged on."""
        return _data_sets(self)

    @cached_property
    def model(self) -> tuple[str, str] | None:
        """Name and digest of the weights that were scored."""
        if self.result is not None and self.result.weights_sha256:
            return self.id, self.result.weights_sha256
        for evaluation, manifest in _manifests(self):
            part = manifest["model"]
            if evaluation.step is None and part.get("weights_sha256"):
                return str(part["name"]), str(part["weights_sha256"])
        return None

    @cached_property
    def flops(self) -> Mapping[str, float]:
        """Phase of its training -> floating-point operations; {} without training, or where nothing was counted."""
        train = self.sweep.sweep()["definition"]["base"]["train"]
        if train is None or self.result is None or not self.point.stages:
            return {}
        try:
            trainer, _ = find_trainer(train)
            return trainer.flops_of(self.sweep.stage_folder(self.point.stages[-1]))
        except EvalError:  # a trainer of another version, or a damaged file
            return {}

    @property
    def started_ms(self) -> int | None:
        """When its last attempt began; ms since 1970."""
        return ms_of(self.state.started)

    @property
    def finished_ms(self) -> int | None:
        return ms_of(self.state.finished)


def read_points(folder: SweepFolder) -> list[PointData]:
    """Every point whose `point.json` can be read, in the order of the sweep; a damaged file is a point's `problem`."""
    found = []
    for point_id in folder.point_ids():
        try:
            point = folder.point(point_id)
        except (EvalError, KeyError, TypeError):  # not written yet, or damaged: there is nothing to log
            continue
        found.append(_read(folder, point))
    return found


def _read(folder: SweepFolder, point: Point) -> PointData:
    root, problems = folder.point_folder(point.id), []
    state = folder.state(point.id)
    result: PointResult | None = None
    curve: tuple[CurveRow, ...] = ()
    try:
        result = folder.result(point.id)
    except (EvalError, KeyError, TypeError) as error:
        problems.append(f"{RESULT}: {error}")
    try:
        curve = tuple(folder.curve(point.id))
    except (EvalError, KeyError, TypeError, ValueError) as error:
        problems.append(f"{CURVE}: {error}")
    names = [root / POINT, root / RESULT, root / CURVE]
    names += [root / e.folder / name for e in point.evaluations for name in ("results.json", "manifest.json")]
    return PointData(
        point, folder, state, result, curve, "; ".join(problems) or None,
        tuple(path for path in names if path.is_file()),
    )  # fmt: skip


def _data_sets(point: PointData) -> list[DataSet]:
    found: dict[tuple[str, str], DataSet] = {}
    for stage_id in point.point.stages:
        try:
            stage = read_stage(point.sweep.stage_folder(stage_id))
        except (EvalError, KeyError, TypeError):
            continue
        source = json.dumps({"seed": stage.seed, **stage.settings}, sort_keys=True)[:MAX_SOURCE]
        digest = stage_id.rpartition("-")[2]
        found[stage.name, digest] = DataSet(f"stage {stage.name}", digest, source, "training")
    for _, manifest in _manifests(point):
        task = manifest["task"]
        name, digest = f"{task['name']} {task['version']}", task["prompts_sha256"]
        found[name, digest] = DataSet(name, digest, str(task["card"].get("data", "")), "evaluation")
    return list(found.values())


def _manifests(point: PointData) -> Iterator[tuple[Evaluation, Mapping[str, Any]]]:
    """Manifests of its evaluations that are there and whole."""
    for evaluation in point.point.evaluations:
        try:
            yield evaluation, load(point.folder / evaluation.folder).manifest
        except EvalError:
            continue


def ms_of(moment: str | None) -> int | None:
    """Milliseconds since 1970 of a moment as ISO 8601; None for none."""
    try:
        return int(datetime.fromisoformat(moment).timestamp() * 1000) if moment else None
    except ValueError:
        return None
