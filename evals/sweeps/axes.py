"""Which keys of a sweep may vary: those under ``train`` and ``run`` that belong to the points and vary in one place."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from evals.config import keys
from evals.errors import ConfigError, shown
from evals.sweeps.schema import SweepConfig, run_layer
from evals.sweeps.source import Source

ROOTS = ("train", "run")


def without_wrong_keys(config: SweepConfig, source: Source, problems: list[str]) -> SweepConfig:
    """Keys that are not under train or run, or that vary in two places, are told and taken out."""
    seen: dict[str, str] = {}

    def sound(values: Mapping[str, Any], *path: str | int, varies: bool = True) -> dict[str, Any]:
        kept = {}
        for key, value in values.items():
            place = source.place(*path, key)
            problem = _key_problem(key, config)
            if problem is None and varies and key in seen:
                problem = f"varies twice, here and at {seen[key]}"
            if problem is None:
                kept[key] = value
                seen.setdefault(key, place)
            else:
                problems.append(f"{place}: axis {shown(key)} {problem}")
        return kept

    axes = sound(config.axes, "axes")
    zipped = [sound(group, "zip", i) for i, group in enumerate(config.zip)]
    points = [sound(point, "points", i, varies=False) for i, point in enumerate(config.points)]
    return config.model_copy(
        update={"axes": axes, "zip": [g for g in zipped if g], "points": [p for p in points if p]}
    )


def _key_problem(key: str, config: SweepConfig) -> str | None:
    root, _, rest = key.partition(".")
    if root not in ROOTS or not rest or not all(key.split(".")):
        return f"is no key under base.train or base.run.{_near(key, config)}"
    if root == "train":
        if config.base.train is None:
            return "cannot vary: base.train is null, points of this sweep do not train"
        return None
    if rest == "task":
        return "cannot vary: tasks stand in base.evaluate.tasks"
    if rest == "seed":
        return "cannot vary: give seeds"
    if rest in ("model", "model.name") and config.base.train is not None:
        return "cannot vary: the model is what each point trains"
    try:
        run_layer({rest: None})
    except ConfigError as error:
        return f"cannot vary: {error}"
    return None


def _near(key: str, config: SweepConfig) -> str:
    known = [f"run.{k}" for k in keys()]
    known += [f"train.{k}" for k, _ in _flat(config.base.train or {})]
    close = [k for k in known if k.endswith(f".{key}")]
    close = close or difflib.get_close_matches(key, known, n=3, cutoff=0.75)
    if close:
        return f" Did you mean: {', '.join(close[:3])}?"
    return f" Write train.{key} for the training, run.{key} for the evaluation."


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
