"""Resolves the points of a sweep one by one: stages, evaluations, outputs; problems are collected, not raised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evals.api import Metric
from evals.config import RunConfig, flatten, resolve
from evals.errors import EvalError, suggest
from evals.sweeps.api import ImpossibleError, StageSpec
from evals.sweeps.folder import FINAL, digest_of
from evals.sweeps.grid import GridPoint
from evals.sweeps.records import Evaluation, Point
from evals.sweeps.schema import SweepConfig, TaskSettings, run_layer
from evals.sweeps.source import Source
from evals.sweeps.trainers import find_trainer

TRAINED = "(trained)"  # stands for the model's name until the point has one
SECONDS_PER_OUTPUT = {"generation": 0.25, "understanding": 0.08}
"""About what the bundled model takes on 2 cores without a GPU: 2,212 pictures were drawn and judged in 502 s.
Other models take other times."""
BYTES_PER_OUTPUT = {"generation": 14_000, "understanding": 900}


@dataclass(frozen=True)
class Workload:
    """Outputs of one point's evaluations, by kind of task."""

    outputs: Mapping[str, int]

    @property
    def images(self) -> int:
        return self.outputs.get("generation", 0)

    @property
    def seconds(self) -> float:
        return sum(SECONDS_PER_OUTPUT[kind] * n for kind, n in self.outputs.items())

    @property
    def bytes(self) -> int:
        return sum(BYTES_PER_OUTPUT[kind] * n for kind, n in self.outputs.items())


class Planner:
    """Adds point after point; collects problems instead of raising them."""

    def __init__(self, config: SweepConfig, source: Source, problems: list[str]) -> None:
        self.config, self.source = config, source
        self.problems = problems
        self.points: list[Point] = []
        self.left_out: dict[str, str] = {}
        self.stages: dict[str, StageSpec] = {}
        self.workloads: dict[str, Workload] = {}
        self.tasks: dict[str, dict[str, str]] = {}
        self._metrics: dict[str, list[str]] = {}
        self._checked: dict[str, tuple[str, int] | EvalError] = {}
        self._settings: dict[str, str] = {}
        self._varied = {key for part in (*config.zip, *config.points) for key in part}

    def add(self, point: GridPoint) -> None:
        try:
            specs = self._specs(point)
        except ImpossibleError as error:
            self.left_out[point.id] = str(error)
            return
        except EvalError as error:
            self.problems.append(f"{point.place}: {error}")
            return
        outputs: dict[str, int] = {}
        evaluations = []
        for name, step, task, settings in self._moments(specs):
            try:
                config = self._config(point, task, settings, is_final=step is None)
                self._check_pair(point, config)
            except ImpossibleError as error:
                self.left_out[point.id] = str(error)
                return
            except EvalError as error:  # it names the places itself
                self.problems.append(f"{self.source.name}: {error}")
                continue
            try:
                kind, count = self._check(config, is_trained=bool(specs))
            except EvalError as error:
                self.problems.append(f"{self.source.place('base', 'evaluate', 'tasks')}: {error}")
                continue
            outputs[kind] = outputs.get(kind, 0) + count
            evaluations.append(Evaluation(name, config.task, step, config.model_dump(mode="json")))
        # The seed is in the stages' ids and in the evaluations' settings.
        digest = digest_of([[s.id for s in specs], [(e.name, e.task, e.config) for e in evaluations]])
        twin = self._settings.setdefault(digest, point.id)
        if twin != point.id and evaluations:
            self.problems.append(
                f"{point.place}: point {point.id} comes to the same training and evaluation as {twin}: take one out"
            )
        self.stages.update((spec.id, spec) for spec in specs)
        self.workloads[point.id] = Workload(outputs)
        self.points.append(
            Point(
                point.id, point.cell, dict(point.values), point.seed,
                tuple(s.id for s in specs), tuple(evaluations), digest,
            )  # fmt: skip
        )

    def _check_pair(self, point: GridPoint, config: RunConfig) -> None:
        """Training and evaluation that cannot go together. Raises: ImpossibleError."""
        if point.train is not None:
            trainer, settings = find_trainer(point.train)
            trainer.check_run(settings, config.model_dump(mode="json"))

    def _specs(self, point: GridPoint) -> list[StageSpec]:
        if point.train is None:
            return []
        trainer, settings = find_trainer(point.train)
        specs = list(trainer.plan_stages(settings, point.seed))
        last = specs[-1]
        specs[-1] = replace(last, export_at=self._steps(last.estimate.steps))
        return specs

    def _steps(self, total: int) -> tuple[int, ...]:
        """``at`` in steps of the last stage. Without settings of its own the end needs no second evaluation."""
        steps = set()
        for value in self.config.base.evaluate.at:
            step = max(1, round(value * total)) if isinstance(value, float) else value
            if step > total:
                self.problems.append(
                    f"{self.source.place('base', 'evaluate', 'at')}: base.evaluate.at: step {step} is beyond the last "
                    f"stage, which has {total}"
                )
            elif step < total or self.config.base.evaluate.final:
                steps.add(step)
        return tuple(sorted(steps))

    def _moments(
        self, specs: Sequence[StageSpec]
    ) -> list[tuple[str, int | None, str, Mapping[str, Any]]]:
        """(name, step, task, the task's own settings), in the order in which they are made."""
        tasks = [
            t if isinstance(t, TaskSettings) else TaskSettings(task=t)
            for t in self.config.base.evaluate.tasks
        ]
        return [
            (FINAL if step is None else f"step-{step}", step, task.task, task.model_extra or {})
            for step in (*(specs[-1].export_at if specs else ()), None)
            for task in tasks
            if step is None or task.checkpoints
        ]

    def _config(
        self, point: GridPoint, task: str, settings: Mapping[str, Any], is_final: bool
    ) -> RunConfig:
        place = self.source.place
        layers: list[tuple[str | Mapping[str, str], Mapping[str, Any]]] = [
            (place("seeds"), {"seed": point.seed}),
            (self._places(point), point.run),
            (place("base", "evaluate", "tasks"), run_layer(settings)),
        ]
        if is_final:
            layers.append(
                (place("base", "evaluate", "final"), run_layer(self.config.base.evaluate.final))
            )
        decided: dict[str, Any] = {"task": task, "tracking": {"enabled": False}}
        if point.train is not None:
            decided["model"] = TRAINED
        return resolve([*layers, ("the sweep", decided)])[0]

    def _places(self, point: GridPoint) -> dict[str, str]:
        """Dotted key of the run settings -> where the file says it: the axis, or the base."""
        found = {}
        for key, _ in flatten(point.run):
            axis = f"run.{key}"
            if axis in self.config.axes:
                found[key] = self.source.place("axes", axis)
            else:
                found[key] = point.place if axis in self._varied else self.source.place("base", "run", *key.split("."))
        return found

    def _check(self, config: RunConfig, is_trained: bool) -> tuple[str, int]:
        """(kind of the task, number of outputs). Raises what a run of these settings would raise at its start."""
        key = digest_of([config.model_dump(mode="json", exclude={"seed"}), is_trained])
        if key not in self._checked:
            try:
                self._checked[key] = self._look(config, is_trained)
            except EvalError as error:
                self._checked[key] = error
        found = self._checked[key]
        if isinstance(found, EvalError):
            raise found
        return found

    def _look(self, config: RunConfig, is_trained: bool) -> tuple[str, int]:
        from evals.phases.outcome import RunOptions
        from evals.phases.plan import spread_evenly
        from evals.plugins import requirements
        from evals.plugins.lookup import find_judge, find_metrics, find_task
        from evals.runner import prepare

        task = find_task(config.task, config.data)
        further: Sequence[Metric]
        if is_trained:  # the model does not exist yet
            further, official = find_metrics(config.metrics), task.samples()
            requirements.check_metrics(task, further, official)
            if config.judge.name != "auto":
                requirements.check_judge(task, find_judge(config, task, None))  # type: ignore[arg-type]
            per_sample = 1 if task.kind == "understanding" else config.num_images or task.num_images
            samples = spread_evenly(official, task.groups, config.limit or len(official))
        else:
            parts = prepare(task, config.model.name, config.judge.name, config, RunOptions()).parts
            further, per_sample, samples = parts.metrics, parts.per_sample, parts.samples
        self.tasks[task.name] = {"kind": task.kind, "version": task.version}
        if task.name not in self._metrics:
            self._metrics[task.name] = [m.name for m in [*task.metrics(), *further]]
        return task.kind, len(samples) * per_sample

    def metric_names(self) -> tuple[str, ...]:
        """``metrics`` of the file as ``task/metric``; problems are collected."""
        known = {f"{task}/{m}": None for task, names in self._metrics.items() for m in names}
        first = {task: f"{task}/{names[0]}" for task, names in self._metrics.items() if names}
        found: list[str] = []
        for i, name in enumerate(self.config.metrics):
            full = first.get(name, name)
            if full in known:
                found.append(full)
            elif known:  # else the tasks are wrong, which is said already
                place = self.source.place("metrics", i)
                near = [*known, *first]
                ends = [k for k in known if k.endswith(f"/{name}")]
                hint = f" Did you mean: {', '.join(ends[:3])}?" if ends else suggest(name, near)
                self.problems.append(f"{place}: metrics: unknown metric {name!r}.{hint}")
        return tuple(dict.fromkeys(found)) or tuple(first.values())
