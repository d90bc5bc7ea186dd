"""What the loop asks of a stage, and a stage as one module."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class TrainStage(Protocol):
    """What the loop needs to know of a stage. ``modules`` maps a name to a module; only parameters with
    ``requires_grad`` learn.

    Optional attributes: ``counts(batch) -> {term: units}``, needed where ``loss`` returns several terms or batches
    differ in weight; ``blocks``, modules that FSDP2 shards one by one; ``data_state()`` and ``load_data_state(state)``,
    where batches come from a stream; ``is_divisible`` = False where micro-batches do not add up to the large batch
    (a contrastive loss); ``frozen``, modules that help and do not learn, moved to the run's device with the others;
    ``rate_share(name)``, the share of the learning rate that a parameter has, named from its module on.
    """

    name: str
    modules: Mapping[str, nn.Module]

    def batch(self, index: int) -> Any:
        """The micro-batch of one index; its ``ids`` name its samples in messages."""

    def loss(
        self, batch: Any, generator: torch.Generator
    ) -> tuple[Tensor | Mapping[str, Tensor], dict[str, float]]:
        """Mean loss, or several by term (each a mean over its ``counts``; they are added), and plain numbers for the
        log. Random draws come from ``generator`` only."""


class StageModule(nn.Module):
    """A stage as one module, so that its forward is what DDP and FSDP2 wrap."""

    def __init__(self, stage: TrainStage) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(dict(stage.modules))
        self._stage = [stage]  # in a list: its modules are registered above, once

    def forward(
        self, batch: Any, generator: torch.Generator, scales: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, float]]:
        """Sum of the terms, each times its scale, and the log's numbers; ``loss`` is the unscaled sum."""
        terms, numbers = self._stage[0].loss(batch, generator)
        if not isinstance(terms, Mapping):
            terms = {"loss": terms}
        total = torch.stack([term.float() * scales[name] for name, term in terms.items()]).sum()
        unscaled = sum(term.item() for term in terms.values())
        return total, {"loss": unscaled, **numbers}


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors in dataclasses, tuples, lists and dicts moved to ``device``; everything else as it is."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        moved = {f.name: to_device(getattr(value, f.name), device) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **moved)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to_device(item, device) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(to_device(item, device) for item in value)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    return value


def sample_ids(batch: Any) -> list[Any]:
    """Ids of a batch's samples; a batch may be several batches in a tuple, and needs no ids."""
    parts = batch if isinstance(batch, tuple) else (batch,)
    return [i for part in parts for i in getattr(part, "ids", ())]


def unit_counts(stage: TrainStage, batch: Any) -> dict[str, float]:
    counts = getattr(stage, "counts", None)
    return dict(counts(batch)) if counts else {"loss": 1.0}
