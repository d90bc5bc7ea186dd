"""Mean of scores that mean something only beside the network that gave them: its name is part of the figure's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evals.api import MetricValue, ScoreRow, Terms

NETWORK, IS_CUT = "encoder", "is_cut"
"""Keys in a score's details: the network, and whether it could not read the whole prompt."""


@dataclass(frozen=True)
class JudgeMean:
    """``<name>-<network>``: ``scale`` times the mean value, with an interval over prompts.

    ``group``: only scores of that group; such a metric is named ``<name>:<group>``, and its figure
    ``<name>-<network>:<group>``. A note says how many prompts were cut.
    """

    name: str
    unit: str = "fraction"
    scale: float = 1.0
    group: str | None = None
    higher_is_better: bool = True

    def _mine(self, rows: Sequence[ScoreRow]) -> list[ScoreRow]:
        return [row for row in rows if self.group is None or row.group == self.group]

    def terms(self, rows: Sequence[ScoreRow]) -> Terms | None:
        found = [row for row in self._mine(rows) if row.score.value is not None]
        if not found:
            return None
        return Terms(
            keys=tuple((row.sample_id, row.index) for row in found),
            values=tuple(float(row.score.value or 0.0) for row in found),
            clusters=tuple(row.sample_id for row in found),
            scale=self.scale,
        )

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        from evals import stats

        mine, terms = self._mine(rows), self.terms(rows)
        stem, colon, group = self.name.partition(":")
        if terms is None:
            note = "nothing was scored"
            return MetricValue(self.name, None, 0, len(mine), None, self.unit, clusters=0, note=note)
        scored = [row for row in mine if row.score.value is not None]
        estimate = stats.mean(terms.values, terms.clusters, bounded=True)
        cut = len({row.sample_id for row in scored if row.score.details.get(IS_CUT)})
        network = scored[0].score.details.get(NETWORK, "unknown")
        ci = estimate.ci
        return MetricValue(
            f"{stem}-{network}{colon}{group}",
            self.scale * estimate.value,
            estimate.n,
            len(mine) - len(scored),
            None if ci is None else (self.scale * ci[0], self.scale * ci[1]),
            self.unit,
            clusters=estimate.n_clusters,
            method=estimate.method,
            note=f"{cut} of {estimate.n_clusters} prompts were cut: the encoder reads no more" if cut else None,
        )
