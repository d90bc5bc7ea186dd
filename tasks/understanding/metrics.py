"""Figures over the scores of questions.

Rows without a score (errors) are left out and counted. Details that the figures read are named where
they are used; `unparsed` is true for an answer in which nothing of the asked kind was found.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evals.api import Metric, MetricValue, ScoreRow, Terms

if TYPE_CHECKING:
    from evals.stats import Estimate

Value = Callable[[ScoreRow], float | None]
"""A row's number between 0 and 1, or None for rows that do not count."""


def score_value(row: ScoreRow) -> float | None:
    return row.score.value


def unparsed(row: ScoreRow) -> float | None:
    return float(row.score.details["unparsed"]) if row.score.is_scored else None


def in_group(group: str) -> Value:
    """The score of rows of one group."""
    return lambda row: row.score.value if row.group == group else None


@dataclass(frozen=True)
class Mean:
    """The mean of `value` over all rows that have one.

    `cluster`: the key in details of what rows are independent of each other by (the picture of
    several questions); without it every row stands alone.
    """

    name: str
    value_of: Value = score_value
    cluster: str | None = None
    unit: str = "fraction"
    higher_is_better: bool = True

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        from evals import stats

        terms = self.terms(rows)
        estimate = stats.mean(terms.values, terms.clusters, bounded=True)
        return to_value(self.name, estimate, unscored(rows), self.unit, self.higher_is_better)

    def terms(self, rows: Sequence[ScoreRow]) -> Terms:
        found = [(v, r) for r in rows if (v := self.value_of(r)) is not None]
        return Terms(
            keys=tuple((r.sample_id, r.index) for _, r in found),
            values=tuple(v for v, _ in found),
            clusters=tuple(self._cluster(r) for _, r in found),
        )

    def _cluster(self, row: ScoreRow) -> Hashable:
        return row.score.details[self.cluster] if self.cluster else row.sample_id


def unparsed_share() -> Mean:
    """The share of answers in which nothing of the asked kind was found; they count as wrong."""
    return Mean("unparsed", unparsed, higher_is_better=False)


def unscored(rows: Sequence[ScoreRow]) -> int:
    return sum(not row.score.is_scored for row in rows)


def to_value(
    name: str,
    estimate: Estimate,
    unscored: int,
    unit: str = "fraction",
    higher_is_better: bool = True,
    scale: float = 1.0,
) -> MetricValue:
    """An estimate as a figure, times `scale`."""
    if not estimate.n:
        return MetricValue(
            name, None, 0, unscored, None, unit, higher_is_better, 0, None, "nothing was scored"
        )
    ci = estimate.ci
    return MetricValue(
        name=name,
        value=scale * estimate.value,
        n=estimate.n,
        unscored=unscored,
        ci95=None if ci is None else (scale * ci[0], scale * ci[1]),
        unit=unit,
        higher_is_better=higher_is_better,
        clusters=estimate.n_clusters,
        method=estimate.method,
    )


def accuracy_by_group(groups: Sequence[str]) -> list[Metric]:
    """The mean over all, over each group, and the share of answers that could not be read."""
    return [
        Mean("accuracy"),
        *(Mean(group, in_group(group)) for group in groups),
        unparsed_share(),
    ]
