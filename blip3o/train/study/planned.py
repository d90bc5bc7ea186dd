"""What a plan says of one stage. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PlannedStage:
    """``settings``: what this stage depends on beside its parents, as nested values for ``read_settings``;
    ``parents``: names of stages of the same point."""

    name: str
    settings: dict[str, Any]
    seed: int
    parents: tuple[str, ...]
    steps: int
    images: int
    seconds: float
    bytes: int
    export_bytes: int = 0
