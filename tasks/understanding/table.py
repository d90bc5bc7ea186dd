"""Rows of a question task: plain columns as records, pictures apart and decoded only when asked for.

A picture is a struct of `bytes` and `path`, as the hub's parquet files have it, or plain bytes. Paths are relative to
the file's folder and may not leave it. pyarrow and Pillow are imported on first use.
"""

from __future__ import annotations

import hashlib
import io
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.errors import InputError
from tasks.understanding import image_folder

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image


class Table:
    """The rows of parquet files, or of the metadata file of an imagefolder.

    Raises: InputError naming the file if one cannot be read or the files' columns differ.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        import pyarrow as pa

        self.files = tuple(files)
        parts: list[pa.Table] = []
        self._places: list[tuple[Path, int, int]] = []
        self._folders: dict[Path, pa.Table] = {}
        self._picture_columns: dict[Path, set[str]] = {}
        for path in self.files:
            try:
                is_folder = image_folder.is_metadata(path)
                parts.append(self._open_folder(path) if is_folder else self._open_parquet(path))
            except (OSError, pa.ArrowException) as error:
                kind = "a table" if is_folder else "parquet"
                raise InputError(f"{path}: cannot be read as {kind}: {_short(error)}") from None
        try:
            table = pa.concat_tables(parts)
        except pa.ArrowException as error:
            raise InputError(f"{self.files[0].parent}: columns differ: {_short(error)}") from None
        self._columns = {name: table[name].combine_chunks() for name in table.column_names}
        self._groups = _RowGroups()

    def _open_parquet(self, path: Path) -> pa.Table:
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            self._places += [(path, group, row) for row in range(rows)]
        names = self._plain_columns(path, file.schema_arrow)
        return file.read(columns=names).replace_schema_metadata(None)

    def _open_folder(self, path: Path) -> pa.Table:
        whole = image_folder.read(path)
        self._folders[path] = whole
        self._places += [(path, 0, row) for row in range(len(whole))]
        return whole.select(self._plain_columns(path, whole.schema))

    def _plain_columns(self, path: Path, schema: pa.Schema) -> list[str]:
        self._picture_columns[path] = {f.name for f in schema if _is_picture(f.type)}
        return [name for name in schema.names if name not in self._picture_columns[path]]

    def __len__(self) -> int:
        return len(self._places)

    def where(self, row: int) -> str:
        """`mme.parquet, row 3`, for messages; rows count from 0."""
        return f"{self._places[row][0]}, row {row}"

    def record(self, row: int) -> Record:
        return Record(self._columns, row)

    def pictures(self, row: int, columns: Sequence[str]) -> Pictures:
        return Pictures(self, row, tuple(columns))

    def check_columns(self, row: int, columns: Sequence[str]) -> None:
        """Raises: InputError for a picture column that the file does not have; what is in it shows later."""
        known = self._picture_columns[self._places[row][0]]
        for column in columns:
            if column not in known:
                have = ", ".join(sorted(known)) or "none"
                raise InputError(
                    f"{self.where(row)}: there is no picture column {column!r} (picture columns here: {have})"
                )

    def cells(self, row: int, column: str) -> list[Mapping[str, Any]]:
        """The pictures of a cell as stored: mappings with `bytes` and `path`. Raises ValueError."""
        path, group, index = self._places[row]
        if path in self._folders:
            cell = image_folder.cell(self._folders[path], column, index, path)
        else:
            cell = self._groups.get(path, group, column)[index].as_py()
        cells = cell if isinstance(cell, list) else [cell]
        if not cells or any(one is None for one in cells):
            raise ValueError(f"{self.where(row)}: column {column!r} holds no picture")
        return [{"bytes": one, "path": None} if isinstance(one, bytes) else one for one in cells]

    def folder(self, row: int) -> Path:
        """What the paths of a row's pictures are relative to."""
        return self._places[row][0].parent

    def digest(self) -> str:
        """sha256 over the files' digests, in order."""
        from evals.io.digests import file_digest

        found = [file_digest(path) for path in self.files]
        # The pictures of an imagefolder count with their names and sizes; `data check` reads them whole.
        found += [image_folder.sizes_digest(table, path) for path, table in self._folders.items()]
        return hashlib.sha256("\n".join(found).encode()).hexdigest()


class _RowGroups:
    """The row group that was read last of each picture column: rows are asked for in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read: dict[str, tuple[Path, int, Any]] = {}

    def get(self, path: Path, group: int, column: str) -> pa.Array:
        import pyarrow.parquet as pq

        with self._lock:
            known = self._read.get(column)
            if known is None or known[:2] != (path, group):
                file = pq.ParquetFile(path)
                if column not in file.schema_arrow.names:
                    raise ValueError(f"{path}: there is no picture column {column!r}")
                table = file.read_row_group(group, columns=[column])
                known = self._read[column] = (path, group, table[column].combine_chunks())
            return known[2]


class Record(Mapping[str, Any]):
    """A row without its pictures; cells become Python values when they are asked for."""

    __slots__ = ("_columns", "_row")

    def __init__(self, columns: Mapping[str, Any], row: int) -> None:
        self._columns, self._row = columns, row

    def __getitem__(self, name: str) -> Any:
        return self._columns[name][self._row].as_py()

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


class Pictures(Sequence["Image.Image"]):
    """The pictures of a row as RGB images, decoded each time they are asked for.

    Raises: ValueError, naming file, row and column, for what is no picture.
    """

    def __init__(self, table: Table, row: int, columns: tuple[str, ...]) -> None:
        self._table, self._row, self._columns = table, row, columns

    @cached_property
    def _count(self) -> int:
        return sum(len(self._table.cells(self._row, column)) for column in self._columns)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __iter__(self) -> Iterator[Image.Image]:
        for column in self._columns:
            for cell in self._table.cells(self._row, column):
                yield self._decode(cell, column)

    def _decode(self, cell: Mapping[str, Any], column: str) -> Image.Image:
        from PIL import Image, ImageOps

        try:
            raw = cell["bytes"]
            if raw is None:
                raw = image_folder.inside(self._table.folder(self._row), cell["path"]).read_bytes()
            with Image.open(io.BytesIO(raw)) as image:
                return ImageOps.exif_transpose(image).convert("RGB")  # upright, as `datasets` hands them out
        # Pillow raises many kinds for damaged files; a decompression bomb is one of its own.
        except (
            OSError, SyntaxError, TypeError, ValueError, EOFError, struct.error, Image.DecompressionBombError,
        ) as error:  # fmt: skip
            raise ValueError(
                f"{self._table.where(self._row)}: column {column!r} is no picture: {_short(error)}"
            ) from error


def _is_picture(type_: pa.DataType) -> bool:
    import pyarrow.types as kinds

    if kinds.is_list(type_) or kinds.is_large_list(type_):
        type_ = type_.value_type
    if kinds.is_binary(type_) or kinds.is_large_binary(type_):
        return True
    return kinds.is_struct(type_) and {type_.field(i).name for i in range(type_.num_fields)} == {
        "bytes",
        "path",
    }


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
