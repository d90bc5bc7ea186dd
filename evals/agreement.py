"""How far a judge agrees with labels: agreement, Cohen's kappa, bias, confusion, with intervals over prompts.

Labels say which verdict is right; where they come from is `evals.labels`' business. Every figure is a function of four
shares, in this order everywhere:

    both      judge yes, label yes        missed   judge no, label yes
    alarm     judge yes, label no         neither  judge no, label no

Pictures may carry weights (inverse sampling probabilities), so that labels drawn evenly over verdicts still estimate
what holds for all pictures. `overall` gives each group the same weight, as GenEval's overall does: its bias is what the
judge adds to that figure.

Intervals resample prompts within their group, one fewer than there are, with expanded percentiles (`evals.stats`).
Agreement below 0.1 or above 0.9, or of fewer than 10 prompts, takes Wilson's interval at Kish's effective sample size.
Where next to no pictures differ a bootstrap sees nothing: the bias is then bounded by the disagreement that could have
been missed, and kappa has no interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evals.stats.clusters import MIN_BOOTSTRAP_CLUSTERS, expanded_percentiles
from evals.stats.shares import wilson

N_RESAMPLES = 4000
EDGE = 0.1  # as in evals.stats: shares nearer than this to 0 or 1 get Wilson's interval
MIN_DIFFERING = 1.5  # fewer pictures that agree (or that differ), in effective numbers, cannot be resampled
NAMES = ("both", "alarm", "missed", "neither")


@dataclass(frozen=True, slots=True)
class Pair:
    """One labelled picture and the judge's verdict on it. `cluster` is its prompt."""

    group: str
    cluster: str
    label: bool
    verdict: bool
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Figure:
    """A value and its 95 % interval; NaN where there is none."""

    value: float
    lo: float
    hi: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """Judge against labels over one group, or over all (`overall`).

    `agreement` share of equal verdicts; `kappa` Cohen's; `bias` the judge's rate of yes minus the labels';
    `false_yes` share of yes among what is labelled wrong, `false_no` of no among what is labelled right (NaN without
    such pictures). `confusion` counts pictures, unweighted. Fractions throughout.
    """

    n: int
    prompts: int
    label_rate: float
    judge_rate: float
    agreement: Figure
    kappa: Figure
    bias: Figure
    false_yes: float
    false_no: float
    confusion: Mapping[str, int]


def cohens_kappa(shares: np.ndarray) -> np.ndarray:
    """Kappa from shares or counts (..., 4) in the order of NAMES; NaN where chance alone agrees always.

    (observed - expected) / (1 - expected), Cohen 1960. Equals scikit-learn's `cohen_kappa_score`, weights included.
    """
    shares = np.asarray(shares, dtype=np.float64)
    total = shares.sum(-1)
    both, alarm, missed, neither = np.moveaxis(shares, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = (both + neither) / total
        yes = (both + alarm) * (both + missed)
        no = (missed + neither) * (alarm + neither)
        expected = (yes + no) / total**2
        return np.where(expected < 1 - 1e-12, (observed - expected) / (1 - expected), np.nan)


def by_group(pairs: Sequence[Pair]) -> dict[str, Agreement]:
    """One `Agreement` per group, in order of first appearance."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.group, []).append(pair)
    return {name: _summary([mine]) for name, mine in groups.items()}


def overall(pairs: Sequence[Pair]) -> Agreement:
    """Over all groups, each with the same weight. Raises ValueError for no pairs."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.group, []).append(pair)
    return _summary(list(groups.values()))


def _summary(groups: Sequence[Sequence[Pair]]) -> Agreement:
    """Figures of equally weighted groups."""
    if not groups:
        raise ValueError("no labelled pictures")
    tables = [_cluster_table(group) for group in groups]
    shares = _mean_shares([table.sum(0, keepdims=True) for table in tables])[0]
    both, alarm, missed, neither = shares
    draws = _resample(tables)
    dof = sum(len(table) - 1 for table in tables)
    n_effective = _effective_size(groups)
    equal = both + neither
    rarer = min(equal, 1 - equal)
    kappa = float(cohens_kappa(shares))
    kappa_limits = (math.nan, math.nan)
    if draws is None or rarer < EDGE:
        agreement_limits = wilson(min(equal, 1.0) * n_effective, n_effective)
    else:
        agreement_limits = _percentiles(draws[:, 0] + draws[:, 3], dof)
    if draws is None or rarer * n_effective < MIN_DIFFERING:
        slack = 1 - agreement_limits[0]
        bias_limits = max(-1.0, alarm - missed - slack), min(1.0, alarm - missed + slack)
    else:
        bias_limits = _percentiles(draws[:, 1] - draws[:, 2], dof)
        drawn = cohens_kappa(draws)
        if np.isfinite(drawn).mean() > 0.9 and not math.isnan(kappa):
            kappa_limits = _percentiles(drawn[np.isfinite(drawn)], dof)
    everything = [pair for group in groups for pair in group]
    return Agreement(
        n=len(everything),
        prompts=sum(len(table) for table in tables),
        label_rate=both + missed,
        judge_rate=both + alarm,
        agreement=Figure(equal, *agreement_limits),
        kappa=Figure(kappa, *kappa_limits),
        bias=Figure(alarm - missed, *bias_limits),
        false_yes=_ratio(alarm, alarm + neither),
        false_no=_ratio(missed, both + missed),
        confusion={
            name: sum(_cell(pair) == k for pair in everything) for k, name in enumerate(NAMES)
        },
    )


def _cell(pair: Pair) -> int:
    return (0 if pair.verdict else 2) if pair.label else (1 if pair.verdict else 3)


def _cluster_table(group: Sequence[Pair]) -> np.ndarray:
    """(prompts, 4) summed weights, sorted by content so that the order of pictures cannot matter."""
    rows: dict[str, np.ndarray] = {}
    for pair in sorted(group, key=lambda p: (p.cluster, _cell(p), p.weight)):
        rows.setdefault(pair.cluster, np.zeros(4))[_cell(pair)] += pair.weight
    table = np.stack(list(rows.values()))
    return table[np.lexsort(table.T)]


def _mean_shares(sums: Sequence[np.ndarray]) -> np.ndarray:
    """Groups' weight sums (R, 4) -> mean over groups of their shares (R, 4)."""
    return np.mean([s / s.sum(-1, keepdims=True) for s in sums], axis=0)


def _resample(tables: Sequence[np.ndarray]) -> np.ndarray | None:
    """(N_RESAMPLES, 4) shares of resampled prompts; None when there are too few prompts to resample."""
    if any(len(table) < 2 for table in tables) or (
        sum(len(table) for table in tables) < MIN_BOOTSTRAP_CLUSTERS
    ):
        return None
    rng = np.random.default_rng([0])
    sums = []
    for table in sorted(tables, key=lambda t: (len(t), t.tolist())):
        n = len(table)
        # Prompts that look alike are interchangeable: a resample is a draw over their kinds.
        kinds, frequency = np.unique(table, axis=0, return_counts=True)
        times = rng.multinomial(n - 1, frequency / n, size=N_RESAMPLES)  # Rao and Wu
        sums.append(times @ kinds)
    return _mean_shares(sums)


def _percentiles(draws: np.ndarray, dof: int) -> tuple[float, float]:
    return expanded_percentiles(draws, 0.95, max(dof, 1))


def _effective_size(groups: Sequence[Sequence[Pair]]) -> float:
    """Kish's (sum w)^2 / sum w^2 over prompts, each group's weights scaled to the same sum."""
    squares = 0.0
    for group in groups:
        by_prompt: dict[str, float] = {}
        for pair in group:
            by_prompt[pair.cluster] = by_prompt.get(pair.cluster, 0.0) + pair.weight
        total = math.fsum(by_prompt.values())
        squares += math.fsum((w / total) ** 2 for w in by_prompt.values())
    return len(groups) ** 2 / squares


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
