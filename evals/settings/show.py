"""The settings of a run with the origin of each value, and the JSON Schema of settings files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from evals.config import OPEN_SECTIONS, SHORT_NAMES, RunConfig, keys, public_config
from evals.errors import MissingRequirementError, ModelError
from evals.fingerprint import GENERATION_NAMES
from evals.io.redact import redact, redact_json

DEFAULT = "default"
_PLAIN = re.compile(r"(?!(?:null|true|false)$)[A-Za-z][\w./-]*(?::[\w./-]+)*", re.ASCII | re.IGNORECASE)
_OF_MODEL = {
    **{f"generation.{key}": names for key, names in GENERATION_NAMES.items()},
    "model.dtype": ("dtype",),
}


@dataclass(frozen=True)
class Setting:
    """A value and its origin; ``becomes`` is what "auto" turns into, by ``because``."""

    value: Any
    origin: str
    becomes: Any = None
    because: str = ""

    def to_json(self) -> dict[str, Any]:
        found = {"value": self.value, "origin": self.origin}
        return {**found, "becomes": self.becomes, "because": self.because} if self.because else found


def settings_of(
    config: RunConfig, origins: Mapping[str, str]
) -> tuple[dict[str, Setting], list[str]]:
    """Every setting by its dotted key, in the order of the schema, and notes on what could not be looked up.

    Where nobody gave a value, what task, model and judge bring along stands, with origin ``preset
    ...``. Secrets are taken out. Raises UnknownNameError and UsageError as a run would.
    """
    public = public_config(config)
    found: dict[str, Setting] = {}
    for key in keys():
        value: Any = public
        for part in key.split("."):
            value = value[part]
        if key in OPEN_SECTIONS and value:
            for name, inner in value.items():
                one = f"{key}.{name}"
                found[one] = Setting(inner, origins.get(one, origins.get(key, DEFAULT)))
        else:
            found[key] = Setting(value, origins.get(key, DEFAULT))
    notes = _add_presets(found, config)
    _add_environment(found)
    return found, notes


def _add_presets(found: dict[str, Setting], config: RunConfig) -> list[str]:
    from evals.manifest import auto_batch_size
    from evals.plugins.lookup import find_judge, find_model, find_task

    def fill(key: str, value: Any, origin: str) -> None:
        if value is not None and found[key].value in (None, "auto"):
            found[key] = Setting(redact_json(value), origin)

    def becomes(key: str, value: Any, because: str) -> None:
        # Stays "auto": the number would be another configuration, with another run folder.
        if found[key].value == "auto":
            found[key] = replace(found[key], becomes=value, because=because)

    task = find_task(config.task, config.data)
    fill("num_images", 1 if task.kind == "understanding" else task.num_images, f"preset {task.name}")
    try:
        model = find_model(config)
    except (MissingRequirementError, ModelError) as error:
        return [f"presets of the model are not shown: {redact(str(error))}"]
    settings, origin = model.identity.settings, f"preset {model.identity.name}"
    for key, names in _OF_MODEL.items():
        fill(key, next((settings[n] for n in names if settings.get(n) is not None), None), origin)
    becomes("batch_size", auto_batch_size(task, model), origin)
    try:
        judge = find_judge(config, task, model)
    except (MissingRequirementError, ModelError) as error:
        return [f"presets of the judge are not shown: {redact(str(error))}"]
    if judge is not None:
        fill("judge.name", judge.identity.name, f"preset {task.name} for {model.identity.domain!r}")
        becomes("judge.batch_size", judge.identity.batch_size, f"preset {judge.identity.name}")
    return []


def _add_environment(found: dict[str, Setting]) -> None:
    for key, variable in (("tracking.tracking_uri", "MLFLOW_TRACKING_URI"), ("data", "BLIP3O_EVAL_DATA")):
        value = os.environ.get(variable)
        if found[key].value is None and value:
            found[key] = Setting(redact(value), f"environment {variable}")


def as_yaml(settings: Mapping[str, Setting], notes: list[str]) -> str:
    """YAML that ``--config`` takes, with the origin of each value as a comment."""
    lines = [f"# {' '.join(note.split())}" for note in notes]
    rows: list[tuple[str, str]] = []
    open_sections: tuple[str, ...] = ()
    for key, setting in settings.items():
        *sections, name = _parts(key)
        for depth, section in enumerate(sections):
            if open_sections[: depth + 1] != tuple(sections[: depth + 1]):
                rows.append((f"{'  ' * depth}{section}:", ""))
        open_sections = tuple(sections)
        note = setting.origin
        if setting.because:
            note += f"; becomes {_scalar(setting.becomes)}, {setting.because}"
        rows.append((f"{'  ' * len(sections)}{_scalar(name)}: {_scalar(setting.value)}", note))
    width = min(48, max(len(text) for text, note in rows if note))
    lines += [f"{text:<{width}}  # {note}" if note else text for text, note in rows]
    return "\n".join(lines)


def _parts(key: str) -> list[str]:
    for section in OPEN_SECTIONS:
        if key.startswith(f"{section}."):
            return [*section.split("."), key.removeprefix(f"{section}.")]
    return key.split(".")


def _scalar(value: Any) -> str:
    """The value as YAML, which JSON is a part of."""
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    is_ascii = not all(c.isprintable() for c in str(value))
    return json.dumps(value, ensure_ascii=is_ascii)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a settings file: RunConfig, with nothing required and its short forms."""
    schema = RunConfig.model_json_schema()
    properties = schema["properties"]
    for short in SHORT_NAMES:
        properties[short] = {
            "anyOf": [{"type": "string", "minLength": 1}, {k: properties[short][k] for k in ("$ref",)}],
            "description": f"a name, or {short}.name and more",
        }
    properties["task"]["description"] = "registered name, or several with commas between"
    schema.pop("required", None)  # what a file leaves out, another layer or the default gives
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Settings of blip3o-eval run",
        "description": "What `blip3o-eval run --config FILE` reads, as YAML or JSON.",
    }
