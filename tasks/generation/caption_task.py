"""What tasks over the user's list of prompts share: `--data DIR` in the layouts of `fid_data`, without a reference."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from evals.api import Sample, TaskKind
from evals.errors import MissingRequirementError

if TYPE_CHECKING:
    from tasks.generation.fid_data import FidData

DATA_VARIABLE = "BLIP3O_EVAL_DATA"


class CaptionTask:
    """Base of tasks that compare each picture with its prompt; a subclass scores."""

    name = ""
    version = "1"
    kind: TaskKind = "generation"
    num_images = 1
    judges: Mapping[str, str] = {}

    def __init__(self, data: str | Path | None = None) -> None:
        self._given = data

    @property
    def has_data(self) -> bool:
        """Whether somebody said where the prompts are."""
        return self._given is not None or bool(os.environ.get(DATA_VARIABLE))

    @cached_property
    def _data(self) -> FidData:
        from tasks.generation.fid_data import read

        root = os.environ.get(DATA_VARIABLE)
        place = self._given or (root and Path(root) / self.name)
        if not place:
            raise MissingRequirementError(
                f"task {self.name!r} needs prompts: give --data DIR with captions.jsonl (docs/fid.md), or put it into "
                f"{DATA_VARIABLE}/{self.name}"
            )
        return read(Path(place).expanduser(), with_reference=False)

    @property
    def groups(self) -> tuple[str, ...]:
        return self._data.groups if self.has_data else ("all",)

    def samples(self) -> Sequence[Sample]:
        return self._data.samples

    def digest(self) -> str:
        """sha256 over ids, groups and prompts."""
        return self._data.digest()
