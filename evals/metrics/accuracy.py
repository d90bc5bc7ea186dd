"""Mean score of a group, and the plain mean of group means, with intervals over samples.

Scores of one sample (four pictures of one prompt) are correlated, so the sample is the unit that
intervals resample. Unscored rows are left out and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evals.api import MetricValue, ScoreRow


def value_of(row: ScoreRow, detail: str | None) -> float | None:
    """The row's value, or the number under ``detail`` in its details; None if it has none."""
    if not row.score.is_scored:
        return None
    if detail is None:
        return row.score.value
    value = row.score.details.get(detail)
    return None if value is None else float(value)


@dataclass(frozen=True)
class GroupMean:
    """Mean of the scores of one group (``None``: of all), each in [0, 1].

    ``detail`` averages a number of the score's details instead of its value. Without any scored row
    the value is None.
    """

    group: str | None
    name: str
    detail: str | None = None
    unit: str = "fraction"
    higher_is_better: bool = True

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        from evals import stats

        mine = [r for r in rows if self.group is None or r.group == self.group]
        pairs = [(v, r.sample_id) for r in mine if (v := value_of(r, self.detail)) is not None]
        note = None if pairs else ("nothing was scored" if mine else "no samples in this run")
        if not pairs:
            return MetricValue(
                self.name, None, 0, len(mine), None, self.unit, self.higher_is_better, 0, None, note
            )
        values, clusters = zip(*pairs, strict=True)
        estimate = stats.mean(values, clusters, bounded=True)
        return MetricValue(
            name=self.name,
            value=estimate.value,
            n=estimate.n,
            unscored=len(mine) - len(pairs),
            ci95=None if estimate.ci is None else (estimate.ci[0], estimate.ci[1]),
            unit=self.unit,
            higher_is_better=self.higher_is_better,
            clusters=estimate.n_clusters,
            method=estimate.method,
        )


@dataclass(frozen=True)
class MeanOfGroups:
    """Plain mean of the means of ``groups``, whatever their sizes (GenEval's overall).

    Given only when every group has a scored row: the mean of a subset is another quantity.
    """

    groups: tuple[str, ...]
    name: str = "overall"
    detail: str | None = None
    unit: str = "fraction"
    higher_is_better: bool = True

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        from evals import stats

        mine = [r for r in rows if r.group in self.groups]
        triples = [
            (v, r.group, r.sample_id) for r in mine if (v := value_of(r, self.detail)) is not None
        ]
        present = {group for _, group, _ in triples}
        missing = [g for g in self.groups if g not in present]
        unscored = len(mine) - len(triples)
        if missing:
            return MetricValue(
                self.name,
                None,
                len(triples),
                unscored,
                unit=self.unit,
                higher_is_better=self.higher_is_better,
                note=f"not given: no scores for {', '.join(missing)}",
            )
        values, strata, clusters = zip(*triples, strict=True)
        estimate = stats.mean_of_strata(values, strata, clusters, bounded=True)
        return MetricValue(
            name=self.name,
            value=estimate.value,
            n=estimate.n,
            unscored=unscored,
            ci95=None if estimate.ci is None else (estimate.ci[0], estimate.ci[1]),
            unit=self.unit,
            higher_is_better=self.higher_is_better,
            clusters=estimate.n_clusters,
            method=estimate.method,
        )
