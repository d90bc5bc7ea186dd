"""The loaders of a stage by name: next batches, positions that survive a restart, and counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from blip3o.data.loader import RecordLoader, rearrange


class Loaders:
    """Args: one loader a name; None where a stage has no such data."""

    def __init__(self, **loaders: RecordLoader | None) -> None:
        self._loaders = {name: loader for name, loader in loaders.items() if loader is not None}
        self._iterators: dict[str, Iterator[Any]] = {}

    def next(self) -> tuple[Any, ...]:
        """The next batch of each loader."""
        for name, loader in self._loaders.items():
            if name not in self._iterators:
                self._iterators[name] = iter(loader)
        return tuple(next(iterator) for iterator in self._iterators.values())

    def state(self) -> dict[str, Any]:
        """Positions after the last batches; JSON-ready."""
        return {name: loader.state() for name, loader in self._loaders.items()}

    def load_state(self, states: Sequence[Mapping[str, Any]], rank: int, world: int) -> None:
        """Go on from saved positions, one a process; of another number of processes they are shared out anew."""
        for name, loader in list(self._loaders.items()):
            own = [state[name] for state in states]
            same = len(own) == world and len(own[rank]["readers"]) == loader.config.streams
            state = own[rank] if same else rearrange(own, loader.ingredients, loader.config)
            self._loaders[name] = RecordLoader(loader.ingredients, loader.config, loader.collate, state)
        self._iterators = {}

    def tallies(self) -> dict[str, dict[str, Any]]:
        """Records read and bad, by data set."""
        return {
            name: tally for loader in self._loaders.values() for name, tally in loader.tallies().items()
        }
