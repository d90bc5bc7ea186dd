"""FID: how far are the pictures of many prompts, as a set, from real ones?

Measures: distance between the features of generated and of reference pictures: FID, KID, Inception score, precision
and recall; per category for MJHQ-30K.
Papers: Heusel et al., arXiv:1706.08500 (FID); Binkowski et al., arXiv:1801.01401 (KID); Salimans et al.,
arXiv:1606.03498 (Inception score); Kynkaanniemi et al., arXiv:1904.06991 (precision, recall); Parmar et al.,
arXiv:2104.11222 (what the resize does).
Data: the user's folder (`fid_data`): MJHQ-30K, COCO captions, or any caption list with pictures or statistics.
Scorer: torch-fidelity's Inception and estimators (`evals.metrics`), `clean` or `legacy` resize.

Worth: says nothing about whether a picture fits its prompt. Biased by the number of pictures: 30,000 against 30,000 is
the norm, and values at other numbers, with another resize or another choice of captions compare with nothing. KID has
no such bias. BLIP3-o publishes FID on MJHQ-30K as a curve of its ablation only.

Version 1.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.api import Sample
from evals.errors import InputError, MissingRequirementError
from tasks.generation import prompt_lists
from tasks.generation.fid_base import FidTask

if TYPE_CHECKING:
    from evals.metrics.features import Statistics
    from tasks.generation.fid_data import FidData

DATA_VARIABLE = "BLIP3O_EVAL_DATA"


class Fid(FidTask):
    """The task; see the module's card."""

    name = "fid"
    judges: Mapping[str, str] = {"photos": "inception"}
    card: Mapping[str, str] = {
        "measures": "distance of the set of pictures to a set of real ones, prompts aside",
        "paper": "Heusel et al., arXiv:1706.08500; Binkowski et al., arXiv:1801.01401",
        "data": "the user's: MJHQ-30K's layout, COCO captions, or a caption list with pictures or statistics",
        "licence": "that of the data given; MJHQ-30K names none, COCO's annotations are CC BY 4.0",
        "scorer": "torch-fidelity 0.4's Inception and estimators, or the features the judge names",
        "worth": (
            "Nothing about prompts. Biased upwards by few pictures: 30,000 against 30,000 is the norm, and values at "
            "other numbers, with another resize or another choice of captions compare with nothing."
        ),
    }

    def __init__(self, data: str | Path | None = None) -> None:
        super().__init__()
        self._given = data

    @cached_property
    def _data(self) -> FidData:
        from tasks.generation.fid_data import read

        if self._given is not None and prompt_lists.is_name(self._given):
            raise InputError(
                f"prompt list {str(self._given)!r} has no reference pictures for task 'fid' to compare with: take task "
                f"clipscore or vqascore, or give a folder in a layout of docs/fid.md; one of that name is written "
                f"./{self._given}"
            )
        if self._given is not None:
            return read(Path(self._given).expanduser())
        root = os.environ.get(DATA_VARIABLE)
        if root and (Path(root).expanduser() / "fid").is_dir():
            return read(Path(root).expanduser() / "fid")
        raise MissingRequirementError(
            "task 'fid' needs prompts and a reference: give --data DIR in the layout of MJHQ-30K, COCO captions or a "
            f"caption list (docs/fid.md), or put it into {DATA_VARIABLE}/fid"
        )

    @property
    def groups(self) -> tuple[str, ...]:  # type: ignore[override]
        if self._given is None and not os.environ.get(DATA_VARIABLE):
            return ("all",)
        return self._data.groups

    def samples(self) -> Sequence[Sample]:
        return self._data.samples

    def digest(self) -> str:
        """sha256 of the prompts and of which pictures the reference is."""
        import hashlib

        return hashlib.sha256(f"{self._data.digest()} {self.reference_digest()}".encode()).hexdigest()

    @cached_property
    def _reference_digest(self) -> str:
        from evals.io.digests import file_digest
        from evals.pictures.sets import names_digest

        data = self._data
        return file_digest(data.ready) if data.ready else names_digest(data.pictures, data.root)

    def reference_digest(self) -> str:
        return self._reference_digest

    def reporting_groups(self) -> tuple[str, ...]:
        try:
            data = self._data
        except MissingRequirementError:
            return ()
        return data.groups if data.layout == "mjhq" and len(data.groups) > 1 else ()

    def make_reference(self, judge: Any) -> Statistics:
        from evals.metrics.features import load
        from evals.pictures.sets import statistics_of

        data = self._data
        if data.ready is not None:
            found = load(data.ready)
            judge.recipe.refuse_other(found.recipe, str(data.ready))
            return found
        is_quiet = not logging.getLogger("evals").isEnabledFor(logging.WARNING)  # -q
        return statistics_of(data.pictures, data.root, judge, data.picture_groups, is_quiet)
