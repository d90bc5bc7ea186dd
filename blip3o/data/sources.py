"""Where records lie: a source lists its shards without opening them and reads one shard from a given record on.

Listing must not touch thousands of files; reading is sequential, so that archives may be streamed. Shards are the
unit that ranks and workers share out.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from blip3o.data.records import RawRecord
from blip3o.errors import ConfigError, DataError


class Source(Protocol):
    """A named collection of shards."""

    @property
    def name(self) -> str: ...

    def shards(self) -> list[str]:
        """Names of the shards, in a fixed order. Raises: DataError if there are none."""

    def read(self, shard: str, start: int = 0) -> Iterator[RawRecord]:
        """Records of a shard from number ``start`` on. Raises: DataError naming a missing, empty or unsafe shard."""


def expand(patterns: Sequence[str]) -> list[str]:
    """Files by path, by glob, or by one numeric range in braces (``shard-{00000..01023}.tar``), in sorted order."""
    files: list[str] = []
    for pattern in patterns:
        before, brace, rest = pattern.partition("{")
        low, dots, high = rest.partition("}")[0].partition("..")
        if brace and dots and low.isdigit() and high.isdigit():
            after = rest.partition("}")[2]
            numbers = range(int(low), int(high) + 1)
            files += [f"{before}{number:0{len(low)}d}{after}" for number in numbers]
        elif any(sign in pattern for sign in "*?["):
            path = Path(pattern)
            anchor = Path(path.anchor) if path.is_absolute() else Path()
            files += sorted(map(str, anchor.glob(str(path.relative_to(anchor)))))
        else:
            files.append(pattern)
    if not files:
        raise DataError(f"no file matches {', '.join(patterns) or 'an empty list'}")
    return files


@dataclass
class WebDatasetSource:
    """Tar archives of ``key.jpg`` + ``key.txt`` (any extensions); files of one key stand together.

    Archives are streamed, compressed ones too. A member that is a link or a device, or whose name leaves the archive,
    makes the whole shard refused: such a file was not written by a data set tool.
    """

    patterns: Sequence[str]
    name: str = "webdataset"

    def shards(self) -> list[str]:
        return expand(self.patterns)

    def read(self, shard: str, start: int = 0) -> Iterator[RawRecord]:
        key, number = "", 0
        fields: dict[str, bytes] = {}
        seen: set[str] = set()
        try:
            with tarfile.open(shard, "r|*") as archive:
                for member in archive:
                    if member.isdir():
                        continue
                    own, extension = _member_key(shard, member)
                    if own != key:
                        if fields and number >= start:
                            yield RawRecord(key, fields)
                        number += bool(fields)
                        if own in seen:
                            raise DataError(
                                f"{shard}: the files of '{own}' do not stand together; write the archive sorted by name"
                            )
                        seen.add(own)
                        key, fields = own, {}
                    if number >= start:
                        file = archive.extractfile(member)
                        fields[extension] = file.read() if file else b""
                    else:
                        fields[extension] = b""
        except FileNotFoundError:
            raise DataError(f"shard {shard} does not exist") from None
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DataError(f"shard {shard} is damaged or cut short ({error})") from None
        if fields and number >= start:
            yield RawRecord(key, fields)
        if not fields:
            raise DataError(f"shard {shard} holds no records")


def _member_key(shard: str, member: tarfile.TarInfo) -> tuple[str, str]:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not member.isfile():
        kind = "a link or device" if not member.isfile() else "a path that leaves the archive"
        raise DataError(f"{shard}: member '{member.name}' is {kind}; such an archive is not read")
    stem, _, extension = path.name.partition(".")
    return str(path.with_name(stem)), extension.lower()


@dataclass
class JsonLinesSource:
    """JSONL files, cut into shards of about ``shard_bytes``; a shard begins at the first whole line in its range.

    ``key_field``: the field that names a record; else its byte position does.
    """

    patterns: Sequence[str]
    name: str = "jsonl"
    key_field: str = "id"
    shard_bytes: int = 16 * 2**20

    def shards(self) -> list[str]:
        found = []
        for file in expand(self.patterns):
            if not Path(file).is_file():
                raise DataError(f"{file} does not exist")
            size = Path(file).stat().st_size
            found += [f"{file}@{at}" for at in range(0, size, self.shard_bytes)]
        if not found:
            raise DataError(f"{', '.join(self.patterns)}: every file is empty")
        return found

    def read(self, shard: str, start: int = 0) -> Iterator[RawRecord]:
        path, _, offset = shard.rpartition("@")
        begin, number = int(offset), 0
        with open(path, "rb") as file:
            if begin:
                file.seek(begin - 1)
                file.readline()  # the line that began in the shard before belongs to it
            while (at := file.tell()) < begin + self.shard_bytes and (line := file.readline()):
                if not line.strip():
                    continue
                if number >= start:
                    yield self._record(path, at, line)
                number += 1

    def _record(self, path: str, at: int, line: bytes) -> RawRecord:
        where = f"{path} at byte {at}"
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            return RawRecord(where, {})  # refused, counted and named as every record without fields
        if not isinstance(row, dict):
            return RawRecord(where, {})
        key = row.get(self.key_field)
        return RawRecord(str(key) if key is not None else where, row)


@dataclass
class JsonSource:
    """JSON files that hold one list of records, as LLaVA's do; each file is a shard."""

    patterns: Sequence[str]
    name: str = "json"
    key_field: str = "id"

    def shards(self) -> list[str]:
        return expand(self.patterns)

    def read(self, shard: str, start: int = 0) -> Iterator[RawRecord]:
        try:
            rows = json.loads(Path(shard).read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            raise DataError(f"{shard} does not exist") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{shard} is not JSON ({error})") from None
        if not isinstance(rows, list) or not rows:
            raise DataError(f"{shard} must hold a list of records with at least one entry")
        for number, row in enumerate(rows[start:], start):
            fields = row if isinstance(row, dict) else {}
            yield RawRecord(str(fields.get(self.key_field, f"{shard} entry {number}")), fields)


@dataclass
class ParquetSource:
    """Parquet files; each row group is a shard, so that a large file is shared out and never read whole."""

    patterns: Sequence[str]
    name: str = "parquet"
    key_field: str = "id"
    columns: Sequence[str] | None = None
    batch_rows: int = 64

    def shards(self) -> list[str]:
        from pyarrow import ArrowException, parquet

        found = []
        for file in expand(self.patterns):
            try:
                groups = parquet.read_metadata(file).num_row_groups
            except FileNotFoundError:
                raise DataError(f"{file} does not exist") from None
            except (ArrowException, OSError) as error:
                raise DataError(f"{file} is not a parquet file ({error})") from None
            found += [f"{file}#{group}" for group in range(groups)]
        return found

    def read(self, shard: str, start: int = 0) -> Iterator[RawRecord]:
        from pyarrow import ArrowException, parquet

        path, _, group = shard.rpartition("#")
        number = 0
        try:
            table = parquet.ParquetFile(path)
            for batch in table.iter_batches(
                self.batch_rows, row_groups=[int(group)], columns=self.columns
            ):
                if number + len(batch) <= start:
                    number += len(batch)
                    continue
                for row in batch.to_pylist():
                    if number >= start:
                        key = row.get(self.key_field, f"{shard} row {number}")
                        yield RawRecord(str(key), row)
                    number += 1
        except (ArrowException, OSError) as error:
            raise DataError(f"shard {shard} is damaged or missing ({error})") from None


@dataclass
class TableSource:
    """Anything with a length and rows by number, a Hugging Face ``Dataset`` for one; shards are ranges of rows."""

    table: Any
    name: str = "table"
    key_field: str = "id"
    shard_rows: int = 1024
    _rows: int = field(init=False)

    def __post_init__(self) -> None:
        self._rows = len(self.table)
        if not self._rows:
            raise DataError(f"data set '{self.name}' is empty")
        if self.shard_rows < 1:
            raise ConfigError(f"shard_rows {self.shard_rows} is out of range: at least 1")

    def shards(self) -> list[str]:
        return [str(first) for first in range(0, self._rows, self.shard_rows)]

    def read(self, shard: str, start: int = 0) -> Iterator[RawRecord]:
        first = int(shard)
        for number in range(first + start, min(first + self.shard_rows, self._rows)):
            row = self.table[number]
            yield RawRecord(str(row.get(self.key_field, f"{self.name} row {number}")), row)


def journeydb(folder: str | Path, split: str = "train") -> JsonLinesSource:
    """JourneyDB as published: ``{split}/{split}_anno.jsonl`` with ``img_path`` and ``caption`` or ``prompt``.

    Read with ``Reading(root=folder / split / "imgs")``.
    """
    annotations = Path(folder) / split / f"{split}_anno.jsonl"
    return JsonLinesSource([str(annotations)], name="journeydb", key_field="img_path")
