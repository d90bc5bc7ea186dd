"""Documents as an imagefolder: a metadata file and the picture files it names.

The layout of the `datasets` library: `metadata.jsonl`, `.csv` or `.parquet` in a folder (or in a folder of it, one per
split), with `file_name` for the column `image`, `X_file_name` for a column `X`, and `file_names` or `X_file_names` for
a list of pictures. pyarrow is imported on first use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from evals.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_ONE, _SEVERAL = "file_name", "file_names"


def is_metadata(path: Path) -> bool:
    return path.name in METADATA


def find(folder: Path, split: str) -> Path | None:
    """The metadata file of a split: in its own folder, or in the folder itself."""
    return next(
        (path for place in (folder / split, folder) for name in METADATA if (path := place / name).is_file()),
        None,
    )


def read(path: Path) -> pa.Table:
    """The metadata, its columns of file names turned into picture columns.

    Raises: InputError for a file without such a column; OSError or ArrowException for one that cannot be read.
    """
    import pyarrow as pa

    table = _parse(path).replace_schema_metadata(None)
    pictures = {name: column for name in table.column_names if (column := _picture_column(name))}
    if not pictures:
        raise InputError(
            f"{path}: no column file_name (or X_file_name, file_names) that says where the pictures are"
        )
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for name, column in pictures.items():
        values = [_cells(value) for value in table[name].to_pylist()]
        type_ = pa.list_(struct) if name.endswith(_SEVERAL) else struct
        place = table.column_names.index(name)
        table = table.set_column(place, column, pa.array(values, type_))
    return table


def _parse(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return pq.read_table(path)
    if path.suffix == ".csv":
        from pyarrow import csv

        return csv.read_csv(path)
    import pyarrow as pa

    from evals.recorded import read_lines

    return pa.Table.from_pylist([line.object() for line in read_lines(path)])


def _picture_column(name: str) -> str | None:
    """`file_name` -> image, `image_1_file_name` -> image_1, `file_names` -> image; None for other columns."""
    for ending in (_ONE, _SEVERAL):
        if name == ending:
            return "image"
        if name.endswith(f"_{ending}"):
            return name.removesuffix(f"_{ending}")
    return None


def _cells(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [{"bytes": None, "path": one} for one in value]
    return {"bytes": None, "path": value}


def cell(table: pa.Table, column: str, row: int, path: Path) -> Any:
    """The pictures of a row as stored. Raises: ValueError."""
    if column not in table.column_names:
        raise ValueError(f"{path}: there is no picture column {column!r}")
    return table[column][row].as_py()


def inside(folder: Path, name: str) -> Path:
    """A picture's file. Raises: ValueError for a name that leads out of the folder."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"{name!r} leads out of {folder}")
    return folder / pure


def picture_files(table: pa.Table, path: Path) -> Iterator[Path]:
    """Every picture file of a table, in order, once. Raises: ValueError."""
    seen: set[str] = set()
    for name in table.column_names:
        for value in table[name].to_pylist():
            for one in value if isinstance(value, list) else [value]:
                named = one.get("path") if isinstance(one, dict) else None
                if named is not None and "bytes" in one and named not in seen:
                    seen.add(named)
                    yield inside(path.parent, named)


def sizes_digest(table: pa.Table, path: Path) -> str:
    """sha256 over names and sizes of the picture files; a missing one counts as such."""
    total = hashlib.sha256()
    for file in picture_files(table, path):
        size = file.stat().st_size if file.is_file() else None
        total.update(f"{file.relative_to(path.parent).as_posix()}\0{size}\n".encode())
    return total.hexdigest()
