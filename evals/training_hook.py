"""Scores of a model while it trains, for recipes of ``blip3o train``:

    evaluate:
      every: 500
      hook: evals.training_hook:score
      args: {task: geneval, limit: 60, num_images: 1}

``args``: ``task`` (one or a list), ``judge`` (default auto), and any setting of a run (``limit``, ``num_images``,
``generation.steps``, ...; ``blip3o-eval config schema``). Every evaluation is a run folder of its own,
``eval/step-N/TASK`` in the training's: prompts, pictures, verdicts and report are all there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from evals import config as configs
from evals.api import ModelOptions
from evals.config import RunConfig
from evals.errors import ConfigMismatchError, UsageError
from evals.models.blip3o import Blip3oAdapter

log = logging.getLogger("evals")


class TrainingModel(Blip3oAdapter):
    """A pipeline in memory as a model of the harness; its digest is that of its weights as they are now."""

    def __init__(self, pipeline: Any, name: str, options: ModelOptions) -> None:
        self.folder, self.name, self.options = None, name, options
        self._pipeline = pipeline
        self._card = {"dtype": "float32", **pipeline.card_values()}
        self._check_options()

    @cached_property
    def _own_digest(self) -> str:
        from blip3o.train.checkpoint import digest

        return digest(self._pipeline.model.state_dict())

    def _digest(self) -> str:
        return self._own_digest

    @property
    def device(self) -> str:
        return str(self._pipeline.device)

    def load(self) -> None:
        """It is loaded: the training's own."""

    def close(self) -> None:
        """The training goes on with it."""


def check(args: Mapping[str, Any]) -> None:
    """Raises: UsageError for a task, judge or setting that does not exist, before anything trains."""
    from evals.plugins.lookup import find_task

    for task in _tasks(args):
        config = _config(task, args)
        find_task(task, config.data)


def score(moment: Any) -> dict[str, float]:
    """Evaluate the model of a ``blip3o.train.evaluation.Moment``: ``TASK/METRIC`` and the ends of its 95 % interval."""
    from evals.runner import prepare

    numbers: dict[str, float] = {}
    for task in _tasks(moment.args):
        config = _config(task, moment.args)
        options = ModelOptions(
            device="auto",
            guidance_scale=config.generation.guidance_scale,
            steps=config.generation.steps,
        )
        model = TrainingModel(moment.pipeline, f"step-{moment.step}", options)
        judge = config.judge.name
        try:
            run = prepare(task, model, judge, config, _options(moment.folder / task)).run()
        except ConfigMismatchError:
            # an evaluation that was killed, repeated with weights that a GPU rounded otherwise
            log.warning("%s was begun with other weights and is made anew", moment.folder / task)
            run = prepare(task, model, judge, config, _options(moment.folder / task, fresh=True)).run()
        if run.problem:
            log.error("evaluation at step %d, %s: %s", moment.step, task, run.problem)
        for name, metric in (run.results or {"metrics": {}})["metrics"].items():
            if metric["value"] is None:
                continue
            low, high = metric.get("ci95") or (None, None)
            bounds = {"": metric["value"], "_low": low, "_high": high}
            numbers |= {f"{task}/{name}{k}": float(v) for k, v in bounds.items() if v is not None}
    return numbers


score.check = check  # type: ignore[attr-defined]


def _tasks(args: Mapping[str, Any]) -> list[str]:
    tasks = args.get("task")
    names = [tasks] if isinstance(tasks, str) else tasks
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise UsageError(f"evaluate.args.task = {tasks!r}: name a task, such as geneval, or a list of them")
    return names


def _config(task: str, args: Mapping[str, Any]) -> RunConfig:
    layer: dict[str, Any] = {}
    settings = {"tracking.enabled": False, "judge.name": "auto", **_flat(args), "task": task}
    for key, value in settings.items():
        configs.set_key(layer, key, value)
    return configs.resolve([("evaluate.args", layer)])[0]


def _flat(args: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in args.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _options(folder: Path, fresh: bool = False) -> Any:
    from evals.phases.outcome import RunOptions

    return RunOptions(output=folder, fresh=fresh, quiet=True)
