"""What a metric says it averages is what it computes, for the metrics of every task that has `terms`."""

from __future__ import annotations

import math
import random

import pytest

from evals.api import PairedMetric, Score, ScoreRow
from evals.metrics.accuracy import GroupMean, MeanOfGroups
from tasks.generation.geneval import TAGS, GenEval
from tasks.generation.wise_metrics import WeightedMean
from tasks.generation.wise_rules import LEGACY
from tasks.understanding.metrics import Mean, in_group
from tasks.understanding.mmbench import COPIES_FROM, CircularAccuracy
from tasks.understanding.mme import Points

RNG = random.Random(0)


def scores(groups, details=lambda n: {}, ids=lambda g, n: f"{g}-{n // 4}", n=24):
    """Rows of several groups, some of them without a score."""
    rows = []
    for group in groups:
        for number in range(n):
            score = Score(float(RNG.random() < 0.6), details=details(number))
            if RNG.random() < 0.1:
                score = Score.unscored("judge failed", **details(number))
            rows.append(ScoreRow(ids(group, number), number % 4, group, score))
    return rows


def half(number):
    return {"held_out": number % 8 < 4, "pixel_color_correct": number % 3 == 0}


CASES = [
    *((metric, scores(TAGS, half)) for metric in GenEval().metrics()),
    (GroupMean(None, "all"), scores("ab")),
    (WeightedMean("overall_of_scored", LEGACY.groups), scores(tuple(g.name for g in LEGACY.groups))),
    (MeanOfGroups(("a", "b")), scores("ab")),
    (Mean("accuracy"), scores("ab")),
    (Mean("a", in_group("a"), cluster="image"), scores("ab", lambda n: {"image": n // 3})),
    (Points("perception", ("a", "b")), scores("abc", lambda n: {"pair": n // 2})),
    (
        CircularAccuracy(),
        [
            row
            for k in range(4)
            for row in scores("q", ids=lambda g, n, k=k: str(n + k * COPIES_FROM))
        ],
    ),
]


@pytest.mark.parametrize(("metric", "rows"), CASES, ids=lambda v: getattr(v, "name", ""))
def test_the_value_is_scale_times_the_mean_of_the_terms(metric, rows) -> None:
    assert isinstance(metric, PairedMetric)
    terms, value = metric.terms(rows), metric.compute(rows)
    groups: dict[object, list[float]] = {}
    for stratum, number in zip(terms.strata or [""] * len(terms.values), terms.values, strict=True):
        groups.setdefault(stratum, []).append(number)
    mean = math.fsum(math.fsum(v) / len(v) for v in groups.values()) / len(groups)
    assert value.value == pytest.approx(terms.scale * mean)
    assert len(set(terms.keys)) == len(terms.keys) == len(terms.clusters)
    assert len(set(terms.clusters)) == value.clusters
    assert all(0 <= number <= 1 for number in terms.values)


def test_metrics_without_a_value_have_no_terms() -> None:
    rows = scores(TAGS[:5])
    assert GenEval().metrics()[0].terms(rows) is None
    assert GroupMean("a", "a").terms([]) is None
    assert MeanOfGroups(("a",)).terms([]) is None
