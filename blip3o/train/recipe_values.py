"""Settings of a recipe as YAML gives them -> the dataclasses that use them, with everything that is wrong listed."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from blip3o.config import suggestion
from blip3o.errors import ConfigError


def read_settings(
    kind: type[Any], values: Mapping[str, Any], name: str, problems: list[str], is_complete: bool = True
) -> Any:
    """``kind`` from settings by name. What is missing, unknown, mistyped or refused by ``kind`` itself is added to
    ``problems``, and then the answer is None. ``is_complete``: False checks names and types alone."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    needed = [
        f.name
        for f in fields.values()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    wrong, typed, hints = [], {}, get_type_hints(kind)
    if missing := [key for key in needed if key not in values]:
        wrong.append(f"{name} lacks {', '.join(missing)}")
    for key, value in values.items():
        if key not in fields:
            wrong.append(f"unknown key {name}.{key}{suggestion(str(key), list(fields))}")
            continue
        try:
            typed[key] = typed_value(value, hints[key], f"{name}.{key}")
        except ConfigError as error:
            wrong.append(str(error))
    made = None
    if is_complete and all(key in typed for key in needed):
        try:
            made = kind(**typed)  # with defaults for what was wrong, to find what contradicts the rest
        except ConfigError as error:
            wrong.append(str(error))
    problems.extend(wrong)
    return None if wrong else made


def typed_value(value: Any, hint: Any, name: str) -> Any:
    """The value as the field wants it, or ConfigError. YAML's lists become tuples, its whole numbers floats."""
    options = [h for h in get_args(hint) if h is not type(None)] if type(None) in get_args(hint) else [hint]
    if value is None:
        if len(options) < len(get_args(hint)):
            return None
        raise ConfigError(f"{name} must not be empty")
    (option,) = options if len(options) == 1 else (Any,)
    if get_origin(option) is Literal:
        if value not in get_args(option):
            raise ConfigError(f"{name} {value!r} is unknown: one of {', '.join(get_args(option))}")
    elif get_origin(option) is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"{name} must be a list, got {value!r}")
        inner = get_args(option)[0]
        return tuple(typed_value(v, inner, name) if inner in (str, float) else v for v in value)
    elif option is float:
        if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
            value = float(value)  # YAML 1.1 reads 1e-4 as text
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{name} must be a number such as 1.0e-4, got {value!r}")
        return float(value)
    elif option is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise ConfigError(f"{name} must be a whole number, got {value!r}")
    elif option is str:
        if not isinstance(value, str):
            raise ConfigError(f"{name} must be text, got {value!r}")
        return _with_environment(value, name)
    elif option is bool and not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false, got {value!r}")
    elif get_origin(option) is dict and not isinstance(value, dict):
        raise ConfigError(f"{name} must hold settings by name, got {value!r}")
    return value


def _with_environment(text: str, name: str) -> str:
    def lookup(match: re.Match[str], name: str = name) -> str:
        value = os.environ.get(match[1])
        if value is None:
            raise ConfigError(f"{name}: the environment has no {match[1]}; set it, or --set the path")
        return value

    return re.sub(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?", partial(lookup), text)


def set_value(values: dict[str, Any], override: str) -> None:
    """Put one ``a.b=value`` into settings as read from YAML. Raises: ConfigError."""
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override!r}: write it as key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override!r}: {text!r} is no YAML value") from None
    *path, last = key.split(".")
    at: Any = values
    for part in path:
        if isinstance(at, list):
            if not part.isdigit() or int(part) >= len(at):
                raise ConfigError(f"--set {override!r}: there is no entry {part}; entries 0 to {len(at) - 1}")
            at = at[int(part)]
        elif isinstance(at, dict):
            at = at.setdefault(part, {})
        else:
            raise ConfigError(f"--set {override!r}: '{part}' is not a group of settings")
    if isinstance(at, list):
        if not last.isdigit() or int(last) >= len(at):
            raise ConfigError(f"--set {override!r}: there is no entry {last}; entries 0 to {len(at) - 1}")
        at[int(last)] = value
    elif isinstance(at, dict):
        at[last] = value
    else:
        raise ConfigError(f"--set {override!r}: '{last}' has no place to go")
