"""A source as an endless, seeded, resumable stream of records for one of several readers.

Order: epoch after epoch, the shards in a seeded permutation, dealt out to the readers in turn; a reader shuffles blocks
of ``block`` records across its shards. A block's order depends on (seed, epoch, reader, block number) alone, so the
position of a stream is a few numbers: where its block began and how far into it the stream is. Resuming reads at
most one block again, undecoded, and goes on with the very next record.

A source of fewer shards than readers (one JSON file, four workers) has each shard read by several of them, every
reader taking every k-th record of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from blip3o.data.records import RawRecord
from blip3o.data.sources import Source
from blip3o.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a stream stands. ``pending``: what is left of this epoch when the block began, as (shard, first record);
    ``block``: the block's number in the epoch; ``taken``: records of it already given out."""

    epoch: int = 0
    pending: tuple[tuple[str, int], ...] | None = None
    block: int = 0
    taken: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Position:
        pending = values["pending"]
        if pending is not None:
            pending = tuple((str(shard), int(first)) for shard, first in pending)
        return cls(**{**values, "pending": pending})


class RecordStream:
    """Endless iterator over the records that reader ``reader`` of ``readers`` gets; ``position`` may be stored after
    any record and given to a new stream.

    Raises: DataError for an epoch without a record.
    """

    def __init__(
        self,
        source: Source,
        seed: int,
        *,
        reader: int = 0,
        readers: int = 1,
        block: int = 1024,
        position: Position | None = None,
    ) -> None:
        if not 0 <= reader < readers or block < 1:
            raise ConfigError(
                f"reader {reader} of {readers} with blocks of {block}: readers count from 0, blocks hold at least 1"
            )
        self.source, self.seed, self.block = source, seed, block
        self.reader, self.readers = reader, readers
        self._shards = shared_out(source.shards(), readers)
        self.position = position or Position()

    def epoch_shards(self, epoch: int) -> tuple[tuple[str, int], ...]:
        """This reader's shards of an epoch, in order, each from its first record."""
        order = np.random.default_rng([self.seed, epoch, 71]).permutation(len(self._shards))
        return tuple((self._shards[i], 0) for i in order[self.reader :: self.readers])

    def __iter__(self) -> Iterator[RawRecord]:
        while True:
            pending = self.position.pending
            if pending is None:
                pending = self.epoch_shards(self.position.epoch)
                self.position = replace(self.position, pending=pending)
            records, left = self._fill(pending)
            if not records:
                if self.position.block == 0 and pending == self.epoch_shards(self.position.epoch):
                    raise DataError(
                        f"data set '{self.source.name}' holds no records for reader {self.reader} of {self.readers} "
                        "(processes x workers)"
                    )
                self.position = Position(epoch=self.position.epoch + 1)
                continue
            rng = np.random.default_rng(
                [self.seed, self.position.epoch, self.reader, self.position.block, 73]
            )
            order = rng.permutation(len(records))
            while self.position.taken < len(order):
                record = records[order[self.position.taken]]
                self.position = replace(self.position, taken=self.position.taken + 1)
                yield record
            following = replace(
                self.position, pending=left, block=self.position.block + 1, taken=0
            )
            self.position = following if left else Position(epoch=self.position.epoch + 1)

    def _fill(
        self, pending: Sequence[tuple[str, int]]
    ) -> tuple[list[RawRecord], tuple[tuple[str, int], ...]]:
        """Up to ``block`` records from the front of ``pending``, and what is then left of it."""
        records: list[RawRecord] = []
        for number, (shard, first) in enumerate(pending):
            count = 0
            for record in read_shared(self.source, shard, first):
                if len(records) == self.block:
                    return records, ((shard, first + count), *pending[number + 1 :])
                records.append(record)
                count += 1
        return records, ()


PART = "\n"  # between a shard's name and which of its records are meant; in no file name worth reading


def shared_out(shards: Sequence[str], readers: int) -> list[str]:
    """At least as many names as readers: the shards themselves, or each in parts ``shard PART i/k``."""
    parts = -(-readers // max(len(shards), 1))
    if parts == 1:
        return list(shards)
    return [f"{shard}{PART}{i}/{parts}" for shard in shards for i in range(parts)]


def read_shared(source: Source, name: str, start: int) -> Iterator[RawRecord]:
    """Records of a shard or of a part of one, from number ``start`` of it on."""
    shard, _, part = name.partition(PART)
    if not part:
        return source.read(shard, start)
    first, _, step = part.partition("/")
    return islice(source.read(shard, int(first) + start * int(step)), 0, None, int(step))


def redistribute(
    positions: Sequence[Position], source: Source, seed: int, readers: int
) -> list[Position]:
    """Positions for another number of readers, from one of each earlier reader.

    Nothing of the epoch is lost. Seen twice is at most the begun block of each earlier reader, and what a reader
    that was ahead had read of the next epoch.
    """
    epoch = min(position.epoch for position in positions)
    left: list[tuple[str, int]] = []
    for reader, position in enumerate(positions):
        if position.epoch > epoch:
            continue
        if position.pending is None:
            stream = RecordStream(source, seed, reader=reader, readers=len(positions))
            left += stream.epoch_shards(epoch)
        else:
            left += position.pending
    shares = [tuple(left[reader::readers]) for reader in range(readers)]
    return [
        Position(epoch=epoch, pending=share, block=1) if share else Position(epoch=epoch + 1)
        for share in shares
    ]
