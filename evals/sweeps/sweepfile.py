"""Sweep files: by path or by the name of a sweep that ships, with ``--set``, checked in form, lines kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from evals.errors import ConfigError, UsageError, shown, suggest
from evals.settings.files import parse_assignment, read_mapping
from evals.sweeps.schema import SweepConfig
from evals.sweeps.source import Source, together

FILES = Path(__file__).parent / "files"
_SUFFIXES = (".yaml", ".yml", ".json")


def shipped() -> dict[str, Path]:
    """Sweeps that come with the package: name -> file."""
    return {path.stem: path for path in sorted(FILES.glob("*.yaml"))}


def find_sweep(name: str | Path) -> Path:
    """The file of a path, or of the name of a sweep that ships. Raises UsageError with a suggestion."""
    path, known = Path(name), shipped()
    if str(name) in known and not path.is_file():
        return known[str(name)]
    if path.is_file() or path.suffix in _SUFFIXES or len(path.parts) > 1:
        return path
    raise UsageError(
        f"{shown(str(name))} is neither a sweep file nor the name of one that ships.{suggest(str(name), known)}"
    )


def load_sweep(name: str | Path, overrides: Sequence[str] = ()) -> tuple[SweepConfig, Source]:
    """A sweep file whose form is right. ``overrides``: ``base.train.steps=100``, ``seeds=[0, 1]``, later ones winning.

    Raises: InputError for a file that cannot be read, ConfigError with a line per wrong key or value.
    """
    path = find_sweep(name)
    data, lines = read_mapping(path, "sweep file")
    data = dict(data)
    for text in overrides:
        _override(data, *parse_assignment(text))
    source = Source(str(path), lines)
    return check_form(data, source), source


def check_form(data: Mapping[str, Any], source: Source) -> SweepConfig:
    """A definition as data -> SweepConfig. Raises: ConfigError naming every problem and its place."""
    try:
        return SweepConfig.model_validate(dict(data))
    except ValidationError as error:
        raise together(source.name, _explained(error, source)) from None


def _override(data: dict[str, Any], key: str, value: Any) -> None:
    first, _, rest = key.partition(".")
    if first == "axes" and rest:  # its keys hold dots themselves
        data["axes"] = {**(data.get("axes") or {}), rest: value}
        return
    *parents, last = key.split(".")
    for parent in parents:
        inner = data.get(parent)
        if inner is not None and not isinstance(inner, dict):
            raise ConfigError(f"--set {key}: {parent!r} holds {shown(inner)}, which has no keys")
        data[parent] = dict(inner or {})
        data = data[parent]
    data[last] = value


def _explained(error: ValidationError, source: Source) -> list[str]:
    problems = []
    for one in error.errors():
        path = [p for p in one["loc"] if not _is_type_name(p)]
        known = _fields_at(path[:-1])
        place = f"{source.place(*path)}: "
        key = ".".join(map(str, path))
        if one["type"] == "extra_forbidden":
            problems.append(f"{place}unknown key {shown(key)}.{suggest(str(path[-1]), known)}")
        elif one["type"] == "missing":
            problems.append(f"{place}{key} is required")
        else:
            what = one["msg"].removeprefix("Value error, ")
            if one["type"] == "string_pattern_mismatch":
                rule = "up to 80 letters, digits and . _ -, first a letter or a digit"
                what = f"{shown(one['input'])} is not allowed: {rule}"
            elif one["type"] != "value_error":
                what = f"{shown(one['input'])} is not allowed: {what.lower()}"
            problems.append(f"{place}{key}: {what}")
    return problems


def _is_type_name(part: str | int) -> bool:
    """Parts that pydantic puts in for the branches of a union."""
    return isinstance(part, str) and (
        part in ("str", "int", "float", "TaskSettings", "[key]") or part.startswith("dict[")
    )


def _fields_at(path: Sequence[str | int]) -> list[str]:
    section: Any = SweepConfig
    for part in path:
        inner = section.model_fields.get(str(part))
        section = inner.annotation if inner is not None else None
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return []
    return list(section.model_fields)
