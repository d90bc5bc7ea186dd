"""JSON Lines on disk: appended per batch, scanned after a crash, rewritten in order.

A killed process leaves at most one torn line at the end (no final newline) and the first lines of an
unfinished batch; a bad disk leaves flipped bits, which the checksum of each line finds. ``scan`` finds
which batches are whole; ``Scan.rewrite`` leaves exactly those, in plan order. Nothing is held in
memory but a byte offset per position.
"""

from __future__ import annotations

import json
import os
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evals.errors import InputError
from evals.io.checksums import LINE_KEY, line_problem, seal_line
from evals.io.files import temporary_of
from evals.phases.plan import Batch

_SYNC_EVERY_S = 2.0
_decode = json.JSONDecoder().decode


def dumps(row: Mapping[str, Any]) -> str:
    """One line, without its checksum. NaN and infinities are refused: they are not JSON."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))


class LineWriter:
    """Appends rows, one write per batch, flushed to the kernel each time.

    Flushed data survives SIGKILL. It is also forced to the disk, against power loss, when two
    seconds have passed since the last time, and on close.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "ab", buffering=0)
        self._synced_at = time.monotonic()

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        data = b"".join(map(_sealed, rows))
        view = memoryview(data)
        while view:  # an unbuffered write may take only a part, for example when the disk fills
            view = view[self._file.write(view) :]
        if time.monotonic() - self._synced_at > _SYNC_EVERY_S:
            os.fsync(self._file.fileno())
            self._synced_at = time.monotonic()

    def close(self) -> None:
        if not self._file.closed:
            try:
                os.fsync(self._file.fileno())
            except OSError:
                pass  # not a real file (a pipe, /dev/full); the write itself has already told
            self._file.close()

    def __enter__(self) -> LineWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _sealed(row: Mapping[str, Any]) -> bytes:
    try:
        return seal_line(dumps(row))
    except UnicodeEncodeError:  # a lone surrogate in a prompt or text; escaped it reads back the same
        return seal_line(json.dumps(row, allow_nan=False))


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a file, without their checksums. Raises InputError naming a damaged line."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            row, problem = _read_line(line)
            if row is None or problem == "checksum differs":
                raise InputError(
                    f"{path}:{number}: damaged ({problem}); the command that made the run makes it again"
                )
            row.pop(LINE_KEY, None)
            yield row


def _read_line(line: bytes) -> tuple[dict[str, Any] | None, str | None]:
    """(the object or None, what is wrong with its checksum or None)."""
    problem = line_problem(line)
    try:
        row = _decode(str(line, "utf-8"))  # from bytes, json.loads would guess the encoding first
    except (ValueError, RecursionError):  # JSONDecodeError, UnicodeDecodeError, nested too deeply
        return None, problem or "not JSON"
    return (row, problem) if isinstance(row, dict) else (None, problem or "not an object")


@dataclass
class Scan:
    """Where the rows of a plan lie in a set of files."""

    files: list[Path]
    total: int
    file_of: array = field(init=False)  # -1 where a position has no usable row
    offset_of: array = field(init=False)
    is_error: bytearray = field(init=False)  # lines that --retry-errors makes again
    damaged: list[str] = field(default_factory=list)
    is_clean: bool = True  # one file, whole batches only, in plan order

    def __post_init__(self) -> None:
        self.file_of = array("i", [-1]) * self.total
        self.offset_of = array("q", [0]) * self.total
        self.is_error = bytearray(self.total)

    def has(self, position: int) -> bool:
        return self.file_of[position] >= 0

    def has_batch(self, batch: Batch) -> bool:
        return all(self.file_of[p] >= 0 for p in batch.positions)

    def forget(self, batch: Batch) -> None:
        for position in batch.positions:
            self.file_of[position] = -1
        self.is_clean = False

    @property
    def num_done(self) -> int:
        return self.total - self.file_of.count(-1)

    def lines(self) -> Iterator[bytes]:
        """The raw lines in plan order."""
        with self.reader() as reader:
            for position in range(self.total):
                if self.has(position):
                    yield reader.line(position)

    def only(self, path: Path) -> Scan:
        """The part of this scan that lies in one file."""
        part = Scan([path], self.total)
        number = self.files.index(path)
        for position in range(self.total):
            if self.file_of[position] == number:
                part.file_of[position] = 0
                part.offset_of[position] = self.offset_of[position]
        return part

    def reader(self) -> LineReader:
        """Reads lines of this scan by position."""
        return LineReader(self)

    def rewrite(self, path: Path) -> None:
        """Write the usable lines to ``path``, in plan order, in one atomic step."""
        temporary = temporary_of(path)
        with open(temporary, "wb") as file:
            file.writelines(self.lines())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


class LineReader:
    """Keeps the files of a scan open while its lines are read."""

    def __init__(self, found: Scan) -> None:
        self._scan = found
        self._files = [open(path, "rb") for path in found.files]
        self._offsets = [0] * len(self._files)

    def line(self, position: int) -> bytes:
        """The raw line of a position that the scan has."""
        number, offset = self._scan.file_of[position], self._scan.offset_of[position]
        if self._offsets[number] != offset:  # a seek would throw the read buffer away
            self._files[number].seek(offset)
        line = self._files[number].readline()
        self._offsets[number] = offset + len(line)
        return line

    def __enter__(self) -> LineReader:
        return self

    def __exit__(self, *exc: object) -> None:
        for file in self._files:
            file.close()


def scan(
    files: Sequence[Path],
    total: int,
    batches: Iterable[Batch],
    position_of: Callable[[Mapping[str, Any]], int | None],
    is_usable: Callable[[Mapping[str, Any]], bool] = lambda row: True,
    is_error: Callable[[Mapping[str, Any]], bool] = lambda row: row.get("status") == "error",
) -> Scan:
    """Find the whole batches in ``files``.

    Args: total: positions of the plan. batches: all of them; an incomplete one is forgotten whole.
    position_of: row -> position, None for a row that is not of this plan. is_usable: False makes the
    row (and so its batch) count as missing, for example when its picture is gone. is_error: what
    ``Scan.is_error`` remembers.
    Raises: FileNotFoundError if another process removed a file meanwhile (it merges): look again.
    """
    result = Scan(list(files), total)
    result.is_clean = len(result.files) <= 1
    expected = 0
    for number, path in enumerate(result.files):
        offset = 0
        with open(path, "rb") as file:
            for line_number, line in enumerate(file, 1):
                start, offset = offset, offset + len(line)
                row, problem = _read_line(line)
                position = position_of(row) if row is not None and problem is None else None
                if row is None or position is None:
                    result.is_clean = False
                    if line.endswith(b"\n"):  # else it is the torn end of a killed process
                        result.damaged.append(f"{path.name}:{line_number}")
                    continue
                if result.file_of[position] >= 0 or not is_usable(row):
                    result.is_clean = False
                    continue
                if position != expected:
                    result.is_clean = False
                expected = position + 1
                result.file_of[position] = number
                result.offset_of[position] = start
                result.is_error[position] = is_error(row)
    for batch in batches:
        held = sum(result.file_of[p] >= 0 for p in batch.positions)
        if 0 < held < len(batch):
            result.forget(batch)
    return result
