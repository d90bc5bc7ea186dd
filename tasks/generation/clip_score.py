"""CLIPScore of any list of prompts: the cosine between a picture and its prompt, by a CLIP model.

Measures: overall fit of picture and prompt. Paper: Hessel et al., arXiv:2104.08718.
Data: the user's caption list (``id``, ``prompt``, optional ``group``), or MJHQ-30K's or COCO's captions as for `fid`;
no reference pictures are needed.
Scorer: torchmetrics' convention, max(100 * cosine, 0); the encoder stands in the metric's name.

Worth: blind to counts, positions and which colour belongs to what; long prompts are cut at 77 tokens, and how many
were is said. Values of two encoders do not compare.

Version 1.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.api import Metric, Sample, Score, ScoreItem, TaskKind
from evals.errors import MissingRequirementError

if TYPE_CHECKING:
    from tasks.generation.fid_data import FidData

DATA_VARIABLE = "BLIP3O_EVAL_DATA"


class ClipScoreTask:
    """The task; see the module's card."""

    name = "clipscore"
    version = "1"
    kind: TaskKind = "generation"
    num_images = 1
    judges: Mapping[str, str] = {"photos": "clip"}
    judge_methods = ("similarity",)
    card: Mapping[str, str] = {
        "measures": "fit of picture and prompt, as the cosine of a CLIP model's embeddings",
        "paper": "Hessel et al., CLIPScore, arXiv:2104.08718",
        "data": "the user's: a caption list, or the prompts of MJHQ-30K or COCO",
        "licence": "that of the data given",
        "scorer": "max(100 * cosine, 0), as torchmetrics; the encoder is part of the metric's name",
        "worth": "Blind to counts, positions and attribute binding; long prompts are cut at 77 tokens.",
    }

    def __init__(self, data: str | Path | None = None) -> None:
        self._given = data

    @cached_property
    def _data(self) -> FidData:
        from tasks.generation.fid_data import read

        root = os.environ.get(DATA_VARIABLE)
        place = self._given or (root and Path(root) / self.name)
        if not place:
            raise MissingRequirementError(
                "task 'clipscore' needs prompts: give --data DIR with captions.jsonl (docs/fid.md), or put it into "
                f"{DATA_VARIABLE}/clipscore"
            )
        return read(Path(place).expanduser(), with_reference=False)

    @property
    def groups(self) -> tuple[str, ...]:
        if self._given is None and not os.environ.get(DATA_VARIABLE):
            return ("all",)
        return self._data.groups

    def samples(self) -> Sequence[Sample]:
        return self._data.samples

    def digest(self) -> str:
        return self._data.digest()

    def score(self, items: Sequence[ScoreItem], judge: Any | None) -> Sequence[Score]:
        """Value: the score / 100. Details: the cosine, the encoder, and whether the prompt was cut."""
        from evals.metrics import clip_score as names

        if judge is None:
            raise ValueError("clipscore needs a judge that compares pictures and texts")
        found = judge.similarity([item.image for item in items], [item.sample.prompt for item in items])
        return [
            Score(
                names.clip_score(one.cosine) / 100,
                details={names.COSINE: one.cosine, names.ENCODER: judge.encoder, names.IS_CUT: one.is_cut},
            )
            for one in found
        ]

    def metrics(self) -> Sequence[Metric]:
        from evals.metrics.clip_score import ClipScore

        return [ClipScore()]
