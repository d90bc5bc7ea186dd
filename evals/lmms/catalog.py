"""The names of lmms-eval's tasks, read from its YAML files.

Its own `TaskManager` parses 1,927 files with a YAML parser (5 s, after 6 to 20 s of imports). Names need four keys at
the beginning of a line, so they are found by pattern in a fraction of a second, without importing it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from evals.errors import unknown_name
from evals.lmms import package

Kind = Literal["task", "class", "group", "tag"]

_KEY = re.compile(rb"^[\"']?(task|group|tag|class|output_type|include|dataset_path)[\"']?[ \t]*:[ \t]*(.*)$", re.M)
_COMMENT = re.compile(rb"[ \t]*(#[^\n]*)?$", re.M)
_ITEM = re.compile(rb"[ \t]*-[ \t]+([^\n#]+)")


@dataclass
class Entry:
    """A task, a group of tasks with figures of its own, or a tag (a bare list of tasks).

    ``path`` is the YAML file ("" for tags), ``folder`` its place below the tasks folder; ``members`` are a tag's tasks.
    """

    name: str
    kind: Kind
    path: str = ""
    folder: str = ""
    output_type: str = "generate_until"
    dataset: str = ""
    members: list[str] = field(default_factory=list)


@cache
def entries(root: str | None = None) -> dict[str, Entry]:
    """Name -> entry of all tasks below ``root`` (default: those of the installed lmms-eval).

    Raises: MissingRequirementError without lmms-eval.
    """
    top = root or str(package.folder() / "tasks")
    found: dict[str, Entry] = {}
    tags: dict[str, list[str]] = {}
    for path in _yaml_files(top):
        keys = _keys(path)
        name, group = _text(keys.get("task")), _text(keys.get("group"))
        folder = os.path.relpath(os.path.dirname(path), top).replace(os.sep, "/")
        if isinstance(keys.get("task"), list) and group and "class" not in keys:
            found[group] = Entry(group, "group", path, folder)
        elif name:
            kind: Kind = "class" if "class" in keys else "task"
            output_type = _text(keys.get("output_type")) or "generate_until"
            found[name] = Entry(
                name, kind, path, folder, output_type, _text(keys.get("dataset_path"))
            )
            for key in ("tag", "group") if kind == "task" else ():
                for tag in _texts(keys.get(key)):
                    tags.setdefault(tag, []).append(name)
    for tag, members in tags.items():
        if tag not in found:
            found[tag] = Entry(tag, "tag", members=members)
    return found


def find(name: str, root: str | None = None) -> Entry:
    """Raises: UnknownNameError with a suggestion; MissingRequirementError without lmms-eval."""
    known = entries(root)
    if name not in known:
        raise unknown_name("lmms-eval task", name, known)
    return known[name]


def index(root: str | None = None) -> dict[str, dict[str, Any]]:
    """The entries in the form of ``TaskManager.task_index``, so that it need not parse the files."""
    made: dict[str, dict[str, Any]] = {}
    for name, entry in entries(root).items():
        kind = {"class": "python_task"}.get(entry.kind, entry.kind)
        made[name] = {"type": kind, "yaml_path": entry.path or -1}
        if kind == "group":
            made[name]["task"] = -1
        elif kind == "tag":
            made[name]["task"] = entry.members
    return made


def _yaml_files(top: str) -> Iterator[str]:
    for folder, folders, files in os.walk(top):
        folders[:] = [f for f in folders if f not in ("__pycache__", ".ipynb_checkpoints")]
        yield from (os.path.join(folder, f) for f in files if f.endswith(".yaml"))


@cache
def _keys(path: str) -> dict[str, str | list[str]]:
    """The keys that matter, with those of included files behind the file's own."""
    try:
        data = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf")  # a byte order mark
    except OSError:
        return {}
    own: dict[str, str | list[str]] = {}
    for match in _KEY.finditer(data):
        value = _clean(match[2])
        own[match[1].decode()] = value or _items(data, match.end())
    included: dict[str, str | list[str]] = {}
    for name in reversed(_texts(own.pop("include", None))):
        place = name if os.path.isfile(name) else os.path.join(os.path.dirname(path), name)
        included.update(_keys(place))
    return {**included, **own}


def _items(data: bytes, start: int) -> str | list[str]:
    """The plain items of the list that begins on the next line; mappings in it are left out."""
    items: list[str] = []
    place, is_list = start + 1, False
    while place < len(data) and (match := _ITEM.match(data, place) or _COMMENT.match(data, place)):
        if match.re is _ITEM:
            is_list = True
            text = _clean(match[1])
            if text and isinstance(text, str) and ":" not in text:
                items.append(text)
        end = data.find(b"\n", match.end())
        place = end + 1 if end >= 0 else len(data)
    return items if is_list else ""


def _clean(raw: bytes) -> str | list[str]:
    text = raw.decode("utf-8", "replace").split(" #")[0].strip()
    if text.startswith("[") and text.endswith("]"):
        return [part.strip().strip("\"'") for part in text[1:-1].split(",") if part.strip()]
    return text.strip("\"'")


def _text(value: str | list[str] | None) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) and value else list(value or [])
