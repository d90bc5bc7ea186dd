"""A data set of a recipe: what it says, and the source that it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from blip3o.data.sources import (
    JsonLinesSource,
    JsonSource,
    ParquetSource,
    Source,
    TableSource,
    WebDatasetSource,
    expand,
    journeydb,
)
from blip3o.data.sticker_table import StickerTable
from blip3o.errors import ConfigError, DataError

DataKind = Literal["captions", "reconstruction", "conversations"]
Layout = Literal[
    "webdataset", "jsonl", "json", "parquet", "journeydb", "huggingface", "stickers"
]


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """One data set. ``paths``: files, globs or brace ranges (a folder for journeydb, a hub name or folder for
    huggingface, ``level:rows:first`` for stickers); ``$NAME`` is taken from the environment. ``weight``: relative share
    of the draws. ``kind``: pictures with captions; pictures alone, to be drawn again; conversations about pictures.
    """

    name: str
    layout: Layout
    paths: tuple[str, ...]
    kind: DataKind = "captions"
    weight: float = 1.0
    root: str | None = None
    split: str = "train"


def check_files(sets: Sequence[DataSpec]) -> None:
    """Look for every file of all data sets, opening none: a hole is found now, and not after days of training.

    Raises: DataError that lists what is missing.
    """
    problems = []
    for data in sets:
        if data.layout in ("webdataset", "jsonl", "json", "parquet"):
            files = expand(data.paths)
            missing = [file for file in files if not Path(file).is_file()]
            if missing:
                what = "are folders" if all(Path(file).is_dir() for file in missing) else "do not exist"
                problems.append(
                    f"data set '{data.name}': {len(missing)} of {len(files)} files {what}, such as {missing[0]}"
                )
        elif data.layout == "huggingface" and find_spec("datasets") is None:
            problems.append(
                f"data set '{data.name}' needs the package datasets: pip install 'blip3o-eval[understanding]'"
            )
        elif data.layout == "stickers":
            try:
                open_source(data)
            except ConfigError as error:
                problems.append(f"data set '{data.name}': {error}")
    if problems:
        raise DataError("; ".join(problems))


def open_source(data: DataSpec) -> Source:
    """The source of a data set; nothing is read yet but lists of files."""
    paths: Sequence[str] = data.paths
    if data.layout == "webdataset":
        return WebDatasetSource(paths, data.name)
    if data.layout == "jsonl":
        return JsonLinesSource(paths, data.name)
    if data.layout == "json":
        return JsonSource(paths, data.name)
    if data.layout == "parquet":
        return ParquetSource(paths, data.name)
    if data.layout == "journeydb":
        source = journeydb(paths[0], data.split)
        source.name = data.name
        return source
    if data.layout == "stickers":
        return TableSource(StickerTable.parse(paths[0], data.split, data.kind), data.name)
    import datasets

    folder = Path(paths[0])
    table = datasets.load_from_disk(str(folder)) if (folder / "state.json").is_file() else (
        datasets.load_dataset(paths[0], split=data.split)
    )
    return TableSource(table, data.name)


def picture_root(data: DataSpec) -> Path | None:
    if data.root is not None:
        return Path(data.root)
    return Path(data.paths[0]) / data.split / "imgs" if data.layout == "journeydb" else None
