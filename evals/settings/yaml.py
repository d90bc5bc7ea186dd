"""YAML as settings use it: plain JSON values, numbers as everybody writes them, every key once.

`yaml.safe_load` runs no code, but it follows YAML 1.1: `seed: 1:2:3` is 3723, `010` is 8, `no` is
False, `1e-3` a text, a second `limit` replaces the first without a word, and nine lines of aliases
stand for a billion values. Scalars here follow the core schema of YAML 1.2; aliases, tags, dates and
keys given twice are refused.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

MAX_BYTES = 262_144  # settings are written by hand; a larger file is another kind of file
_MAX_DEPTH = 32
_STANDARD = "tag:yaml.org,2002:"


class SettingsError(ValueError):
    """The text holds no settings; `problem` says why, `line` (from 1) where, if that is known."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.problem, self.line = problem, line


class _Loader(yaml.SafeLoader):
    """Only the scanner, the parser and the composer are used, with resolvers of our own."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise SettingsError(
                f"alias *{event.anchor} is not allowed, write the value out", _line(event)
            )
        return super().compose_node(parent, index)


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"{_STANDARD}{_name}", re.compile(f"(?:{_pattern})$"), _first)


def parse(text: str) -> Any:
    """The JSON value of a YAML text: dict with text keys, list, str, int, float, bool or None.

    Raises: SettingsError.
    """
    if len(text) > MAX_BYTES:
        raise SettingsError(f"{len(text)} characters are too many, at most {MAX_BYTES} are read")
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _value(node, 0)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).strip().splitlines()[0]
        raise SettingsError(problem, None if mark is None else mark.line + 1) from None
    except RecursionError:
        raise SettingsError(f"nested deeper than {_MAX_DEPTH} levels") from None
    finally:
        if loader is not None:
            loader.dispose()


def _value(node: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise SettingsError(f"nested deeper than {_MAX_DEPTH} levels", _line(node))
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, depth)
    if isinstance(node, yaml.SequenceNode):
        _check_tag(node, "seq")
        return [_value(item, depth + 1) for item in node.value]
    return _scalar(node)


def _mapping(node: Any, depth: int) -> dict[str, Any]:
    _check_tag(node, "map")
    found: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise SettingsError("a key must be a name", _line(key))
        name = _text(key)
        if name in found:
            raise SettingsError(f"key {name[:60]!r} stands twice", _line(key))
        found[name] = _value(value, depth + 1)
    return found


def _scalar(node: Any) -> Any:
    kind, text = node.tag.removeprefix(_STANDARD), _text(node)
    if kind == "str":
        return text
    try:
        if kind == "null":
            return None
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        if kind == "int":
            base = {"0o": 8, "0x": 16}.get(text[:2], 10)
            return int(text[2:] if base != 10 else text, base)
        if kind == "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except (KeyError, ValueError):  # a tag that does not fit, or thousands of digits
        raise SettingsError(f"{text[:60]!r} is not a {kind}", _line(node)) from None
    raise SettingsError(f"tag {node.tag!r} is not allowed", _line(node))


def _text(node: Any) -> str:
    """The text of a scalar. Two escapes of JSON, "\\ud83d\\ude00", make one character, as they do there."""
    try:
        text: str = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise SettingsError("half of a surrogate pair is no character", _line(node)) from None
    return text


def _check_tag(node: Any, kind: str) -> None:
    if node.tag != f"{_STANDARD}{kind}":
        raise SettingsError(f"tag {node.tag!r} is not allowed", _line(node))


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Path of every key in a YAML or JSON text -> its line, from 1; {} for a text that cannot be composed.

    Entries of a list are counted from 0: ``("points", "0", "seed")``.
    """
    lines: dict[tuple[str, ...], int] = {}

    def visit(node: Any, path: tuple[str, ...]) -> None:
        if isinstance(node, yaml.MappingNode) and len(path) <= _MAX_DEPTH:
            for key, value in node.value:
                lines[*path, str(key.value)] = _line(key)
                visit(value, (*path, str(key.value)))
        elif isinstance(node, yaml.SequenceNode) and len(path) <= _MAX_DEPTH:
            for number, item in enumerate(node.value):
                lines[*path, str(number)] = _line(item)
                visit(item, (*path, str(number)))

    try:
        # JSON may be indented with tabs, which YAML does not take; inside its strings there are none.
        visit(yaml.compose(text.replace("\t", " "), _Loader), ())
    except (yaml.YAMLError, SettingsError, RecursionError):
        return {}
    return lines
