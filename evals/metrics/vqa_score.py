"""VQAScore: how well pictures fit their prompts by the probability that a vision-language model says "Yes".

    P("Yes" | picture, 'Does this figure show "{prompt}"? Please answer yes or no.'), mean over pictures; 0 to 1,
    higher is better.

Lin et al., arXiv:2404.01291 (question and answer as there). The probability is that of the answer's tokens, each after
those before it, without a mark of the end; for models whose tokenizer knows "Yes" it is the first token's. The
model stands in the figure's name: values of two models do not compare. The paper's own model is CLIP-FlanT5-XXL.
"""

from __future__ import annotations

from dataclasses import dataclass

from evals.metrics.judge_mean import JudgeMean

QUESTION = 'Does this figure show "{prompt}"? Please answer yes or no.'
ANSWER = "Yes"


@dataclass(frozen=True)
class VqaScore(JudgeMean):
    """Mean probability with an interval over prompts, of all scores or of one group's."""

    name: str = "vqascore"
