"""A tiny counter-based random stream whose numbers are the same on every machine and library version."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
_MASK = (1 << 64) - 1


class Stream:
    """SplitMix64, keyed by the SHA-256 of the given parts; NumPy may change its streams, this never does.

    >>> Stream("train", 0).integer(10) == Stream("train", 0).integer(10)
    True
    """

    __slots__ = ("_state",)

    def __init__(self, *key: object) -> None:
        text = "\x1f".join(str(part) for part in key)
        self._state = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    def bits(self) -> int:
        """64 random bits."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * ((self.bits() >> 11) * 2.0**-53)

    def integer(self, n: int) -> int:
        """Uniform in 0 .. n-1 (bias below 2**-50 for the small n used here)."""
        return (self.bits() * n) >> 64

    def choice(self, items: Sequence[T]) -> T:
        return items[self.integer(len(items))]

    def weighted(self, items: Sequence[tuple[T, float]]) -> T:
        """One of (item, weight) pairs, with probability proportional to its weight."""
        point = self.uniform(0.0, sum(w for _, w in items))
        for item, weight in items:
            point -= weight
            if point < 0:
                return item
        return items[-1][0]

    def sample(self, items: Sequence[T], k: int) -> list[T]:
        """k different items, in random order."""
        pool = list(items)
        return [pool.pop(self.integer(len(pool))) for _ in range(k)]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        return self.sample(items, len(items))
