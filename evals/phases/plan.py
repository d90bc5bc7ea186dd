"""What a run consists of: which samples, which outputs, in which batches, with which seeds.

Everything here is a pure function of the configuration and the task, so a resumed run, another shard
or another machine arrives at the same plan. A *position* numbers the outputs of the full ordered
plan: position = sample position * outputs per sample + image index.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from evals.api import Sample
from evals.errors import ConfigError, shown

_SEED_BITS = 53  # exact in JSON readers that hold numbers as doubles
MAX_SHARDS = 100_000


def sample_seed(run_seed: int, sample_id: str, image_index: int) -> int:
    """Seed of one picture, from (run seed, sample id, image index) and nothing else.

    sha256 rather than ``hash()``, which differs between processes, and rather than sums of the
    parts, which collide between neighbouring samples.
    """
    text = f"{run_seed}\x1f{sample_id}\x1f{image_index}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> (64 - _SEED_BITS)


def spread_evenly(
    samples: Sequence[Sample], groups: Sequence[str], limit: int
) -> Sequence[Sample]:
    """``limit`` samples, spread evenly over the groups and within each, in official order.

    The same ones every time. Groups take turns, in their official order; a group that runs out
    leaves its share to the others. Samples of one ``unit`` (MME: both questions about a picture) stay
    together, so there may be a few more than ``limit``. A task's own sequence is handed through when
    all are wanted: it may read its samples one by one.
    """
    if limit >= len(samples):
        return samples
    order = [*groups, *(g for g in dict.fromkeys(s.group for s in samples) if g not in groups)]
    members = _units_by_group(samples, order)
    sizes = {g: sum(map(len, units)) / len(units) for g, units in members.items() if units}
    quota = dict.fromkeys(order, 0)
    left = float(limit)
    while left > 1e-9:
        for group in order:
            if left > 1e-9 and quota[group] < len(members[group]):
                quota[group] += 1
                left -= sizes[group]
    chosen: list[int] = []
    for group in order:
        size, count = len(members[group]), quota[group]
        for k in range(count):
            chosen += members[group][(2 * k + 1) * size // (2 * count)]
    return [samples[i] for i in sorted(chosen)]


def _units_by_group(
    samples: Sequence[Sample], groups: Sequence[str]
) -> dict[str, list[tuple[int, ...]]]:
    """group -> places of the samples of each unit, in official order; without units each sample is one."""
    members: dict[str, dict[object, tuple[int, ...]]] = {g: {} for g in groups}
    for i, sample in enumerate(samples):
        mine = members[sample.group]
        key = i if sample.unit is None else sample.unit
        mine[key] = (*mine.get(key, ()), i)
    return {group: list(units.values()) for group, units in members.items()}


@dataclass(frozen=True, slots=True)
class Batch:
    """Positions ``start`` to ``stop`` (exclusive) of the full plan, computed together."""

    index: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def positions(self) -> range:
        return range(self.start, self.stop)


@dataclass(frozen=True)
class Plan:
    """The ordered outputs of a run and how they are cut into batches.

    Batches are cut by position before anything finished is removed, so the neighbours of a picture
    never change. ``series`` (``--seed-mode upstream``) cuts between samples only.
    """

    samples: Sequence[Sample]
    per_sample: int
    batch_size: int
    seed: int
    series: bool = False

    def __post_init__(self) -> None:
        if _has_repeats(self.samples):
            raise ConfigError("the task yields two samples with the same id; seeds would repeat")

    def __len__(self) -> int:
        return len(self.samples) * self.per_sample

    def place(self, position: int) -> tuple[Sample, int]:
        """(sample, image index) of a position."""
        sample, index = divmod(position, self.per_sample)
        return self.samples[sample], index

    def seed_of(self, position: int) -> int:
        """In series mode every sample starts from the run seed itself, as the upstream scripts do."""
        sample, index = self.place(position)
        return self.seed if self.series else sample_seed(self.seed, sample.id, index)

    def batches(self, shard: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """Batches of shard (i, n): those whose number leaves i when divided by n."""
        size = self.batch_size
        if self.series:
            size = max(1, self.batch_size // self.per_sample) * self.per_sample
        shard_index, num_shards = shard
        for number, start in enumerate(range(0, len(self), size)):
            if number % num_shards == shard_index:
                yield Batch(number, start, min(start + size, len(self)))



class Locator:
    """Finds the position of a row by its sample id and image index.

    Rows come in plan order nearly always, so the sample of the row before and the one after it are
    looked at first; the index of all ids is built only when that fails.
    """

    def __init__(self, plan: Plan) -> None:
        self._samples, self._per_sample = plan.samples, plan.per_sample
        self._at, self._next_id = -1, self._id_of(0)
        self._id: str | None = None
        self._index: dict[str, int] | None = None

    def __call__(self, row: Mapping[str, Any]) -> int | None:
        """The position, or None for a row that is not of this plan."""
        sample_id, image_index = row.get("sample_id"), row.get("image_index")
        if type(image_index) is not int or not 0 <= image_index < self._per_sample:
            return None
        if not isinstance(sample_id, str):
            return None
        if sample_id != self._id:
            if sample_id == self._next_id:
                self._at, self._id = self._at + 1, self._next_id
                self._next_id = self._id_of(self._at + 1)
            else:
                found = self._look_up(sample_id)
                if found is None:
                    return None
                self._move_to(found)
        return self._at * self._per_sample + image_index

    def _move_to(self, at: int) -> None:
        self._at, self._id, self._next_id = at, self._id_of(at), self._id_of(at + 1)

    def _id_of(self, at: int) -> str | None:
        return self._samples[at].id if at < len(self._samples) else None

    def _look_up(self, sample_id: str) -> int | None:
        if self._index is None:
            self._index = {s.id: i for i, s in enumerate(self._samples)}
        return self._index.get(sample_id)


def _has_repeats(samples: Sequence[Sample]) -> bool:
    # Hashes in an array take a tenth of the memory of a set of ids; only if two agree the ids are compared.
    hashes = array("q", sorted(array("q", (hash(s.id) for s in samples))))
    if all(a != b for a, b in pairwise(hashes)):
        return False
    return len({s.id for s in samples}) != len(samples)


def cut(total: int, size: int) -> Iterator[Batch]:
    """Batches of ``size`` over ``range(total)``."""
    for number, start in enumerate(range(0, total, size)):
        yield Batch(number, start, min(start + size, total))


def parse_shard(text: str) -> tuple[int, int]:
    """``"2/8"`` -> (2, 8). Raises ConfigError unless 0 <= i < n."""
    left, _, right = text.partition("/")
    if re.fullmatch(r"[0-9]{1,6}/[0-9]{1,6}", text) and int(left) < int(right) <= MAX_SHARDS:
        return int(left), int(right)
    raise ConfigError(
        f"shard {shown(text)}: give i/n with i from 0 to n-1, such as 0/4 for the first of four"
    )
