"""From the names a user gives to a task, a model and a judge; nothing heavy is loaded."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evals import registry
from evals.api import Judge, Metric, Model, ModelOptions, Task
from evals.config import RunConfig
from evals.discovery import BUILT_IN, discover
from evals.errors import (
    EvalError,
    MissingRequirementError,
    UnknownNameError,
    UsageError,
    shown,
    suggest,
)
from evals.phases.calls import one_line
from evals.plugins.checks import protocol_problem

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def find_task(name: str, data: str | Path | None = None) -> Task:
    """The task of a registered name (``name:argument`` passes the argument on, as in ``lmms:ai2d``); ``data`` is where
    its data lie, for tasks that take some.

    Raises: UnknownNameError with a suggestion; UsageError for a task that brings its own data.
    """
    discover()
    prefix, colon, rest = name.partition(":")
    known, given = (prefix, (rest,)) if colon and prefix in registry.tasks else (name, ())
    factory = registry.tasks.get(known)
    if given and not takes(factory, "spec"):
        raise UsageError(f"task {prefix!r} takes no argument, got {shown(rest)}")
    if data is None:
        return _made(registry.tasks, known, factory, *given)
    if not takes(factory, "data"):
        raise UsageError(f"task {name!r} brings its own data: run it without --data ({data})")
    return _made(registry.tasks, known, factory, *given, data=data)


def find_metrics(names: Sequence[str]) -> list[Metric]:
    """Metrics by registered names; ``name:argument`` passes the argument on."""
    discover()
    found = []
    for spec in names:
        name, _, rest = spec.partition(":")
        metric = _made(registry.metrics, name, registry.metrics.get(name), rest)
        found.append(metric)
    return found


def _made(known: registry.Registry, name: str, factory: Any, *args: Any, **kwargs: Any) -> Any:
    """What a factory makes, checked. Faults of a plug-in become one line that names it; ours keep their traceback."""
    origin = known.origin(name)
    try:
        made = factory(*args, **kwargs)
    except EvalError:
        raise
    except Exception as error:
        if origin == BUILT_IN:
            raise
        raise registry.RegistryError(
            f"{known.kind} {name!r} ({origin}) does not start: {one_line(error)}"
        ) from error
    problem = protocol_problem(known.kind, made)
    if problem:
        raise registry.RegistryError(f"{known.kind} {name!r} ({origin}) {problem}")
    return made


def takes(factory: Any, parameter: str) -> bool:
    """Whether a factory of tasks can be given this, such as ``data``."""
    try:
        return parameter in inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False


def find_model(config: RunConfig) -> Model:
    """The model that ``config.model.name`` means: a registered name (``name:argument`` passes the
    argument on), else a folder or hub id of BLIP3-o weights.

    Raises UnknownNameError with a suggestion, or what the model's factory raises when weights or
    packages are missing.
    """
    discover()
    name = config.model.name
    options = ModelOptions(
        device=config.model.device,
        dtype=config.model.dtype,
        revision=config.model.revision,
        guidance_scale=config.generation.guidance_scale,
        steps=config.generation.steps,
        height=config.generation.height,
        width=config.generation.width,
        extra=config.model.args,
    )
    if name in registry.models:
        return _made(registry.models, name, registry.models.get(name), "", options)
    prefix, colon, rest = name.partition(":")
    if colon and prefix in registry.models:
        return _made(registry.models, prefix, registry.models.get(prefix), rest, options)
    is_path = name.startswith((".", "/", "~")) or _is_folder(name)
    if is_path or _HUB_ID.fullmatch(name):
        return registry.models.get("blip3o")(name, options)
    known = registry.models.names()
    raise UnknownNameError(
        f"Unknown model {shown(name)}.{suggest(name, known)} A folder or a hub id (owner/name) of BLIP3-o "
        "weights also works."
    )


def find_judge(config: RunConfig, task: Task, model: Model) -> Judge | None:
    """The judge that was asked for, or for "auto" the one of the model's domain.

    None for tasks without a judge. Raises UsageError when "auto" has no answer.
    """
    discover()
    if not task.judges:
        return None
    name = config.judge.name
    if name == "auto":
        domain = model.identity.domain
        by_domain = {"test": "dummy", **task.judges}
        if domain not in by_domain:
            names = ", ".join(registry.judges.names())
            raise UsageError(
                f"task {task.name!r} knows no judge for pictures of domain {domain!r} (model "
                f"{model.identity.name!r}): choose one with --judge, known are: {names}"
            )
        name = by_domain[domain]
    options = ModelOptions(device=config.model.device, extra=config.judge.args)
    prefix, _, rest = name.partition(":")
    if name not in registry.judges and prefix in registry.judges:
        return _made(registry.judges, prefix, registry.judges.get(prefix), rest, options)
    if config.judge.name == "auto" and name not in registry.judges:
        raise MissingRequirementError(
            f"judge {name!r}, which task {task.name!r} takes for domain {model.identity.domain!r}, is not "
            f"part of this version: choose one with --judge, known are: {', '.join(registry.judges.names())}"
        )
    return _made(registry.judges, name, registry.judges.get(name), "", options)


def identity_json(thing: Any) -> dict[str, Any]:
    """An Identity as the manifest holds it."""
    identity = thing.identity
    return {
        "name": identity.name,
        "version": identity.version,
        "weights_sha256": identity.digest,
        "domain": identity.domain,
        "is_test_double": identity.is_test_double,
        "settings": dict(identity.settings),
        "info": dict(identity.info),
    }


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # longer than a path may be, or with a zero byte in it
        return False
