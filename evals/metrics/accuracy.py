"""Mean score of a group, and the plain mean of group means, with intervals over samples.

Scores of one sample (four pictures of one prompt) are correlated, so the sample is the unit that
intervals resample. Unscored rows are left out and counted.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

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

    @property
    def groups(self) -> tuple[str, ...]:
        """What it averages by name; empty for the mean of all."""
        return () if self.group is None else (self.group,)

    def terms(self, rows: Sequence[ScoreRow]) -> Terms | None:
        mine = [r for r in rows if self.group is None or r.group == self.group]
        return _terms(mine, self.detail)

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        from evals import stats

        found = _collect(rows, self.groups or None, self.detail)
        if not found.values:
            note = "nothing was scored" if found.rows else "no samples in this run"
            return MetricValue(
                self.name, None, 0, found.rows, None, self.unit, self.higher_is_better, 0, None, note
            )
        estimate = stats.mean(found.values, found.clusters, bounded=True)
        return MetricValue(
            name=self.name,
            value=estimate.value,
            n=estimate.n,
            unscored=found.rows - len(found.values),
            ci95=estimate.ci,
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
        terms = _terms([r for r in rows if r.group in self.groups], self.detail, with_strata=True)
        is_whole = terms is not None and set(terms.strata or ()) >= set(self.groups)
        return terms if is_whole else None

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        from evals import stats

        found = _collect(rows, self.groups, self.detail)
        n, present = len(found.values), set(found.strata)
        unscored = found.rows - n
        missing = [g for number, g in enumerate(self.groups) if number not in present]
        if missing or not found.values:
            return MetricValue(
                self.name,
                None,
                n,
                unscored,
                unit=self.unit,
                higher_is_better=self.higher_is_better,
                note=f"not given: no scores for {', '.join(missing)}",
            )
        estimate = stats.mean_of_strata(found.values, found.strata, found.clusters, bounded=True)
        return MetricValue(
            name=self.name,
            value=estimate.value,
            n=estimate.n,
            unscored=unscored,
            ci95=estimate.ci,
            unit=self.unit,
            higher_is_better=self.higher_is_better,
            clusters=estimate.n_clusters,
            method=estimate.method,
        )


@dataclass
class _Found:
    """The scored rows of some groups, as numbers: 20 bytes a row, for runs of millions."""

    rows: int = 0
    values: array = field(default_factory=lambda: array("d"))
    # The 64-bit hash of the sample id: in a million samples two agree with a chance of 3e-8.
    clusters: array = field(default_factory=lambda: array("q"))
    strata: array = field(default_factory=lambda: array("i"))  # index into the groups


def _collect(
    rows: Iterable[ScoreRow], groups: Collection[str] | None, detail: str | None
) -> _Found:
    """One pass over the rows of ``groups`` (None: of all)."""
    found = _Found()
    numbers = {group: number for number, group in enumerate(groups or ())}
    for row in rows:
        if groups is not None and row.group not in numbers:
            continue
        found.rows += 1
        value = value_of(row, detail)
        if value is not None:
            found.values.append(value)
            found.clusters.append(hash(row.sample_id))
            found.strata.append(numbers.get(row.group, 0))
    return found


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
