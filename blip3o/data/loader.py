"""Batches for training: worker processes read and decode, and the position after every batch comes along.

Batch ``k`` of a process comes from its worker ``k % workers``. A resumed loader starts its workers at the positions
after their last *used* batch and asks them in the same turn, so that batches read ahead are neither lost nor repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from blip3o.data.mixture import Ingredient, Mixture, redistribute_states
from blip3o.errors import ConfigError

Collate = Callable[[list[Any]], Any]


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """``batch_size`` records a batch and process; ``workers`` reading processes each (0: read in this one)."""

    batch_size: int
    seed: int = 42
    workers: int = 0
    rank: int = 0
    world_size: int = 1
    block: int = 1024
    max_bad_share: float = 0.01
    patience: int = 200
    prefetch: int = 2

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 0 or not 0 <= self.rank < self.world_size:
            raise ConfigError(
                f"batch_size {self.batch_size}, workers {self.workers}, rank {self.rank} of {self.world_size}: "
                "batch_size at least 1, workers at least 0, ranks count from 0"
            )

    @property
    def streams(self) -> int:
        """Readers of one process."""
        return max(self.workers, 1)


class RecordLoader:
    """Endless iterator of collated batches, resumable after each of them."""

    def __init__(
        self,
        ingredients: Sequence[Ingredient],
        config: LoaderConfig,
        collate: Collate | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.ingredients, self.config, self.collate = list(ingredients), config, collate
        self._states: list[dict[str, Any] | None] = [None] * config.streams
        self.batches = 0
        if state is not None:
            if len(state["readers"]) != config.streams or state["world_size"] != config.world_size:
                raise ConfigError(
                    f"the saved position is of {state['world_size']} processes with {len(state['readers'])} readers, "
                    f"not {config.world_size} with {config.streams}: rearrange it with blip3o.data.loader.rearrange"
                )
            self._states, self.batches = list(state["readers"]), int(state["batches"])

    def __iter__(self) -> Iterator[Any]:
        dataset = _Batches(self.ingredients, self.config, self.collate, self._states, self.batches)
        extra: dict[str, Any] = {}
        if self.config.workers:
            # forked workers inherit locks held by torch's threads; spawned ones start clean
            extra = {"prefetch_factor": self.config.prefetch, "multiprocessing_context": "spawn"}
        loader = DataLoader(dataset, batch_size=None, num_workers=self.config.workers, **extra)
        for worker, batch, state in loader:
            self._states[worker] = state
            self.batches += 1
            yield batch

    def state(self) -> dict[str, Any]:
        """Position after the last batch given out; JSON-ready."""
        return {
            "world_size": self.config.world_size,
            "batches": self.batches,
            "readers": list(self._states),
        }

    def tallies(self) -> dict[str, dict[str, Any]]:
        """Records read and bad by data set, over this process's readers."""
        total: dict[str, dict[str, Any]] = {
            i.source.name: {"read": 0, "bad": 0, "bad_keys": []} for i in self.ingredients
        }
        for state in self._states:
            for name, tally in (state or {"tallies": {}})["tallies"].items():
                for key in ("read", "bad", "bad_keys"):
                    total[name][key] = total[name][key] + tally[key]
        return total


class _Batches(IterableDataset[tuple[int, Any, dict[str, Any]]]):
    def __init__(
        self,
        ingredients: Sequence[Ingredient],
        config: LoaderConfig,
        collate: Collate | None,
        states: Sequence[dict[str, Any] | None],
        batches: int,
    ) -> None:
        self.ingredients, self.config, self.collate = ingredients, config, collate
        self.states, self.batches = states, batches

    def __iter__(self) -> Iterator[tuple[int, Any, dict[str, Any]]]:
        info, config = get_worker_info(), self.config
        # the first worker asked is the one whose turn it is
        worker = (self.batches + (info.id if info else 0)) % config.streams
        mixture = Mixture(
            self.ingredients,
            config.seed,
            reader=config.rank * config.streams + worker,
            readers=config.world_size * config.streams,
            block=config.block,
            max_bad_share=config.max_bad_share,
            patience=config.patience,
            state=self.states[worker],
        )
        records = iter(mixture)
        while True:
            batch = [next(records) for _ in range(config.batch_size)]
            yield worker, self.collate(batch) if self.collate else batch, mixture.state()


def rearrange(
    states: Sequence[Mapping[str, Any]], ingredients: Sequence[Ingredient], config: LoaderConfig
) -> dict[str, Any]:
    """The state for process ``config.rank`` of another number of processes or workers.

    ``states``: those of all earlier processes, by rank.
    """
    readers = [reader for state in states for reader in state["readers"]]
    moved = redistribute_states(
        readers, ingredients, config.seed, config.world_size * config.streams
    )
    first = config.rank * config.streams
    return {
        "world_size": config.world_size,
        "batches": 0,
        "readers": moved[first : first + config.streams],
    }
