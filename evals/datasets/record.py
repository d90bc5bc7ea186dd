"""What is known of a folder with a data set: written by `fetch`, read by tasks and by `inventory`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evals.errors import InputError
from evals.io import strict_json
from evals.io.checksums import is_sound
from evals.io.files import write_json

RECORD_NAME = "blip3o-data.json"
SCHEMA = 1


@dataclass(frozen=True)
class Record:
    """A data set's origin.

    ``revision``: the commit that ``asked`` (a branch, a tag, or a commit) meant. ``files``: path in the repository ->
    ``{"size": bytes, "sha256": of the content}``; sha256 is None until the file is here and was read.
    """

    repository: str
    asked: str
    revision: str
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    is_complete: bool = False

    @property
    def size(self) -> int:
        return sum(one["size"] for one in self.files.values())


def read_record(folder: Path) -> Record | None:
    """The record of a folder; None where there is none. Raises: InputError for a damaged one."""
    path = folder / RECORD_NAME
    try:
        data = path.read_bytes()
    except OSError:
        return None
    problem = "it was damaged or changed by hand"
    try:
        values = strict_json.parse(data)
        if isinstance(values, dict) and is_sound(values) and values.get("schema") == SCHEMA:
            wanted = Record.__dataclass_fields__
            return Record(**{name: values[name] for name in wanted})
    except (strict_json.NotJsonError, KeyError, TypeError) as error:
        problem = str(error)
    raise InputError(
        f"{path} cannot be used ({problem}): remove it, and `blip3o-eval data get` writes it again"
    )


def write_record(folder: Path, record: Record) -> None:
    write_json(folder / RECORD_NAME, {"schema": SCHEMA, **asdict(record)})


def revision_of(folder: Path, files: Iterable[Path]) -> str | None:
    """The commit that the hub's own tools left beside their files; None if they did not make the folder.

    A snapshot in the cache is named after it; `hf download --local-dir` writes it into a hidden folder.
    """
    if folder.parent.name == "snapshots":
        return folder.name
    for file in files:
        note = folder / ".cache" / "huggingface" / "download" / file.relative_to(folder)
        try:
            with open(f"{note}.metadata", encoding="utf-8") as lines:
                return lines.readline().strip() or None
        except (OSError, ValueError):
            continue
    return None
