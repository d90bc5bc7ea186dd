"""CLIPScore of any list of prompts: the cosine between a picture and its prompt, by a CLIP model.

Measures: overall fit of picture and prompt. Paper: Hessel et al., arXiv:2104.08718.
Data: a list of the package (`prompt_lists`), the user's caption list (``id``, ``prompt``, optional ``group``), or
MJHQ-30K's or COCO's captions as for `fid`; no reference pictures are needed. Each group has a figure of its own.
Scorer: torchmetrics' convention, max(100 * cosine, 0); the encoder stands in the metric's name.

Worth: blind to counts, positions and which colour belongs to what; long prompts are cut at 77 tokens, and how many
were is said. Values of two encoders do not compare.

Version 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evals.api import Metric, Score, ScoreItem
from tasks.generation.caption_task import CaptionTask


class ClipScoreTask(CaptionTask):
    """The task; see the module's card."""

    name = "clipscore"
    judges: Mapping[str, str] = {"photos": "clip"}
    judge_methods = ("similarity",)
    card: Mapping[str, str] = {
        "measures": "fit of picture and prompt, as the cosine of a CLIP model's embeddings",
        "paper": "Hessel et al., CLIPScore, arXiv:2104.08718",
        "data": "PartiPrompts, T2I-CompBench's prompts, or the user's: a caption list, MJHQ-30K's or COCO's captions",
        "licence": "that of the data given",
        "scorer": "max(100 * cosine, 0), as torchmetrics; the encoder is part of the metric's name",
        "worth": "Blind to counts, positions and attribute binding; long prompts are cut at 77 tokens.",
    }

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
        """The mean over all pictures, then of each group where there are several."""
        from evals.metrics.clip_score import ClipScore

        groups = self.reporting_groups()
        return [ClipScore(), *(ClipScore(f"clipscore:{group}", group=group) for group in groups)]
