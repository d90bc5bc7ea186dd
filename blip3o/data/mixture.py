"""Several streams mixed by weight: seeded, resumable, with bad records skipped, counted and bounded."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from blip3o.data.records import ReadRecord
from blip3o.data.sources import Source
from blip3o.data.stream import Position, RecordStream, redistribute
from blip3o.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ingredient:
    """A source, its share of the draws (relative weight), and how its records are read."""

    source: Source
    read: ReadRecord
    weight: float = 1.0


@dataclass
class Tally:
    """Records of one source: how many were read, how many were bad, and the keys of the first bad ones."""

    read: int = 0
    bad: int = 0
    bad_keys: list[str] = field(default_factory=list)

    KEPT_KEYS = 100


class Mixture:
    """Endless iterator of records for one reader; ``state`` after any record continues with the very next one.

    Args: max_bad_share: share of bad records of a source above which reading stops, once ``patience`` of its records
        were read.
    Raises: ConfigError for weights that are not positive or names used twice; DataError above ``max_bad_share``.
    """

    def __init__(
        self,
        ingredients: Sequence[Ingredient],
        seed: int,
        *,
        reader: int = 0,
        readers: int = 1,
        block: int = 1024,
        max_bad_share: float = 0.01,
        patience: int = 200,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        names = [ingredient.source.name for ingredient in ingredients]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"a mixture needs data sets with names of their own, got {names}")
        weights = np.array([ingredient.weight for ingredient in ingredients], dtype=np.float64)
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise ConfigError(f"weights of a mixture must be greater than 0, got {weights.tolist()}")
        if state is not None and set(state["positions"]) != set(names):
            raise ConfigError(
                f"the saved position is of the data sets {', '.join(sorted(state['positions']))}, not of "
                f"{', '.join(sorted(names))}: train on with the same ones, or start anew"
            )
        self.seed, self.reader = seed, reader
        self.max_bad_share, self.patience = max_bad_share, patience
        self._edges = np.cumsum(weights / weights.sum())
        self._draws = int(state["draws"]) if state else 0
        self._reads = {i.source.name: i.read for i in ingredients}
        self._streams = [
            RecordStream(
                ingredient.source,
                seed,
                reader=reader,
                readers=readers,
                block=block,
                position=Position.from_dict(state["positions"][name]) if state else None,
            )
            for name, ingredient in zip(names, ingredients, strict=True)
        ]
        self.tallies = {
            name: Tally(**state["tallies"][name]) if state else Tally() for name in names
        }

    def __iter__(self) -> Iterator[Any]:
        streams = [iter(stream) for stream in self._streams]
        while True:
            draw = np.random.default_rng([self.seed, self.reader, self._draws, 79]).random()
            chosen = min(int(np.searchsorted(self._edges, draw, side="right")), len(streams) - 1)
            self._draws += 1
            yield self._next(streams[chosen], self._streams[chosen].source.name)

    def _next(self, stream: Iterator[Any], name: str) -> Any:
        """The next good record of a stream; bad ones before it are counted."""
        tally = self.tallies[name]
        while True:
            raw = next(stream)
            tally.read += 1
            try:
                return self._reads[name](raw)
            except DataError as error:
                tally.bad += 1
                if len(tally.bad_keys) < Tally.KEPT_KEYS:
                    tally.bad_keys.append(raw.key)
                logger.warning("data set '%s': skipped a record: %s", name, error)
                if tally.read >= self.patience and tally.bad > self.max_bad_share * tally.read:
                    raise DataError(
                        f"data set '{name}': {tally.bad} of {tally.read} records are bad, more than "
                        f"{self.max_bad_share:.2%}; first ones: {', '.join(tally.bad_keys[:5])}; last: {error}"
                    ) from None

    def state(self) -> dict[str, Any]:
        """JSON-ready; give it to a new mixture of the same ingredients, seed and reader."""
        return {
            "draws": self._draws,
            "positions": {s.source.name: s.position.to_dict() for s in self._streams},
            "tallies": {
                name: {"read": t.read, "bad": t.bad, "bad_keys": list(t.bad_keys)}
                for name, t in self.tallies.items()
            },
        }


def redistribute_states(
    states: Sequence[Mapping[str, Any] | None], ingredients: Sequence[Ingredient], seed: int, readers: int
) -> list[dict[str, Any]]:
    """States for another number of readers, from those of all earlier ones; what was read is not read again but for
    begun blocks (see :func:`blip3o.data.stream.redistribute`). None stands for a reader that gave nothing yet. Counts
    go to the first reader."""
    begun = [state for state in states if state is not None]
    new: list[dict[str, Any]] = [
        {"draws": max((s["draws"] for s in begun), default=0), "positions": {}, "tallies": {}}
        for _ in range(readers)
    ]
    for ingredient in ingredients:
        name = ingredient.source.name
        old = [Position.from_dict(s["positions"][name]) if s else Position() for s in states]
        moved = redistribute(old, ingredient.source, seed, readers)
        counted = {
            "read": sum(s["tallies"][name]["read"] for s in begun),
            "bad": sum(s["tallies"][name]["bad"] for s in begun),
            "bad_keys": [k for s in begun for k in s["tallies"][name]["bad_keys"]][
                : Tally.KEPT_KEYS
            ],
        }
        for reader, position in enumerate(moved):
            new[reader]["positions"][name] = position.to_dict()
            new[reader]["tallies"][name] = (
                counted if reader == 0 else {"read": 0, "bad": 0, "bad_keys": []}
            )
    return new
