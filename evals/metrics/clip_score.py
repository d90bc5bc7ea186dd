"""CLIPScore: how well pictures fit their prompts by the cosine of a CLIP model's embeddings.

    max(100 * cos(image, text), 0), mean over pictures; higher is better.

Convention: as torchmetrics documents it (`torchmetrics.multimodal.CLIPScore`, whose code takes the maximum of the mean:
the same number as long as no cosine is negative). Its name carries the encoder, since values of two encoders do not
compare. Hessel et al., arXiv:2104.08718, use 2.5 * cos with ViT-B/32 and a prefix; T2I-CompBench the
plain cosine. Prompts are cut to what the text tower reads (CLIP: 77 tokens); how many were is said with the figure.
"""

from __future__ import annotations

from dataclasses import dataclass

from evals.metrics.judge_mean import IS_CUT, NETWORK, JudgeMean

ENCODER, COSINE = NETWORK, "cosine"
__all__ = ["COSINE", "ENCODER", "IS_CUT", "ClipScore", "clip_score"]


def clip_score(cosine: float) -> float:
    """The score of one picture, 0 to 100."""
    return max(100.0 * cosine, 0.0)


@dataclass(frozen=True)
class ClipScore(JudgeMean):
    """Mean score with an interval over prompts; rows hold `clip_score` / 100 as their value."""

    name: str = "clipscore"
    unit: str = "percent"
    scale: float = 100.0
