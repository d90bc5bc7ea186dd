"""Figures of DPG-Bench over a run's scores: the overall of a mode, and shares per category."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evals.api import Metric, MetricValue, ScoreRow, Terms
from tasks.generation import dpg_rules as rules

COMPLETE = 0.95
"""Share of the pictures that must have a score before a run has an overall."""


@dataclass(frozen=True)
class Figure:
    """The mean over prompts of the mean over their pictures, by the rules of one mode.

    A prompt with a picture that has no score is left out, as both modes do. With more than 5 % of the pictures
    unscored there is no figure: what is left would be another set of prompts. Intervals resample prompts.
    """

    name: str
    task: Any  # has `rows`
    mode: Callable[..., rules.Scores]
    unit: str = "percent"
    higher_is_better: bool = True

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        value = _percent(self, self._terms(rows), len(rows))
        unscored = sum(row.score.value is None for row in rows)
        if value.value is not None and len(rows) - unscored < COMPLETE * len(rows):
            note = (
                f"not given: {unscored} of {len(rows)} pictures have no score, at most "
                f"{1 - COMPLETE:.0%} may"
            )
            return replace(value, value=None, ci95=None, note=note)
        return value

    def terms(self, rows: Sequence[ScoreRow]) -> Terms | None:
        return None if self.compute(rows).value is None else self._terms(rows)

    def _terms(self, rows: Sequence[ScoreRow]) -> Terms:
        return _terms(
            ((name, number), value)
            for name, one in _rescore(self, rows).images.items()
            for number, value in enumerate(one.crop_scores)
        )


@dataclass(frozen=True)
class Category:
    """The share of a level 1 category's questions answered "yes", over the pictures that the mode counts."""

    name: str
    task: Any
    mode: Callable[..., rules.Scores]
    category: str
    unit: str = "percent"
    higher_is_better: bool = True

    def matches(self, category: str) -> bool:
        return rules.level_1_of(category) == self.category

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        unscored = sum(row.score.value is None for row in rows)
        return replace(_percent(self, self.terms(rows), 0), unscored=unscored)

    def terms(self, rows: Sequence[ScoreRow]) -> Terms:
        """One value per question and picture."""
        return _terms(
            ((one.item_id, one.picture, one.proposition_id), one.value)
            for one in _rescore(self, rows).counted
            if self.matches(one.category)
        )


@dataclass(frozen=True)
class Subcategory(Category):
    """The same for a level 2 category, such as "attribute - color"."""

    def matches(self, category: str) -> bool:
        return category == self.category


def _rescore(metric: Any, rows: Sequence[ScoreRow]) -> rules.Scores:
    """The figures of a mode; the last rows' are kept with the task, as some thirty metrics ask for them in turn."""
    kept: dict[Any, tuple[Sequence[ScoreRow], rules.Scores]] = metric.task.__dict__.setdefault("_rescored", {})
    if metric.mode in kept and kept[metric.mode][0] is rows:
        return kept[metric.mode][1]
    scores = _scores_of(metric, rows)
    kept[metric.mode] = (rows, scores)
    return scores


def _scores_of(metric: Any, rows: Iterable[ScoreRow]) -> rules.Scores:
    answers: dict[str, list[Mapping[int, str | None]]] = {}
    for row in rows:
        found = row.score.details.get("answers", {})
        answers.setdefault(row.sample_id, []).append({int(pid): t for pid, t in found.items()})
    pic_num = max(map(len, answers.values()), default=0)
    return metric.mode(metric.task.rows, pic_num, list(answers), answers)


def _terms(found: Iterable[tuple[tuple[Any, ...], float]]) -> Terms:
    """Values with their keys, which begin with the prompt's id; in percent."""
    pairs = list(found)
    return Terms(
        keys=tuple(key for key, _ in pairs),
        values=tuple(value for _, value in pairs),
        clusters=tuple(key[0] for key, _ in pairs),
        scale=100.0,
    )


def _percent(metric: Metric, terms: Terms, total: int) -> MetricValue:
    from evals import stats

    if not terms.values:
        return MetricValue(
            metric.name, None, 0, total, unit=metric.unit, clusters=0, note="nothing was scored"
        )
    estimate = stats.mean(terms.values, terms.clusters, bounded=True)
    return MetricValue(
        name=metric.name,
        value=100 * estimate.value,
        n=estimate.n,
        unscored=max(0, total - estimate.n),
        ci95=None if estimate.ci is None else (100 * estimate.ci[0], 100 * estimate.ci[1]),
        unit=metric.unit,
        clusters=estimate.n_clusters,
        method=estimate.method,
    )
