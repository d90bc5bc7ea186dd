"""CHAIR and object recall over descriptions, and what the same descriptions score against other pictures.

Rows carry `mentions` (the classes a description names, once per mention), `shown` (those in the picture) and
`picture` in their details.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from evals.api import MetricValue, ScoreRow, Terms
from tasks.understanding.metrics import to_value, unscored


def f1(mentions: Sequence[str], shown: Sequence[str]) -> float:
    """2 |named and shown| / (|named| + |shown|) over classes; 0 when nothing is named."""
    named, there = set(mentions), set(shown)
    return 2 * len(named & there) / (len(named) + len(there))


def recall(mentions: Sequence[str], shown: Sequence[str]) -> tuple[int, int]:
    """(objects named, objects shown)."""
    named = set(mentions)
    return sum(name in named for name in shown), len(shown)


def mentions_share(mentions: Sequence[str], shown: Sequence[str]) -> tuple[int, int]:
    """(mentions of what is not there, mentions)."""
    there = set(shown)
    return sum(name not in there for name in mentions), len(mentions)


@dataclass(frozen=True)
class ObjectRecall:
    """The share of the pictures' objects that are named; intervals resample pictures."""

    name: str
    unit: str = "fraction"
    higher_is_better: bool = True

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        from evals import stats

        terms = self.terms(rows)
        estimate = stats.mean(terms.values, terms.clusters, bounded=True)
        return to_value(self.name, estimate, unscored(rows))

    def terms(self, rows: Sequence[ScoreRow]) -> Terms:
        """One term per object shown."""
        found = [
            ((row.sample_id, row.index, name), float(name in row.score.details["mentions"]))
            for row in rows
            if row.score.is_scored
            for name in row.score.details["shown"]
        ]
        return Terms(
            keys=tuple(key for key, _ in found),
            values=tuple(value for _, value in found),
            clusters=tuple(key[0] for key, _ in found),
        )


@dataclass(frozen=True)
class ChairMentions:
    """CHAIR_i: the share of mentions whose object is not in the picture; intervals resample pictures.

    Descriptions differ in their mentions, so two runs have no terms in common: they are paired by `chair_s`.
    """

    name: str
    unit: str = "fraction"
    higher_is_better: bool = False

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        from evals import stats

        found = [
            (float(name not in row.score.details["shown"]), row.sample_id)
            for row in rows
            if row.score.is_scored
            for name in row.score.details["mentions"]
        ]
        estimate = stats.mean([v for v, _ in found], [c for _, c in found], bounded=True)
        return to_value(self.name, estimate, unscored(rows), higher_is_better=False)


@dataclass(frozen=True)
class ChanceOf:
    """A figure of the same descriptions, each scored against every other picture of the run instead of its own.

    `of` maps (mentions, shown) to a number, which is averaged, or to a numerator and a denominator, which are summed.
    """

    name: str
    of: Callable[[Sequence[str], Sequence[str]], Any]
    unit: str = "fraction"
    higher_is_better: bool = True

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        found = [row.score.details for row in rows if row.score.is_scored]
        upper, lower = 0.0, 0.0
        for said in found:
            for other in found:
                if other["picture"] != said["picture"]:
                    value = self.of(said["mentions"], other["shown"])
                    part = value if isinstance(value, tuple) else (value, 1)
                    upper, lower = upper + part[0], lower + part[1]
        return MetricValue(
            name=self.name,
            value=upper / lower if lower else None,
            n=len(found) if lower else 0,
            unscored=unscored(rows),
            unit=self.unit,
            higher_is_better=self.higher_is_better,
            clusters=len(found),
            note=None if lower else "needs mentions and at least two pictures",
        )
