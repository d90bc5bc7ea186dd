"""The sweep file: its keys, what they may hold, its JSON Schema.

    name: guidance
    base:
      train: null                                   # points of this sweep only evaluate
      run: {model: nano, judge: stickers}           # settings of `blip3o-eval run`
      evaluate: {tasks: [geneval]}
    axes: {run.generation.guidance_scale: [1, 2, 3]}
    seeds: [0, 1]

``evals.sweeps.sweepfile`` reads it, ``evals.sweeps.grid`` makes points of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from evals.config import MAX_SEED, flatten, set_key
from evals.errors import ConfigError, shown
from evals.sweeps.source import Source

Values = dict[str, list[Any]]
# Strict: `true` is no number.
Whole = Annotated[int, Field(strict=True)]
Share = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Seed = Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)]
Count = Annotated[int, Field(strict=True, ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskSettings(_Section):
    """A task with run settings of its own."""

    model_config = ConfigDict(extra="allow", frozen=True)

    task: str = Field(min_length=1, description="registered name")
    checkpoints: bool = Field(
        default=True,
        strict=True,
        exclude_if=bool,  # folders of sweeps from before it was there stay the same sweeps
        description="false: scored at the end alone, not at the checkpoints of `at`",
    )


class Evaluate(_Section):
    """What is evaluated, and when."""

    tasks: list[str | TaskSettings] = Field(
        min_length=1,
        description="names of tasks, or maps with `task` and run settings for it alone, such as limit",
    )
    at: list[Whole | Share] = Field(
        default_factory=list,
        description="checkpoints to evaluate: steps of a point's last stage (whole numbers) or shares of it "
        "(0.25); the end is always evaluated",
    )
    final: dict[str, Any] = Field(
        default_factory=dict, description="run settings for the evaluation at the end alone"
    )
    keep_checkpoints: bool = Field(
        default=True, description="false: models at checkpoints are removed once every point has been evaluated on them"
    )

    @field_validator("at")
    @classmethod
    def _known_shares(cls, values: list[int | float]) -> list[int | float]:
        for value in values:
            is_share = isinstance(value, float)
            if (is_share and not 0 < value <= 1) or (not is_share and value < 1):
                raise ValueError(f"{value} is neither a share above 0 and up to 1.0 nor a step from 1 on")
        if len(set(map(repr, values))) < len(values):
            raise ValueError("a checkpoint stands twice")
        return values


class Base(_Section):
    """What all points have in common."""

    train: dict[str, Any] | None = Field(
        description="settings of the training; null: points only evaluate, with other run settings"
    )
    run: dict[str, Any] = Field(
        default_factory=dict, description="settings of `blip3o-eval run`, nested or with dots"
    )
    evaluate: Evaluate


class SweepConfig(_Section):
    """A grid of points, what each of them trains and evaluates, and how they are compared."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$",
        description="names the folder: up to 80 letters, digits and . _ -, first a letter or a digit",
    )
    description: str = ""
    base: Base
    axes: Values = Field(
        default_factory=dict,
        description="dotted key under base (train.* or run.*) -> its values; all combinations are taken",
    )
    zip: list[Values] = Field(
        default_factory=list,
        description="groups of keys whose values go together, the first with the first; each group is one axis",
    )
    points: list[dict[str, Any]] = Field(
        default_factory=list, description="further combinations; keys left out keep the base's value"
    )
    exclude: list[dict[str, Any]] = Field(
        default_factory=list,
        description="combinations to leave out: every named key has the value, or one of the list",
    )
    seeds: list[Seed] = Field(
        default_factory=lambda: [42], min_length=1,
        description="each combination once per seed, of training and of evaluation",
    )  # fmt: skip
    baseline: dict[str, Any] | None = Field(
        default=None,
        description="the combination that all others are compared with; None: the first",
    )
    metrics: list[str] = Field(
        default_factory=list,
        description="task/metric, in printing order; a task's name stands for its first metric. []: the first of "
        "each task",
    )
    on_error: Literal["continue", "stop"] = Field(
        default="continue", description="what happens to the other points when one fails"
    )
    max_parallel: Count | None = Field(default=None, description="jobs at once; None: what the executor holds")
    executor: str | dict[str, Any] = Field(
        default="local", description="local, slurm, ray, or a map of `name` and its settings, such as cores and gpus"
    )

    @field_validator("axes", "zip", mode="after")
    @classmethod
    def _has_values(cls, value: Any) -> Any:
        for axes in value if isinstance(value, list) else [value]:
            if isinstance(value, list) and not axes:
                raise ValueError("a group without keys")
            for key, values in axes.items():
                if not values:
                    raise ValueError(f"{key} has no values: the grid would be empty")
            if isinstance(value, list) and len({len(v) for v in axes.values()}) > 1:
                sizes = ", ".join(f"{k} has {len(v)}" for k, v in axes.items())
                raise ValueError(f"keys that go together need as many values each ({sizes})")
        return value


UNRELATED = ("description", "on_error", "max_parallel", "executor")
"""Keys that move no number and may change between two starts of one sweep."""


def run_layer(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Run settings, nested or with dots, as one nested layer. Raises ConfigError for an unknown key."""
    layer: dict[str, Any] = {}
    for key, value in flatten(settings):
        set_key(layer, key, value)
    return layer


def check_base(config: SweepConfig, source: Source, problems: list[str]) -> SweepConfig:
    """Add what is wrong with the run settings to ``problems``; returns the definition without it, to look further."""
    is_trained = config.base.train is not None
    evaluate = config.base.evaluate

    def sound(settings: Mapping[str, Any], *path: str | int) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, value in flatten(settings):
            problem = _setting_problem(key, is_trained)
            if problem is None:
                set_key(kept, key, value)
            else:
                where = ".".join(map(str, path))
                problems.append(f"{source.place(*path, *key.split('.'))}: {where}.{key}: {problem}")
        return kept

    tasks: dict[str, str | TaskSettings] = {}
    for i, task in enumerate(evaluate.tasks):
        path = ("base", "evaluate", "tasks", i)
        name = task if isinstance(task, str) else task.task
        if name in tasks:
            problems.append(f"{source.place(*path)}: base.evaluate.tasks names {name} twice")
        elif isinstance(task, TaskSettings):
            tasks[name] = TaskSettings(
                task=name, checkpoints=task.checkpoints, **sound(task.model_extra or {}, *path)
            )
        else:
            tasks[name] = task
    if evaluate.at and not is_trained:
        problems.append(
            f"{source.place('base', 'evaluate', 'at')}: base.evaluate.at: points without training have no checkpoints"
        )
    elif evaluate.at and not any(isinstance(t, str) or t.checkpoints for t in evaluate.tasks):
        problems.append(
            f"{source.place('base', 'evaluate', 'at')}: base.evaluate.at: every task says `checkpoints: false`, so "
            "there is nothing to score there; leave `at` out, or let a task be scored at checkpoints"
        )
    if len(set(config.seeds)) < len(config.seeds):
        problems.append(f"{source.place('seeds')}: seeds: a seed stands twice in {shown(config.seeds)}")
    kept = evaluate.model_copy(
        update={"tasks": list(tasks.values()), "final": sound(evaluate.final, "base", "evaluate", "final")}
    )
    base = config.base.model_copy(
        update={"run": sound(config.base.run, "base", "run"), "evaluate": kept}
    )
    return config.model_copy(update={"base": base, "seeds": list(dict.fromkeys(config.seeds))})


def _setting_problem(key: str, is_trained: bool) -> str | None:
    """Unknown run settings, and those that the sweep itself decides."""
    if key == "task":
        return "tasks stand in base.evaluate.tasks"
    if key in ("model", "model.name") and is_trained:
        return "the model is what each point trains; leave it out, or set train: null"
    try:
        set_key({}, key, None)
    except ConfigError as error:
        return str(error)
    return None


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a sweep file; ``base.run`` is that of settings files."""
    from evals.settings.show import json_schema as run_schema

    schema, run = SweepConfig.model_json_schema(), run_schema()
    definitions = {**run.pop("$defs"), **schema.pop("$defs")}
    run.pop("$schema")
    base = definitions["Base"]["properties"]
    base["run"] = {"$ref": "#/$defs/RunSettings", "description": base["run"]["description"]}
    final = definitions["Evaluate"]["properties"]
    final["final"] = {"$ref": "#/$defs/RunSettings", "description": final["final"]["description"]}
    # Keys with dots (`generation.steps`) are allowed too.
    run = {**run, "additionalProperties": True}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "$defs": {**definitions, "RunSettings": run},
        "title": "Sweep of blip3o-eval",
        "description": "What `blip3o-eval sweep plan|run FILE` reads, as YAML or JSON.",
    }
