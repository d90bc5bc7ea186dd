"""CLIPScore: how well pictures fit their prompts by the cosine of a CLIP model's embeddings.

    max(100 * cos(image, text), 0), mean over pictures; higher is better.

Convention: torchmetrics' (`torchmetrics.multimodal.CLIPScore`); its name carries the encoder, since values of two
encoders do not compare. Hessel et al., arXiv:2104.08718, use 2.5 * cos with ViT-B/32 and a prefix; T2I-CompBench the
plain cosine. Prompts are cut to what the text tower reads (CLIP: 77 tokens); how many were is said with the figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evals.api import MetricValue, ScoreRow, Terms

ENCODER, COSINE, IS_CUT = "encoder", "cosine", "is_cut"


def clip_score(cosine: float) -> float:
    """The score of one picture, 0 to 100."""
    return max(100.0 * cosine, 0.0)


@dataclass(frozen=True)
class ClipScore:
    """Mean score with an interval over prompts; rows hold `clip_score` / 100 as their value."""

    name: str = "clipscore"
    unit: str = "percent"
    higher_is_better: bool = True

    def terms(self, rows: Sequence[ScoreRow]) -> Terms | None:
        found = [row for row in rows if row.score.value is not None]
        if not found:
            return None
        return Terms(
            keys=tuple((row.sample_id, row.index) for row in found),
            values=tuple(float(row.score.value or 0.0) for row in found),
            clusters=tuple(row.sample_id for row in found),
            scale=100.0,
        )

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        from evals import stats

        terms = self.terms(rows)
        if terms is None:
            note = "nothing was scored"
            return MetricValue(self.name, None, 0, len(rows), None, self.unit, clusters=0, note=note)
        scored = [row for row in rows if row.score.value is not None]
        estimate = stats.mean(terms.values, terms.clusters, bounded=True)
        cut = len({row.sample_id for row in scored if row.score.details.get(IS_CUT)})
        encoder = scored[0].score.details.get(ENCODER, "unknown")
        return MetricValue(
            f"{self.name}-{encoder}",
            100 * estimate.value,
            estimate.n,
            len(rows) - len(scored),
            None if estimate.ci is None else (100 * estimate.ci[0], 100 * estimate.ci[1]),
            self.unit,
            clusters=estimate.n_clusters,
            method=estimate.method,
            note=f"{cut} of {estimate.n_clusters} prompts were cut: the encoder reads no more" if cut else None,
        )
