"""Figures of WISE over a run's scores: the overall by the protocol's weights, given only where nothing is missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from evals.api import MetricValue, ScoreRow, Terms
from tasks.generation.wise_rules import NUM_PROMPTS, Group, weighted

_SHOWN = 5


@dataclass(frozen=True)
class WeightedMean:
    """Each group's mean at its weight, over the pictures that have a score; every group needs one.

    The interval combines those of the groups (MOVER: Zou and Donner 2008, doi:10.1002/sim.3095), in which prompts
    are resampled.
    """

    name: str
    groups: tuple[Group, ...]
    unit: str = "fraction"
    higher_is_better: bool = True

    def terms(self, rows: Sequence[ScoreRow]) -> Terms | None:
        """Values at their weights over the largest, so that the plain mean of the groups' means, scaled, is ours."""
        scored = self._scored(rows)
        if self._absent(scored):
            return None
        largest = max(group.weight for group in self.groups)
        weights = {group.name: group.weight / largest for group in self.groups}
        return Terms(
            keys=tuple((row.sample_id, row.index) for row in scored),
            values=tuple(weights[row.group] * float(row.score.value or 0.0) for row in scored),
            clusters=tuple(row.sample_id for row in scored),
            strata=tuple(row.group for row in scored),
            scale=largest * len(self.groups),
            is_bounded=False,  # within 0 and 1, but no shares: `power` takes their variance for one of shares
        )

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        from evals import stats

        scored = self._scored(rows)
        n, unscored = len(scored), len(rows) - len(scored)
        if absent := self._absent(scored):
            note = f"not given: no scores for {', '.join(absent)}"
            return MetricValue(self.name, None, n, unscored, unit=self.unit, clusters=0, note=note)
        found = stats.by_stratum(
            [float(row.score.value or 0.0) for row in scored],
            [row.group for row in scored],
            [row.sample_id for row in scored],
            bounded=True,
        )
        value = weighted(self.groups, {group.name: found[group.name].value for group in self.groups})
        parts = [(group.weight, found[group.name]) for group in self.groups]
        below = math.sqrt(math.fsum((weight * (one.value - one.lo)) ** 2 for weight, one in parts))
        above = math.sqrt(math.fsum((weight * (one.hi - one.value)) ** 2 for weight, one in parts))
        return MetricValue(
            name=self.name,
            value=value,
            n=n,
            unscored=unscored,
            ci95=(max(0.0, value - below), min(1.0, value + above)),
            unit=self.unit,
            clusters=sum(one.n_clusters for one in found.values()),
            method="groups",
        )

    def _scored(self, rows: Sequence[ScoreRow]) -> list[ScoreRow]:
        names = {group.name for group in self.groups}
        return [row for row in rows if row.group in names and row.score.value is not None]

    def _absent(self, scored: Sequence[ScoreRow]) -> list[str]:
        present = {row.group for row in scored}
        return [group.name for group in self.groups if group.name not in present]


@dataclass(frozen=True)
class Overall(WeightedMean):
    """The same, refused as by upstream where a prompt has no score: the files lack it, or the judge gave none.

    ``missing``: numbers of the protocol's prompts that the user's files lack. A run with ``--limit`` has its figure
    over the prompts that it took, and is marked partial.
    """

    missing: Callable[[], Sequence[int]] = tuple

    def terms(self, rows: Sequence[ScoreRow]) -> Terms | None:
        return None if self._refusal(rows) else super().terms(rows)

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        value = super().compute(rows)
        refusal = self._refusal(rows)
        if value.value is None or refusal is None:
            return value
        return replace(value, value=None, ci95=None, clusters=None, method=None, note=refusal)

    def _refusal(self, rows: Sequence[ScoreRow]) -> str | None:
        without = [row.sample_id for row in rows if row.score.value is None]
        if without:
            return f"not given: {len(without):,} of {len(rows):,} pictures have no score (prompts {_some(without)})"
        lacking = self.missing()
        if lacking:
            held = NUM_PROMPTS - len(lacking)
            return f"not given: the files hold {held:,} of the {NUM_PROMPTS:,} prompts (without {_some(lacking)})"
        return None


def _some(names: Sequence[object]) -> str:
    different = list(dict.fromkeys(names))
    shown = ", ".join(map(str, different[:_SHOWN]))
    return shown if len(different) <= _SHOWN else f"{shown} and {len(different) - _SHOWN:,} more"
