"""Documents and pictures of a question task, from parquet files on this machine.

The files are those of the hub data sets: a struct of `bytes` and `path` per picture, everything else
plain columns. `--data` names a file or a folder, `BLIP3O_EVAL_DATA` a folder that holds, for the task
`mme`, `mme.parquet` or a folder `mme` with the hub repository's files; without them the hub's local
cache is looked at. Nothing is fetched. pyarrow and Pillow are imported on first use.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.errors import InputError, MissingRequirementError

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

DATA_VARIABLE = "BLIP3O_EVAL_DATA"


@dataclass(frozen=True)
class Source:
    """Where a task's documents come from.

    `hub_id`: the data set. `split`: what the names of its files begin with. `subset`: the folder in
    the repository that holds it ("" for none). `aliases`: further names of a single file.
    """

    hub_id: str
    split: str
    subset: str = ""
    aliases: tuple[str, ...] = ()


def find_files(task: str, source: Source, given: str | Path | None = None) -> list[Path]:
    """The parquet files of a task, in order.

    Args: given: a file, its folder, or a folder with the data of several tasks, instead of the usual
    places.
    Raises: InputError for a place that holds none; MissingRequirementError, with the command that
    gets them, when no place was given.
    """
    if given is not None:
        place = Path(given).expanduser()
        return _files_at(_own_place(place, task, source) or place, source)
    root = os.environ.get(DATA_VARIABLE)
    if root:
        own = _own_place(Path(root).expanduser(), task, source)
        if own is not None:
            return _files_at(own, source)
    else:
        cached = _hub_cache(source.hub_id)
        if cached is not None and (files := _of_split(cached, source)):
            return files
    target = f"{root or 'DATA'}/{task}"
    raise MissingRequirementError(
        f"task {task!r} needs the {source.split} split of {source.hub_id}: "
        f"`hf download {source.hub_id} --repo-type dataset --local-dir {target}`"
        + ("" if root else f", then give --data {target} or set {DATA_VARIABLE}=DATA")
    )


def _own_place(folder: Path, task: str, source: Source) -> Path | None:
    """What a folder with the data of several tasks holds for this one."""
    places = (
        place
        for name in (task, *source.aliases)
        for place in (folder / f"{name}.parquet", folder / name)
    )
    return next((place for place in places if place.exists()), None)


def _files_at(place: Path, source: Source) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.exists():
        raise InputError(f"{place} does not exist: give a parquet file, or the folder that `hf download` made")
    files = _of_split(place, source) if place.is_dir() else []
    if not files:
        raise InputError(
            f"{place}: no parquet file of the {source.split} split of {source.hub_id}; give the folder "
            "that `hf download` made, or one parquet file"
        )
    return files


def _of_split(folder: Path, source: Source) -> list[Path]:
    files = sorted(folder.rglob("*.parquet"))
    if source.subset and any(source.subset in p.relative_to(folder).parts[:-1] for p in files):
        files = [p for p in files if source.subset in p.relative_to(folder).parts[:-1]]
    return [p for p in files if p.name.startswith(source.split)]


def _hub_cache(hub_id: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, repo_type="dataset", local_files_only=True))
    except LocalEntryNotFoundError:
        return None


class Table:
    """The rows of parquet files, picture columns apart and read only when asked for.

    Raises: InputError naming the file if one cannot be read or the files' columns differ.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.files = tuple(files)
        parts, self._places = [], []
        for path in self.files:
            try:
                file = pq.ParquetFile(path)
                names = [f.name for f in file.schema_arrow if not _is_picture(f.type)]
                parts.append(file.read(columns=names).replace_schema_metadata(None))
            except (OSError, pa.ArrowException) as error:
                raise InputError(f"{path}: cannot be read as parquet: {_short(error)}") from None
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                self._places += [(path, group, row) for row in range(rows)]
        try:
            table = pa.concat_tables(parts)
        except pa.ArrowException as error:
            raise InputError(f"{self.files[0].parent}: columns differ: {_short(error)}") from None
        self._columns = {name: table[name].combine_chunks() for name in table.column_names}
        self._groups = _RowGroups()

    def __len__(self) -> int:
        return len(self._places)

    def where(self, row: int) -> str:
        """`mme.parquet, row 3`, for messages; rows count from 0."""
        return f"{self._places[row][0]}, row {row}"

    def record(self, row: int) -> Record:
        return Record(self._columns, row)

    def pictures(self, row: int, columns: Sequence[str]) -> Pictures:
        return Pictures(self, row, tuple(columns))

    def cells(self, row: int, column: str) -> list[Mapping[str, Any]]:
        """The pictures of a cell as stored: mappings with `bytes` and `path`. Raises ValueError."""
        path, group, index = self._places[row]
        cell = self._groups.get(path, group, column)[index].as_py()
        cells = cell if isinstance(cell, list) else [cell]
        if not cells or any(one is None for one in cells):
            raise ValueError(f"{self.where(row)}: column {column!r} holds no picture")
        return cells

    def digest(self) -> str:
        """sha256 over the files' digests, in order."""
        from evals.io.digests import file_digest

        return hashlib.sha256("\n".join(map(file_digest, self.files)).encode()).hexdigest()


class _RowGroups:
    """The picture column that was read last: rows are asked for in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: tuple[Path, int, str] | None = None
        self._column: Any = None

    def get(self, path: Path, group: int, column: str) -> pa.Array:
        import pyarrow.parquet as pq

        with self._lock:
            if self._key != (path, group, column):
                file = pq.ParquetFile(path)
                if column not in file.schema_arrow.names:
                    raise ValueError(f"{path}: there is no picture column {column!r}")
                table = file.read_row_group(group, columns=[column])
                self._key, self._column = (path, group, column), table[column].combine_chunks()
            return self._column


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
        from PIL import Image

        try:
            raw = cell["bytes"]
            if raw is None:
                raw = (self._table.files[0].parent / cell["path"]).read_bytes()
            with Image.open(io.BytesIO(raw)) as image:
                return image.convert("RGB")
        # Pillow raises many kinds for damaged files; a decompression bomb is one of its own.
        except (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(
                f"{self._table.where(self._row)}: column {column!r} is no picture: {_short(error)}"
            ) from error


def _is_picture(type_: pa.DataType) -> bool:
    import pyarrow.types as kinds

    if kinds.is_list(type_) or kinds.is_large_list(type_):
        type_ = type_.value_type
    return kinds.is_struct(type_) and {type_.field(i).name for i in range(type_.num_fields)} == {
        "bytes",
        "path",
    }


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
