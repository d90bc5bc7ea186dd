"""VQAScore of any list of prompts: the probability that a vision-language model says "Yes" to the prompt as a question.

Measures: overall fit of picture and prompt, compositions included. Paper: Lin et al., arXiv:2404.01291.
Data: a list of the package (`prompt_lists`), the user's caption list (``id``, ``prompt``, optional ``group``), or
MJHQ-30K's or COCO's captions as for `fid`; no reference pictures are needed. Each group has a figure of its own, as
GenAI-Bench's basic and advanced prompts need.
Scorer: P("Yes") to 'Does this figure show "{prompt}"? Please answer yes or no.'; the model stands in the figure's name.

Worth: as good as the model that answers, and values of two models do not compare. Published figures rest on
CLIP-FlanT5-XXL, which is not offered here.

Version 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evals.api import Metric, Score, ScoreItem
from tasks.generation.caption_task import CaptionTask


class VqaScoreTask(CaptionTask):
    """The task; see the module's card."""

    name = "vqascore"
    judges: Mapping[str, str] = {"photos": "blip-vqa"}
    judge_methods = ("probability",)
    card: Mapping[str, str] = {
        "measures": "fit of picture and prompt, as the probability that a vision-language model says Yes",
        "paper": "Lin et al., VQAScore, arXiv:2404.01291",
        "data": "PartiPrompts, T2I-CompBench's prompts, or the user's: a caption list, MJHQ-30K's or COCO's captions",
        "licence": "that of the data given",
        "scorer": "probability of Yes to 'Does this figure show \"...\"?'; the model is part of the metric's name",
        "worth": "As good as the model that answers; values of two models do not compare, published ones rest on "
        "CLIP-FlanT5-XXL.",
    }

    def score(self, items: Sequence[ScoreItem], judge: Any | None) -> Sequence[Score]:
        """Value: the probability. Details: the question, and the model's name."""
        from evals.metrics.judge_mean import NETWORK
        from evals.metrics.vqa_score import ANSWER, QUESTION

        if judge is None:
            raise ValueError("vqascore needs a judge that says how likely an answer is")
        questions = [QUESTION.replace("{prompt}", item.sample.prompt) for item in items]
        found = judge.probability([item.image for item in items], questions, ANSWER)
        details = {NETWORK: judge.identity.name.rpartition("/")[2]}
        return [
            Score.unscored(str(one), failed="judge", question=question, **details)
            if isinstance(one, Exception)
            else Score(float(one), details={"question": question, **details})
            for one, question in zip(found, questions, strict=True)
        ]

    def metrics(self) -> Sequence[Metric]:
        """The mean over all pictures, then of each group where there are several."""
        from evals.metrics.vqa_score import VqaScore

        groups = self.reporting_groups()
        return [VqaScore(), *(VqaScore(f"vqascore:{group}", group=group) for group in groups)]
