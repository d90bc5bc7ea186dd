"""Mean score of a group, and the plain mean of group means, with intervals over samples.

Scores of one sample (four pictures of one prompt) are correlated, so the sample is the unit that
intervals resample. Unscored rows are left out and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evals.api import MetricValue, ScoreRow, Terms


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

    def terms(self, rows: Sequence[ScoreRow]) -> Terms | None:
        return _terms(self._mine(rows), self.detail)

    def _mine(self, rows: Sequence[ScoreRow]) -> list[ScoreRow]:
        return [r for r in rows if self.group is None or r.group == self.group]

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        from evals import stats

        mine = self._mine(rows)
        terms = _terms(mine, self.detail)
        if terms is None:
            note = "nothing was scored" if mine else "no samples in this run"
            return MetricValue(
                self.name, None, 0, len(mine), None, self.unit, self.higher_is_better, 0, None, note
            )
        estimate = stats.mean(terms.values, terms.clusters, bounded=True)
        return MetricValue(
            name=self.name,
            value=estimate.value,
            n=estimate.n,
            unscored=len(mine) - len(terms.values),
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

    def terms(self, rows: Sequence[ScoreRow]) -> Terms | None:
        terms = self._terms(rows)
        return terms if terms is not None and not self._missing(terms) else None

    def _terms(self, rows: Sequence[ScoreRow]) -> Terms | None:
        mine = [r for r in rows if r.group in self.groups]
        return _terms(mine, self.detail, with_strata=True)

    def _missing(self, terms: Terms | None) -> list[str]:
        present = set(terms.strata or ()) if terms is not None else set()
        return [g for g in self.groups if g not in present]

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        from evals import stats

        terms = self._terms(rows)
        n = 0 if terms is None else len(terms.values)
        unscored = sum(r.group in self.groups for r in rows) - n
        missing = self._missing(terms)
        if terms is None or missing:
            return MetricValue(
                self.name,
                None,
                n,
                unscored,
                unit=self.unit,
                higher_is_better=self.higher_is_better,
                note=f"not given: no scores for {', '.join(missing)}",
            )
        assert terms.strata is not None
        estimate = stats.mean_of_strata(terms.values, terms.strata, terms.clusters, bounded=True)
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


def _terms(
    rows: Sequence[ScoreRow], detail: str | None, with_strata: bool = False
) -> Terms | None:
    """The rows that have a value, one term each; None without any."""
    found = [(v, r) for r in rows if (v := value_of(r, detail)) is not None]
    if not found:
        return None
    return Terms(
        keys=tuple((r.sample_id, r.index) for _, r in found),
        values=tuple(v for v, _ in found),
        clusters=tuple(r.sample_id for _, r in found),
        strata=tuple(r.group for _, r in found) if with_strata else None,
    )
