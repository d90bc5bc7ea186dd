"""Intervals, paired comparisons and power for scores that come in clusters.

The pictures of one prompt resemble each other, and so do the questions about one image; only the prompts (or
image pairs, or questions) are independent. Everything here takes one value per sample and the cluster each
belongs to, and treats clusters as the unit of independence. Strata are the fixed groups of a benchmark (GenEval's
six tags): clusters are resampled within their stratum, never across.

How the interval of a mean is chosen (`Estimate.method` says which was used):

=====================================================  =====================================================
case                                                    method
=====================================================  =====================================================
no values                                               `empty`: value and bounds are NaN
values in [0, 1], mean below 0.1 or above 0.9,          `wilson`: Wilson's score interval at the effective
or fewer than 10 clusters                               sample size n / (1 + (m - 1) icc)
a single cluster of unbounded values                    `none`: a value without bounds (NaN)
unbounded values, 2 to 9 clusters                       `t`: cluster-robust standard error, Student's t
more than 5,000 clusters that all differ                `t` (the bootstrap would only repeat it, slowly)
otherwise                                               `bootstrap`: cluster bootstrap, expanded percentiles
=====================================================  =====================================================

The mean of stratum means (GenEval's overall) uses the stratified bootstrap; with fewer than 5 clusters in a stratum,
or fewer than 8 clusters' worth of right or of wrong answers in all, it combines the Wilson limits of its strata
(`mover`, Zou and Donner 2008, doi:10.1002/sim.3095).

Percentile bootstraps are too narrow for two known reasons, and both are corrected: each stratum draws one cluster
fewer than it has (Rao and Wu 1988, which makes the variance unbiased), and the percentiles are moved outwards to
where Student's t would put them (Hesterberg 2015, arXiv:1411.5279, section 5.3). Everything is deterministic: same
values, same seed, same interval, in whatever order the samples arrive.

This module is the door; the parts are `stats_clusters` (resampling), `stats_shares` (near 0 and 1), `stats_paired`
(comparisons) and `stats_power` (planning).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from evals.stats.clusters import (
    MIN_BOOTSTRAP_CLUSTERS,
    MIN_STRATUM_CLUSTERS,
    N_RESAMPLES,
    Clusters,
    bootstrap,
    bootstrap_strata,
    check_level,
    checked,
    expanded_percentiles,
    integer_codes,
    is_too_varied,
    reduce_clusters,
    resolve_bounded,
    satterthwaite,
    standard_error,
    stratify,
    t_quantile,
)
from evals.stats.interval import Interval
from evals.stats.paired import PairedDifference, holm, paired_difference
from evals.stats.power import (
    Design,
    cluster_size_needed,
    clusters_factor,
    minimum_detectable_difference,
    power_of_difference,
    standard_error_of_difference,
)
from evals.stats.shares import COUNT_SLACK, cluster_wilson, mover, wilson

__all__ = [
    "Design",
    "Estimate",
    "Interval",
    "PairedDifference",
    "by_stratum",
    "cluster_size_needed",
    "clusters_factor",
    "holm",
    "mean",
    "mean_of_strata",
    "minimum_detectable_difference",
    "paired_difference",
    "power_of_difference",
    "standard_error_of_difference",
    "wilson",
]

EDGE = 0.1  # shares nearer than this to 0 or 1 get Wilson's interval
# Clusters worth of right and of wrong answers that a bootstrapped mean of strata needs.
MIN_EDGE_CLUSTERS = 8


@dataclass(frozen=True, slots=True)
class Estimate(Interval):
    """A mean with its interval; `method` says how it was found, or why there is none."""

    n: int
    n_clusters: int
    method: str
    level: float = 0.95


def mean(
    values: Iterable[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    bounded: bool | None = None,
    level: float = 0.95,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Estimate:
    """Mean over samples with an interval over clusters.

    Args:
        values: one finite number per sample. Leave unscored samples out; they are not zeros.
        clusters: what each sample belongs to (prompt id); None makes every sample its own cluster.
        bounded: whether values lie in [0, 1] by definition; None finds out (true if all are 0 or 1).
    Raises: ValueError for NaN or infinite values, lengths that differ, or values outside the stated bounds.
    """
    array = checked(values)
    bounded = resolve_bounded(array, bounded)
    check_level(level)
    if array.size == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, 0, "empty", level)
    group = reduce_clusters(array, integer_codes(clusters, array.size))
    return _mean_of(group, bounded, level, np.random.default_rng([seed]), n_resamples)


def mean_of_strata(
    values: Iterable[float],
    strata: Sequence[Hashable],
    clusters: Sequence[Hashable] | None = None,
    *,
    bounded: bool | None = None,
    level: float = 0.95,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Estimate:
    """Plain mean of the strata's means: GenEval's overall, whatever the size of each tag.

    Raises: ValueError as `mean`, and when one cluster lies in two strata. Refusing an overall for a subset of
    the benchmark's strata is the task's business: only it knows which ones there should be.
    """
    array = checked(values)
    bounded = resolve_bounded(array, bounded)
    check_level(level)
    if array.size == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, 0, "empty", level)
    groups = list(stratify(array, strata, clusters).values())
    n = sum(group.n for group in groups)
    n_clusters = sum(len(group.sums) for group in groups)
    value = math.fsum(group.mean for group in groups) / len(groups)

    def result(lo: float, hi: float, method: str) -> Estimate:
        return Estimate(value, lo, hi, n, n_clusters, method, level)

    fewest = min(len(group.sums) for group in groups)
    is_edge = n_clusters * min(value, 1 - value) < MIN_EDGE_CLUSTERS - COUNT_SLACK
    if bounded and (is_edge or fewest < MIN_STRATUM_CLUSTERS):
        return result(*mover(groups, level), "mover")
    if fewest < 2:
        return result(math.nan, math.nan, "none")
    if fewest < MIN_STRATUM_CLUSTERS or is_too_varied(groups):
        half = t_quantile(level, satterthwaite(groups)) * standard_error(groups)
        return result(value - half, value + half, "t")
    draws = bootstrap_strata(groups, np.random.default_rng([seed]), n_resamples)
    lo, hi = expanded_percentiles(draws, level, satterthwaite(groups))
    return result(min(lo, value), max(hi, value), "bootstrap")


def by_stratum(
    values: Iterable[float],
    strata: Sequence[Hashable],
    clusters: Sequence[Hashable] | None = None,
    *,
    bounded: bool | None = None,
    level: float = 0.95,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> dict[Hashable, Estimate]:
    """`mean` of every stratum, keyed by stratum in order of first appearance."""
    array = checked(values)
    bounded = resolve_bounded(array, bounded)
    check_level(level)
    groups = stratify(array, strata, clusters) if array.size else {}
    return {
        name: _mean_of(group, bounded, level, np.random.default_rng([seed]), n_resamples)
        for name, group in groups.items()
    }


def _mean_of(
    group: Clusters, bounded: bool, level: float, rng: np.random.Generator, n_resamples: int
) -> Estimate:
    value, n_clusters = group.mean, len(group.sums)

    def result(lo: float, hi: float, method: str) -> Estimate:
        return Estimate(value, lo, hi, group.n, n_clusters, method, level)

    if bounded and (n_clusters < MIN_BOOTSTRAP_CLUSTERS or not EDGE <= value <= 1 - EDGE):
        return result(*cluster_wilson(group, level), "wilson")
    if n_clusters == 1:
        return result(math.nan, math.nan, "none")
    if n_clusters < MIN_BOOTSTRAP_CLUSTERS or is_too_varied([group]):
        half = t_quantile(level, n_clusters - 1) * math.sqrt(group.variance_of_mean)
        return result(value - half, value + half, "t")
    lo, hi = expanded_percentiles(bootstrap(group, rng, n_resamples), level, n_clusters - 1)
    return result(min(lo, value), max(hi, value), "bootstrap")
