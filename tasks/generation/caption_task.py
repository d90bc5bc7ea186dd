"""What tasks over a list of prompts share: `--data DIR` in the layouts of `fid_data`, without a reference, or `--data
NAME` of a list that comes with the package (`prompt_lists`).

A name is a name wherever the command is run: a folder that is called like a list is taken when it is written as a path
(`./partiprompts`), and one that lies beside is pointed out.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from evals.api import Sample, TaskKind
from evals.errors import InputError, MissingRequirementError, shown
from tasks.generation import prompt_lists
from tasks.generation.fid_data import FidData, read

DATA_VARIABLE = "BLIP3O_EVAL_DATA"

log = logging.getLogger("evals")


class CaptionTask:
    """Base of tasks that compare each picture with its prompt; a subclass scores."""

    name = ""
    version = "1"
    kind: TaskKind = "generation"
    num_images = 1
    judges: Mapping[str, str] = {}
    card: Mapping[str, str] = {}
    bundled_lists: Sequence[str] = tuple(prompt_lists.SOURCES)

    def __init__(self, data: str | Path | None = None) -> None:
        self._given = data
        if data is not None and prompt_lists.is_name(data):
            self.card = _card_with(self.card, prompt_lists.source_of(str(data)))

    @property
    def has_data(self) -> bool:
        """Whether somebody said where the prompts are."""
        return self._given is not None or bool(os.environ.get(DATA_VARIABLE))

    @cached_property
    def _data(self) -> FidData:
        if self._given is not None and prompt_lists.is_name(self._given):
            return _read_list(str(self._given))
        root = os.environ.get(DATA_VARIABLE)
        place = self._given or (root and Path(root) / self.name)
        if not place:
            raise MissingRequirementError(
                f"task {self.name!r} needs prompts: give --data partiprompts, --data t2i_compbench or --data DIR with "
                f"captions.jsonl (docs/fid.md), or put it into {DATA_VARIABLE}/{self.name}"
            )
        folder = Path(place).expanduser()
        if isinstance(place, str) and not place.startswith((".", "/", "~")) and not os.path.exists(folder):
            raise InputError(
                f"{shown(place)} is neither a folder here nor a prompt list; lists are {prompt_lists.KNOWN}; a folder "
                "of your own holds captions.jsonl (docs/fid.md)"
            )
        return read(folder, with_reference=False)

    @property
    def groups(self) -> tuple[str, ...]:
        return self._data.groups if self.has_data else ("all",)

    def reporting_groups(self) -> tuple[str, ...]:
        """Groups with a figure of their own: all of them where there are several."""
        return self.groups if self.has_data and len(self.groups) > 1 else ()

    def samples(self) -> Sequence[Sample]:
        return self._data.samples

    def digest(self) -> str:
        """sha256 over ids, groups and prompts."""
        return self._data.digest()


def _read_list(name: str) -> FidData:
    """A list by its name; says so where a folder of that name could have been meant."""
    if Path(name).is_dir():
        log.warning("--data %s is the prompt list of that name; for the folder here give --data ./%s", name, name)
    return prompt_lists.read(name)


def _card_with(card: Mapping[str, str], source: prompt_lists.Source) -> Mapping[str, str]:
    """The task's card over a list: whose prompts, under which licence, and what the figure is not."""
    return {
        **card,
        "paper": f"{card['paper']}; prompts: {source.paper}",
        "data": source.data,
        "licence": f"{source.licence} (prompts)",
        "worth": f"{card['worth']} {source.worth}",
    }
