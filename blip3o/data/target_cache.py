"""What frozen parts make of a record, computed once: target features, and query states where the queries are frozen.

A cache is a folder with one safetensors file per shard. Its key covers the weights of the frozen parts and how
pictures and prompts are prepared; the keys of the records stand beside the rows. A file of another key, or a
record that is not the one the row was made of, is an error, so a stale cache cannot be read.

Records stream: shards of any size in their own order, rows beside the keys of their records, in the precision of the
frozen parts. The scenes of the sticker world are numbered instead, so ``blip3o.train.feature_cache`` holds all of them
in memory by number; both write and recognise their files alike.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from blip3o.data.records import RawRecord
from blip3o.data.sources import Source
from blip3o.errors import DataError

CACHED_FIELD = "cached tensors"  # no file extension or column has a space in it

# Raw records -> a dict of tensors for each, or the reason why there are none.
Make = Callable[[Sequence[RawRecord]], list[dict[str, Tensor] | str]]


def cache_file(folder: Path, source: str, shard: str) -> Path:
    """Where the rows of a shard lie."""
    name = hashlib.sha256(json.dumps([source, shard]).encode()).hexdigest()
    return folder / f"{name[:32]}.safetensors"


def fill_cache(
    folder: Path, source: Source, key: str, make: Make, batch_size: int = 64
) -> Iterator[str]:
    """Write what is missing, shard by shard; yields the name of each shard that is done. Resumable by shard."""
    from blip3o.train.checkpoint import save_tensors

    folder.mkdir(parents=True, exist_ok=True)
    for shard in source.shards():
        path = cache_file(folder, source.name, shard)
        if not (path.exists() and cache_metadata(path).get("key") == key):
            keys: list[str] = []
            reasons: dict[str, str] = {}
            rows: dict[str, list[Tensor]] = {}
            for batch in _batches(source.read(shard), batch_size):
                for record, made in zip(batch, make(batch), strict=True):
                    if isinstance(made, str):
                        reasons[str(len(keys))] = made
                    else:
                        for name, tensor in made.items():
                            rows.setdefault(name, []).append(tensor)
                    keys.append(record.key)
            tensors = {name: torch.stack(values) for name, values in rows.items()}
            metadata = {"key": key, "records": json.dumps(keys), "bad": json.dumps(reasons)}
            save_tensors(path, tensors, metadata)
        yield shard


def _batches(records: Iterator[RawRecord], size: int) -> Iterator[list[RawRecord]]:
    batch: list[RawRecord] = []
    for record in records:
        batch.append(record)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def cache_metadata(path: Path) -> Mapping[str, str]:
    """What a cache file says of itself; its ``key`` says what it was made with. Raises: DataError for a damaged one."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise DataError(f"cache file {path} cannot be read ({error}); remove it and fill the cache again") from None


@dataclass
class CachedSource:
    """A source whose records carry their cached tensors in the field ``CACHED_FIELD``.

    Raises, on reading: DataError for a shard that is not cached, or cached for other weights or records.
    """

    source: Source
    folder: Path
    key: str

    @property
    def name(self) -> str:
        return self.source.name

    def shards(self) -> list[str]:
        return self.source.shards()

    def read(self, shard: str, start: int = 0) -> Iterator[RawRecord]:
        path = cache_file(self.folder, self.source.name, shard)
        if not path.exists():
            raise DataError(f"shard {shard} is not in the cache {self.folder}; start the run again to fill it")
        metadata = cache_metadata(path)
        if metadata.get("key") != self.key:
            raise DataError(
                f"the cache {self.folder} was made by other weights or settings ({path.name}); remove it, and the "
                "next start fills it again"
            )
        keys, bad = json.loads(metadata["records"]), json.loads(metadata["bad"])
        row = start - sum(1 for number in bad if int(number) < start)
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            for number, record in enumerate(self.source.read(shard, start), start):
                if number >= len(keys) or keys[number] != record.key:
                    raise DataError(
                        f"shard {shard} changed since it was cached: record {number} is '{record.key}'; remove "
                        f"{path} and fill the cache again"
                    )
                fields: dict[str, Any] = dict(record.fields)
                if str(number) in bad:
                    fields[CACHED_FIELD] = bad[str(number)]
                else:
                    fields[CACHED_FIELD] = {name: part[row] for name, part in slices.items()}
                    row += 1
                yield RawRecord(record.key, fields)


def cached_tensors(record: RawRecord) -> dict[str, Tensor] | None:
    """Tensors of a record from a CachedSource, None from any other. Raises: DataError where caching found it bad."""
    cached = record.fields.get(CACHED_FIELD)
    if isinstance(cached, str):
        raise DataError(cached)
    return cached
