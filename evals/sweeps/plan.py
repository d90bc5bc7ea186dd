"""What a sweep is going to do and cost, found out without training, generating or writing anything.

Every point's settings are resolved as ``blip3o-eval run`` would, its stages are planned by the trainer, and all that is
wrong is told at once. Times are estimates: training as the trainer says, evaluation by the rates of ``planner``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evals.config import flatten
from evals.errors import EvalError, unknown_name
from evals.settings.files import parse_assignment
from evals.sweeps.api import StageSpec
from evals.sweeps.folder import digest_of
from evals.sweeps.grid import Grid, expand
from evals.sweeps.planner import Planner, Workload
from evals.sweeps.records import Point
from evals.sweeps.schema import UNRELATED, SweepConfig, TaskSettings, check_base, run_layer
from evals.sweeps.source import Source, together
from evals.sweeps.sweepfile import load_sweep


@dataclass(frozen=True)
class PlannedStage:
    """A stage and the points that need it."""

    spec: StageSpec
    users: tuple[str, ...]

    @property
    def is_shared(self) -> bool:
        return len(self.users) > 1


@dataclass(frozen=True)
class SweepPlan:
    """``left_out``: point id -> why it cannot be. ``tasks``: name -> kind, version. ``metrics``: in printing order.

    ``notes``: what else a reader has to know before the start, a line each.
    """

    config: SweepConfig
    source: Source
    grid: Grid
    points: tuple[Point, ...]
    left_out: Mapping[str, str]
    stages: Mapping[str, PlannedStage]
    workloads: Mapping[str, Workload]
    tasks: Mapping[str, Mapping[str, str]]
    metrics: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for point in self.points:
            found.setdefault(point.cell, []).append(point.id)
        return found

    @property
    def definition(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """sha256 of all that changes a number."""
        kept = {k: v for k, v in self.definition.items() if k not in UNRELATED}
        return digest_of([kept, [point.digest for point in self.points]])

    def train_seconds(self, point: Point | None = None) -> float:
        """Estimated training of one point, shared stages counted in, or of all, each stage once."""
        ids = self.stages if point is None else point.stages
        return sum(self.stages[i].spec.estimate.seconds for i in ids)

    def stage_bytes(self, stage: PlannedStage) -> int:
        estimate = stage.spec.estimate
        return estimate.bytes + len(stage.spec.export_at) * estimate.export_bytes

    @property
    def eval_seconds(self) -> float:
        return sum(load.seconds for load in self.workloads.values())

    @property
    def bytes(self) -> int:
        stages = sum(map(self.stage_bytes, self.stages.values()))
        return stages + sum(load.bytes for load in self.workloads.values())

    @property
    def images(self) -> int:
        return sum(load.images for load in self.workloads.values())


def plan_sweep(name: str | Path, overrides: Sequence[str] = ()) -> SweepPlan:
    """The plan of a sweep file, or of one that ships. Raises: ConfigError with a line per problem."""
    config, source = load_sweep(name, overrides)
    return replace(plan(config, source), notes=tuple(_without_effect(config, overrides)))


def _without_effect(config: SweepConfig, overrides: Sequence[str]) -> Iterator[str]:
    """A line for each override of ``base.run`` that reaches no evaluation, as every task has that setting itself."""
    tasks = [task.model_extra or {} if isinstance(task, TaskSettings) else {} for task in config.base.evaluate.tasks]
    own = set.intersection(*({key for key, _ in flatten(run_layer(settings))} for settings in tasks))
    given = dict(pair for text in overrides for pair in flatten(dict([parse_assignment(text)])))
    for key in given:
        setting = key.removeprefix("base.run.")
        if setting != key and setting in own:
            yield (
                f"--set {key} changes nothing: every task of base.evaluate.tasks has its own {setting}. "
                f"--set base.evaluate.final.{setting} holds for all of them at the end"
            )


def plan(config: SweepConfig, source: Source) -> SweepPlan:
    """Resolve every point. Raises: ConfigError with a line per problem; nothing is written."""
    problems: list[str] = []
    sound = check_base(config, source, problems)
    grid = expand(sound, source, problems)
    planner = Planner(sound, source, problems)
    for point in grid.points:
        planner.add(point)
    metrics = planner.metric_names()
    try:
        check_executor(*executor_of(config))
    except EvalError as error:
        problems.append(f"{source.place('executor')}: {error}")
    if problems:
        raise together(source.name, problems)
    points, left_out = tuple(planner.points), planner.left_out
    if not points:
        raise together(source.name, [f"no point is possible: {why}" for why in left_out.values()])
    cells = dict.fromkeys(p.cell for p in points)
    if grid.baseline not in cells:
        if config.baseline is not None:
            reason = next((left_out[p.id] for p in grid.points if p.cell == grid.baseline), None)
            why = "left out by exclude" if reason is None else f"impossible: {reason}"
            place = source.place("baseline")
            raise together(source.name, [f"{place}: baseline {grid.baseline} is {why}"])
        grid = replace(grid, baseline=next(iter(cells)))
    stages = {
        spec.id: PlannedStage(spec, tuple(p.id for p in points if spec.id in p.stages))
        for spec in planner.stages.values()
    }
    return SweepPlan(
        config, source, grid, points, left_out, stages, planner.workloads, planner.tasks, metrics
    )


def executor_of(config: SweepConfig) -> tuple[str, dict[str, Any]]:
    """Name and settings of the executor that a file asks for."""
    given = config.executor
    settings = dict(given) if isinstance(given, dict) else {"name": given}
    return str(settings.pop("name", "local")), settings


def check_executor(name: str, settings: Mapping[str, Any]) -> None:
    """Raises: UnknownNameError and ConfigError, with suggestions; whether it can start is known when it is opened."""
    from evals.sweeps.executors.settings import SETTINGS, parse

    if name not in SETTINGS:
        raise unknown_name("executor", name, SETTINGS)
    parse(SETTINGS[name], name, settings)


def differing_keys(recorded: Mapping[str, Any], wanted: SweepPlan) -> list[str]:
    """``axes.train.target: recorded ["clip"], wanted ["clip", "vae"]`` for all that differs from a recorded sweep."""
    from evals.fingerprint import differing_keys as differing

    old, new = (
        {k: v for k, v in _flat(d) if k.split(".")[0] not in UNRELATED}
        for d in (recorded["definition"], wanted.definition)
    )
    lines = differing(old, new, {})
    if not lines and recorded["digest"] != wanted.digest:
        lines = ["what its points train or run, which this version of the package or its tasks plans differently"]
    return lines


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found
