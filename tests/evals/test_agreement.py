"""Agreement of judge and labels: against scikit-learn and statsmodels, weights, clusters, the edges."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from evals.agreement import Pair, by_group, cohens_kappa, overall


def some_pairs(n: int, seed: int, groups: int = 2, clusters: int = 40, agree: float = 0.8) -> list[Pair]:
    rng = random.Random(seed)
    out = []
    for i in range(n):
        label = rng.random() < 0.4
        verdict = label if rng.random() < agree else not label
        group = i % groups
        out.append(Pair(f"g{group}", f"{group}-{i % clusters}", label, verdict, rng.uniform(0.5, 5)))
    return out


def unweighted(pairs: list[Pair]) -> list[Pair]:
    return [Pair(p.group, p.cluster, p.label, p.verdict) for p in pairs]


@pytest.mark.parametrize("seed", range(5))
def test_kappa_equals_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    pairs = some_pairs(60, seed, groups=1)
    labels, verdicts = [p.label for p in pairs], [p.verdict for p in pairs]
    plain = metrics.cohen_kappa_score(labels, verdicts)
    weighted = metrics.cohen_kappa_score(labels, verdicts, sample_weight=[p.weight for p in pairs])
    assert overall(unweighted(pairs)).kappa.value == pytest.approx(plain, abs=1e-12)
    assert overall(pairs).kappa.value == pytest.approx(weighted, abs=1e-12)


def test_kappa_equals_statsmodels():
    rater = pytest.importorskip("statsmodels.stats.inter_rater")
    for table in ([[20, 5], [10, 15]], [[1, 2], [3, 94]], [[0, 7], [9, 0]]):
        theirs = rater.cohens_kappa(np.array(table), return_results=False)
        assert cohens_kappa(np.array(table).ravel()) == pytest.approx(theirs, abs=1e-12)


def test_kappa_has_no_value_where_chance_alone_always_agrees():
    assert math.isnan(cohens_kappa(np.array([0, 0, 0, 30])))
    assert math.isnan(overall([Pair("a", str(i), True, True) for i in range(12)]).kappa.value)


def test_figures_of_a_table_by_hand():
    cells = [(True, True)] * 6 + [(False, True)] * 3 + [(True, False)] * 1 + [(False, False)] * 10
    a = overall([Pair("a", str(i), label, verdict) for i, (label, verdict) in enumerate(cells)])
    assert a.confusion == {"both": 6, "alarm": 3, "missed": 1, "neither": 10}
    assert (a.n, a.prompts) == (20, 20)
    assert a.agreement.value == pytest.approx(0.8)
    assert a.bias.value == pytest.approx(0.1)
    assert a.judge_rate == pytest.approx(0.45) and a.label_rate == pytest.approx(0.35)
    assert a.false_yes == pytest.approx(3 / 13) and a.false_no == pytest.approx(1 / 7)
    assert a.agreement.lo < 0.8 < a.agreement.hi and a.bias.lo < 0.1 < a.bias.hi


def test_weights_undo_sampling_by_verdict():
    """All yes verdicts and a tenth of the no verdicts were labelled: weighted, the rates are those of all pictures."""
    rng = random.Random(1)
    population = []
    for i in range(4000):
        label = rng.random() < 0.1
        verdict = label if rng.random() < 0.9 else not label
        population.append(Pair("a", str(i), label, verdict))
    yes = [p for p in population if p.verdict]
    no = [p for p in population if not p.verdict]
    drawn = yes + [Pair(p.group, p.cluster, p.label, p.verdict, len(no) / 400) for p in rng.sample(no, 400)]
    true, found = overall(population), overall(drawn)
    assert found.judge_rate == pytest.approx(true.judge_rate, abs=1e-9)
    assert found.bias.lo < true.bias.value < found.bias.hi
    assert abs(found.label_rate - true.label_rate) < 0.02
    naive = overall([Pair(p.group, p.cluster, p.label, p.verdict) for p in drawn])
    assert abs(naive.bias.value - true.bias.value) > 0.1


def test_overall_gives_groups_the_same_weight():
    pairs = [Pair("small", str(i), True, False) for i in range(10)]
    pairs += [Pair("large", f"l{i}", True, True) for i in range(90)]
    a = overall(pairs)
    assert a.agreement.value == pytest.approx(0.5) and a.bias.value == pytest.approx(-0.5)
    assert {k: v.agreement.value for k, v in by_group(pairs).items()} == {"small": 0.0, "large": 1.0}


def test_the_order_of_pictures_does_not_matter():
    pairs = some_pairs(80, 3)
    shuffled = random.Random(0).sample(pairs, len(pairs))
    assert overall(pairs) == overall(shuffled)


def test_pictures_of_one_prompt_widen_the_interval():
    alone = overall(unweighted(some_pairs(120, 5, groups=1, clusters=120)))
    few = unweighted(some_pairs(30, 5, groups=1, clusters=30))
    repeated = overall([Pair("a", str(i), p.label, p.verdict) for i, p in enumerate(few) for _ in range(4)])
    width = lambda f: f.hi - f.lo  # noqa: E731
    assert repeated.n == alone.n == 120
    assert width(repeated.agreement) > 1.5 * width(alone.agreement)
    assert width(repeated.bias) > 1.5 * width(alone.bias)


def test_full_agreement_has_honest_limits():
    a = overall([Pair("a", str(i), i % 2 == 0, i % 2 == 0) for i in range(50)])
    assert (a.agreement.value, a.bias.value, a.kappa.value) == (1.0, 0.0, 1.0)
    assert 0.9 < a.agreement.lo < 0.95 and a.agreement.hi == 1
    assert a.bias.lo == -a.bias.hi < -0.05
    assert math.isnan(a.kappa.lo)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_handful_of_pictures_has_wide_limits(n):
    a = overall([Pair("a", str(i), True, i > 0) for i in range(n)])
    assert a.agreement.hi - a.agreement.lo > 0.4
    assert -1 <= a.bias.lo <= a.bias.value <= a.bias.hi <= 1


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueError, match="no labelled pictures"):
        overall([])


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """200 draws of 60 prompts x 2 pictures: the true agreement and bias lie inside in at least 90 %."""
    hits = {"agreement": 0, "bias": 0, "kappa": 0}
    rng = np.random.default_rng(0)
    p = np.array([0.3, 0.12, 0.06, 0.52])  # both, alarm, missed, neither
    truth = {"agreement": 0.82, "bias": 0.06, "kappa": float(cohens_kappa(p))}
    cells = [(True, True), (False, True), (True, False), (False, False)]
    for _ in range(200):
        pairs = []
        for prompt in range(60):
            first = rng.choice(4, p=p)
            for _ in range(2):  # half of the pictures repeat the first of their prompt
                cell = first if rng.random() < 0.5 else rng.choice(4, p=p)
                pairs.append(Pair("a", str(prompt), *cells[cell]))
        found = overall(pairs)
        for name, value in truth.items():
            figure = getattr(found, name)
            hits[name] += figure.lo <= value <= figure.hi
    assert all(count >= 180 for count in hits.values()), hits
