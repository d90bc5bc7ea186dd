"""Reading recorded inputs: JSON lines that a task scores without running a model or a judge.

A task that can score recordings has `recorded_kinds`, the names of the options of `blip3o-eval score`
it answers to ("detections", "results", ...), and `score_recorded(kind, lines)`, which returns one JSON
object per output line. One that can also score by the rules of other harnesses names them in
`compat_modes`, and takes such a name as a third argument, `compat`. It reads each line through a
`Field`, a value that knows where it came from, so that every complaint names file, line and place:
`runs.jsonl:3: detections[2].box must be ...`.
"""

from __future__ import annotations

import codecs
import gzip
import json
import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

from evals.errors import InputError
from evals.io import strict_json

_SHOWN_CHARACTERS = 60
_GZIP = b"\x1f\x8b"


@runtime_checkable
class ScoresRecordings(Protocol):
    """What a task adds to `Task` so that `blip3o-eval score` can use it."""

    recorded_kinds: tuple[str, ...]

    def score_recorded(self, kind: str, lines: Sequence[Field]) -> Sequence[Mapping[str, Any]]:
        """One JSON object per line of output. Raises InputError, naming the line, for bad input."""


@dataclass(frozen=True, slots=True)
class Field:
    """A value of a JSON line with its place. All methods raise InputError if the value does not fit."""

    value: Any
    where: str
    path: str = ""

    def fail(self, problem: str) -> NoReturn:
        """Raise InputError: `file:line: path problem`."""
        raise InputError(f"{self.where}: {self.path or 'the line'} {problem}")

    def _expected(self, what: str) -> NoReturn:
        self.fail(f"must be {what}, got {self.shown}")

    @property
    def shown(self) -> str:
        """The value as JSON, cut where it is too long for a message."""
        try:
            text = json.dumps(self.value, default=str)
        except RecursionError:  # it could be read just so; writing takes more of the stack
            return "a deeply nested value"
        return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."

    def object(self) -> dict[str, Any]:
        if type(self.value) is not dict:
            self._expected("an object")
        return self.value

    def get(self, key: str) -> Field | None:
        """A member of an object, or None if it is absent."""
        members = self.object()
        return self._member(key, members[key]) if key in members else None

    def __getitem__(self, key: str) -> Field:
        """A member of an object that has to be there."""
        members = self.object()
        if key not in members:
            place = f"{self.path}.{key}" if self.path else key
            raise InputError(f"{self.where}: {place} is missing")
        return self._member(key, members[key])

    def _member(self, key: str, value: Any) -> Field:
        return Field(value, self.where, f"{self.path}.{key}" if self.path else key)

    def items(self) -> list[Field]:
        if type(self.value) is not list:
            self._expected("a list")
        return [
            Field(item, self.where, f"{self.path}[{index}]")
            for index, item in enumerate(self.value)
        ]

    def text(self) -> str:
        if type(self.value) is not str:
            self._expected("a string")
        return self.value

    def integer(self) -> int:
        if type(self.value) is not int:
            self._expected("a whole number")
        return self.value

    def boolean(self) -> bool:
        if type(self.value) is not bool:
            self._expected("true or false")
        return self.value

    def number(self) -> float:
        if not _is_finite_number(self.value):
            self._expected("a finite number")
        return float(self.value)

    def numbers(self, count: int) -> list[float]:
        """A list of exactly `count` finite numbers."""
        values = self.value
        if (
            type(values) is not list
            or len(values) != count
            or not all(map(_is_finite_number, values))
        ):
            self._expected(f"a list of {count} finite numbers")
        return [float(value) for value in values]


def _is_finite_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of floats
        return False


def notes_on_repeats(rows: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """A note for the reader where several scored rows have the same `key`: a file may hold answers twice."""
    counts = Counter(row[key] for row in rows)
    repeated = [name for name, count in counts.items() if count > 1]
    if not repeated:
        return []
    return [
        f"{key} {json.dumps(repeated[0])} stands in {counts[repeated[0]]} lines ({len(repeated)} repeated in all); "
        "every line counts"
    ]


def read_lines(path: str | Path) -> list[Field]:
    """All lines of a JSON lines file, blank ones left out; every line must be an object. A name in .gz is unpacked.

    NaN and Infinity may stand in keys that nobody reads, as in figures recorded beside the answers; who
    reads a number there is refused by `Field`.

    Raises: InputError if the file cannot be read, is empty, or has a line that is not JSON.
    """
    path = Path(path)
    raw = read_file(path)
    if problem := _foreign_form(raw):
        raise InputError(f"{path}: {problem}")
    lines = []
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if not line.strip():
            continue
        field = Field(_parse(line, f"{path}:{number}"), f"{path}:{number}")
        field.object()
        lines.append(field)
    if not lines:
        raise InputError(f"{path}: the file holds no lines; give one JSON object per line")
    return lines


def read_file(path: Path) -> bytes:
    """The bytes of a file, unpacked if its name ends in .gz. Raises: InputError if it cannot be read."""
    try:
        if path.is_char_device():  # /dev/zero has no end
            raise InputError(f"{path}: is a device, not a file")
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error, ValueError) as error:  # ValueError: a zero byte in the path
        problem = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read: {problem}") from None


def _foreign_form(raw: bytes) -> str | None:
    """What the whole file is instead of lines of UTF-8; None if nothing is known against it."""
    if raw.startswith(_GZIP):
        return "looks gzip-compressed; unpack it first (gunzip), or end its name in .gz"
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in raw[:2]:
        return "looks like UTF-16; save it as UTF-8"
    if b"\r" in raw.strip() and b"\n" not in raw:
        return "its lines end in carriage returns alone; end them in line feeds"
    return None


def _parse(line: bytes, where: str) -> Any:
    try:
        return strict_json.parse(line, allow_constants=True)
    except strict_json.NotJsonError as error:
        raise InputError(f"{where}: not JSON: {error}") from None
