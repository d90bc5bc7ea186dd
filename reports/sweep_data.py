"""What the page of a sweep is made of, read once: table, points, names of cells and metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evals.errors import EvalError
from evals.results import RunData, load
from evals.sweeps.folder import FINAL, SweepFolder, read_stage
from evals.sweeps.results import Cell, Row, SweepTable, build
from reports.format import words
from reports.sweep_points import PointData, read_points
from reports.sweep_stats import Study

MAX_CURVES = 8  # metrics with curves; the headline of each task first


@dataclass(frozen=True)
class Ceiling:
    """What a target's decoder shows of real pictures (stage's `ceiling.json`): figure -> value, and how many scenes."""

    figures: Mapping[str, float]
    scenes: int | None


class SweepData:
    """A sweep folder as the page needs it. Raises InputError where `sweep.json` is missing or damaged."""

    def __init__(self, root: Path) -> None:
        self.folder = SweepFolder(root)
        self.sweep = self.folder.sweep()
        self.table: SweepTable = build(self.folder)
        self.points: list[PointData] = read_points(self.folder)
        self.by_id = {point.id: point for point in self.points}
        self.axes: Mapping[str, Sequence[Any]] = {k: v for k, v in self.sweep["axes"].items() if len(v) > 1}
        self.cells: tuple[Cell, ...] = self.table.cells
        self.names = {cell.id: self._name(cell) for cell in self.cells}
        self.places = {cell.id: i for i, cell in enumerate(self.cells)}
        self.baseline = next((c for c in self.cells if c.id == self.table.baseline), None)
        results = {p.id: p.result for p in self.points if p.result is not None and p.state.status == "done"}
        self.study = Study(self.table, results, {p.id: p.point.seed for p in self.points})

    def _name(self, cell: Cell) -> str:
        """`clip, flow, joint`; values that are no words say what they are of: `guidance scale 3`."""
        parts = []
        for axis in self.axes:
            if axis in cell.values:
                value = cell.values[axis]
                is_word = isinstance(value, str) and not value.isdigit()
                parts.append(value if is_word else f"{words(axis)} {_text(value)}")
        return ", ".join(parts) or "all points"

    def metric_name(self, metric: str) -> str:
        """`two object`, or `geneval: two object` where there are several tasks."""
        task, _, own = metric.partition("/")
        return words(own) if len(self.tasks) == 1 else f"{words(task)}: {words(own)}"

    @property
    def is_trained(self) -> bool:
        """Whether points are trained; without, a seed is one of sampling alone."""
        return any(point.point.stages for point in self.points)

    def trainings(self, seeds: int, is_one: bool) -> int:
        """How many trainings stand behind a comparison over `seeds`; without training, what is said of the model."""
        if not self.is_trained:
            return max(2, seeds)
        return 1 if is_one else seeds

    @cached_property
    def stage_steps(self) -> Mapping[str, int]:
        """Stage id -> optimizer steps it was planned with, of stages whose file can be read."""
        found = {}
        for stage in dict.fromkeys(i for point in self.points for i in point.point.stages):
            try:
                found[stage] = read_stage(self.folder.stage_folder(stage)).estimate.steps
            except (EvalError, KeyError, TypeError):
                continue
        return found

    @cached_property
    def tasks(self) -> list[str]:
        """Tasks with a metric in the table, in its order."""
        return list(dict.fromkeys(metric.partition("/")[0] for metric in self.table.metrics))

    @cached_property
    def headlines(self) -> list[str]:
        """The first metric of each task that has a value anywhere."""
        first: dict[str, str] = {}
        for metric in self.shown:
            first.setdefault(metric.partition("/")[0], metric)
        return list(first.values())

    @cached_property
    def shown(self) -> list[str]:
        """Metrics with a value in some cell."""
        return [m for m in self.table.metrics if any(row.value is not None for row in self.table.of(m))]

    @cached_property
    def curved(self) -> list[str]:
        """Metrics whose curves are drawn."""
        found = {name for p in self.points for row in p.curve if not row.is_final for name in row.metrics}
        ordered = dict.fromkeys([*self.headlines, *self.shown, *(m for m in self.table.metrics)])
        return [m for m in ordered if m in found][:MAX_CURVES]

    def without_root(self, text: str) -> str:
        """The text with paths relative to the sweep's folder: a page that is sent on names no folder of a machine."""
        for root in {str(self.folder.root), str(self.folder.root.absolute())}:
            text = text.replace(f"{root}/", "").replace(root, self.sweep["name"])
        return text

    def row(self, cell: Cell, metric: str) -> Row | None:
        return next((row for row in self.table.of(metric) if row.cell == cell.id), None)

    def kind(self, metric: str) -> str | None:
        """"generation" or "understanding"."""
        return (self.sweep["tasks"].get(metric.partition("/")[0]) or {}).get("kind")

    def run(self, point: str, task: str, name: str = FINAL) -> RunData | None:
        """An evaluation's run folder; None where it is missing, unfinished or damaged."""
        try:
            found = load(self.folder.eval_folder(point, name, task))
        except EvalError:
            return None
        return found if found.is_finished else None

    @cached_property
    def runs(self) -> dict[str, RunData]:
        """A finished run of each task, of the first point that has one: for judge, prompts and settings."""
        found: dict[str, RunData] = {}
        for task in self.sweep["tasks"]:
            for point in self.points:
                run = self.run(point.id, task)
                if run is not None:
                    found[task] = run
                    break
        return found

    @cached_property
    def ceilings(self) -> dict[str, Ceiling]:
        """Cell -> what its decoder can show at best, of those whose stages measured it."""
        found = {}
        for cell in self.cells:
            for point in (self.by_id[i] for i in cell.points if i in self.by_id):
                ceiling = next(filter(None, (self._ceiling(stage) for stage in point.point.stages)), None)
                if ceiling is not None:
                    found[cell.id] = ceiling
                    break
        return found

    def _ceiling(self, stage: str) -> Ceiling | None:
        try:
            data = json.loads((self.folder.stage_folder(stage) / "ceiling.json").read_bytes())
            figures = {
                k: float(v) for k, v in data.items() if isinstance(v, (int, float)) and k != "scenes" and v == v
            }
            return Ceiling(figures, data.get("scenes"))
        except (OSError, ValueError, AttributeError):
            return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
