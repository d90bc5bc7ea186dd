"""Settings as people write them: YAML or JSON files, and ``--set a.b=c``; every key with its line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evals.config import SHORT_NAMES, flatten, is_open_map, set_key
from evals.errors import ConfigError, InputError, shown


def parse_assignment(text: str) -> tuple[str, Any]:
    """``"generation.steps=20"`` -> ("generation.steps", 20); the value is read as YAML."""
    from evals.settings.yaml import SettingsError, parse

    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {shown(text)}: give key=value, such as generation.steps=20")
    try:
        return key.strip(), parse(value)
    except SettingsError as error:
        raise ConfigError(
            f"--set {shown(text)}: the value is not valid YAML ({error.problem})"
        ) from None


def read_config_file(path: str | Path) -> dict[str, Any]:
    """A YAML or JSON file as a nested layer. Raises InputError with file and line."""
    return read_layer(path)[0]


def read_layer(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A YAML or JSON file as a nested layer, and per dotted key its place, ``file a.yaml:3``.

    Raises: InputError, one line with the file and, where it is known, the line.
    """
    data, lines = read_mapping(path)
    layer: dict[str, Any] = {}
    places: dict[str, str] = {}
    for key, value in flatten(data):
        line = _line_of(key, lines)
        place = f"{path}:{line}" if line else str(path)
        try:
            set_key(layer, key, value)
        except ConfigError as error:
            raise InputError(f"config file {place}: {error}") from None
        key = SHORT_NAMES.get(key, key)
        places[key] = f"file {place}"
        if is_open_map(key, value):
            for name in value:
                inner = lines.get((*key.split("."), name))
                places[f"{key}.{name}"] = f"file {path}:{inner}" if inner else f"file {path}"
    return layer, places


def _line_of(key: str, lines: Mapping[tuple[str, ...], int]) -> int | None:
    # `generation.steps: 5` may stand in one piece at the top, too.
    return lines.get(tuple(key.split("."))) or lines.get((key,))


def read_mapping(
    path: str | Path, what: str = "config file"
) -> tuple[Mapping[str, Any], dict[tuple[str, ...], int]]:
    """Keys and values of a YAML or JSON file as they stand, and the line of each key.

    Raises: InputError, one line that calls the file ``what``.
    """
    from evals.io.strict_json import NotJsonError
    from evals.io.strict_json import parse as parse_json
    from evals.settings.yaml import MAX_BYTES, SettingsError, key_lines, parse

    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)  # a device without end is not read to the end
        text = raw.decode("utf-8-sig")
        data = parse_json(raw) if str(path).lower().endswith(".json") else parse(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{what} {path}: cannot be read ({_first_line(error)})") from None
    except NotJsonError as error:
        raise InputError(f"{what} {path}: not valid JSON ({error})") from None
    except SettingsError as error:
        place = f"{path}:{error.line}" if error.line else str(path)
        raise InputError(f"{what} {place}: not valid YAML ({error.problem})") from None
    if data is None:
        raise InputError(f"{what} {path}: the file is empty, expected keys and values")
    if not isinstance(data, Mapping):
        raise InputError(f"{what} {path}: expected keys and values, got {type(data).__name__}")
    return data, key_lines(text)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
