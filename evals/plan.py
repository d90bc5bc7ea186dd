"""What a run consists of: which samples, which outputs, in which batches, with which seeds.

Everything here is a pure function of the configuration and the task, so a resumed run, another shard
or another machine arrives at the same plan. A *position* numbers the outputs of the full ordered
plan: position = sample position * outputs per sample + image index.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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


def spread_evenly(samples: Sequence[Sample], groups: Sequence[str], limit: int) -> list[Sample]:
    """``limit`` samples, spread evenly over the groups and within each, in official order.

    The same ones every time. Groups take turns, in their official order; a group that runs out
    leaves its share to the others.
    """
    if limit >= len(samples):
        return list(samples)
    order = [*groups, *(g for g in dict.fromkeys(s.group for s in samples) if g not in groups)]
    members = {g: [i for i, s in enumerate(samples) if s.group == g] for g in order}
    quota = dict.fromkeys(order, 0)
    left = limit
    while left:
        for group in order:
            if left and quota[group] < len(members[group]):
                quota[group] += 1
                left -= 1
    chosen = []
    for group in order:
        size, count = len(members[group]), quota[group]
        chosen += [members[group][(2 * k + 1) * size // (2 * count)] for k in range(count)]
    return [samples[i] for i in sorted(chosen)]


@dataclass(frozen=True)
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

    samples: tuple[Sample, ...]
    per_sample: int
    batch_size: int
    seed: int
    series: bool = False

    def __post_init__(self) -> None:
        ids = {s.id for s in self.samples}
        if len(ids) != len(self.samples):
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

    def positions_by_key(self) -> dict[str, int]:
        """sample id -> first position of that sample."""
        return {s.id: i * self.per_sample for i, s in enumerate(self.samples)}


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
