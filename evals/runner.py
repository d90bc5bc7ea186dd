"""The doors to a run: evaluate one task on one model, prepare a run to start it later, merge its shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evals import config as configs
from evals.api import Judge, Model, Task
from evals.config import RunConfig
from evals.errors import ConfigError, UsageError, shown
from evals.phases.beside import WHEN, When
from evals.phases.outcome import Run, RunOptions
from evals.plugins.lookup import find_judge, find_model, find_task
from evals.prepared import Prepared
from evals.results import load

__all__ = ["Prepared", "Run", "RunOptions", "evaluate", "merge", "prepare"]


def evaluate(
    task: str | Task,
    model: str | Model = "nano",
    *,
    judge: str | Judge | None = "auto",
    output: str | Path | None = None,
    config: RunConfig | None = None,
    shard: tuple[int, int] = (0, 1),
    fresh: bool = False,
    retry_errors: bool = False,
    quiet: bool = False,
    report: bool = True,
    sample_timeout_s: float | None = None,
    verify: bool = False,
    judge_when: When = "auto",
    **settings: Any,
) -> Run:
    """Evaluate a model on a task and return the finished (or resumed) run.

    Args: task, model, judge: names, or objects of the protocols in ``evals.api``. output: run folder;
    default ``runs/<task>-<model>-<first 8 of the configuration's sha256>``. settings: keys of RunConfig,
    dotted ones with two underscores: ``limit=24, generation__steps=20, tracking__enabled=False``.
    config: a whole RunConfig instead of settings. shard: (i, n) for part i of n. retry_errors: make
    outputs and scores that ended in an error again. sample_timeout_s: seconds per output that a call of
    the model or judge may take; it then runs in a child process, which is ended when it hangs or dies.
    verify: read every picture against its checksum, and make damaged ones again. judge_when: "beside" judges
    outputs while the next are made, "after" when all are; "auto" is beside unless both would share the CPU.
    Raises: UsageError and its children before anything is generated; ModelError, JudgeError and
    StoreError while running, with everything so far kept on disk.
    """
    _check_given(task, model, judge)
    if config is None:
        config = _config_from(task, model, judge, settings)
    elif settings:
        raise UsageError(f"give either config or settings, not both (got {', '.join(settings)})")
    options = RunOptions(
        Path(output) if output is not None else None,
        shard,
        fresh,
        retry_errors,
        quiet,
        report,
        sample_timeout_s=sample_timeout_s,
        verify=verify,
        judge_when=judge_when,
    )
    return prepare(task, model, judge, config, options).run()


def prepare(
    task: str | Task,
    model: str | Model,
    judge: str | Judge | None,
    config: RunConfig,
    options: RunOptions,
) -> Prepared:
    """A run that has all it needs and has not started: ``evaluate`` is ``prepare(...).run()``.

    Several are prepared before the first starts, so that what any of them lacks is said before
    anything is generated. Raises UsageError and its children; touches no run folder.
    """
    if options.retry_errors and options.shard[1] > 1:
        raise UsageError("--retry-errors works on a whole run: give it without --shard")
    if options.sample_timeout_s is not None and not 0 < options.sample_timeout_s < float("inf"):
        raise UsageError(
            f"a time limit of {options.sample_timeout_s} s per sample: give a number of seconds above 0"
        )
    if options.judge_when not in WHEN:
        raise UsageError(f"judge_when {options.judge_when!r}: give one of {', '.join(WHEN)}")
    the_task = find_task(task, config.data) if isinstance(task, str) else task
    the_model = find_model(config) if isinstance(model, str) else model
    the_judge = find_judge(config, the_task, the_model) if isinstance(judge, str) else judge
    return Prepared(config, options, the_task, the_model, the_judge)


def merge(folder: str | Path, quiet: bool = False) -> Run:
    """Merge, score and report the shards in a run folder; the configuration is its manifest's.

    Every picture is read against its checksum. Raises: UsageError naming the shards that are missing,
    torn or unfinished, with their commands; LockedError while a shard still runs.
    """
    config = RunConfig.model_validate(load(folder).manifest["config"])
    options = RunOptions(Path(folder), quiet=quiet, merge_only=True, verify=True)
    task, model = find_task(config.task, config.data), find_model(config)
    return Prepared(config, options, task, model, find_judge(config, task, model)).run()


def _check_given(task: Any, model: Any, judge: Any) -> None:
    """Raises: ConfigError for what is neither a name nor an object that could be one of the three."""
    if isinstance(task, str) and "," in task and ":" not in task:
        raise ConfigError(f"task {shown(task)}: evaluate takes one task; call it once for each")
    for kind, given, member in (("task", task, "name"), ("model", model, "identity"), ("judge", judge, "identity")):
        is_left_out = kind == "judge" and given is None
        if not (is_left_out or isinstance(given, str) or hasattr(given, member)):
            raise ConfigError(f"{kind} {shown(given)}: give a name, or an object like evals.api.{kind.title()}")


def _config_from(task: Any, model: Any, judge: Any, settings: Mapping[str, Any]) -> RunConfig:
    layer: dict[str, Any] = {}
    configs.set_key(layer, "task", task if isinstance(task, str) else task.name)
    configs.set_key(layer, "model.name", model if isinstance(model, str) else model.identity.name)
    configs.set_key(
        layer,
        "judge.name",
        judge if isinstance(judge, str) else judge.identity.name if judge else "auto",
    )
    for key, value in settings.items():
        configs.set_key(layer, key.replace("__", "."), value)
    return configs.resolve([("argument", layer)])[0]
