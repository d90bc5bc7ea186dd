"""Two systems on the same samples: the difference, its interval, its p-value, and many of them at once."""

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

EXACT_SIGN_FLIPS = 12  # up to 2**12 sign patterns are enumerated instead of drawn


@dataclass(frozen=True, slots=True)
class PairedDifference(Interval):
    """Mean of a - b over shared samples, its interval and a two-sided p-value for "no difference"."""

    p_value: float
    n: int
    n_clusters: int
    method: str
    level: float = 0.95


def paired_difference(
    a: Iterable[float],
    b: Iterable[float],
    clusters: Sequence[Hashable] | None = None,
    strata: Sequence[Hashable] | None = None,
    *,
    bounded: bool | None = None,
    level: float = 0.95,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> PairedDifference:
    """Difference of two systems on the same samples: a[i] and b[i] answer the same sample.

    The value is the mean difference (of strata means when `strata` is given), the interval is the cluster
    bootstrap of the differences, and the p-value comes from flipping the sign of whole clusters: under "no
    difference" which system was called a is a coin toss per cluster (exact up to 12 clusters, drawn beyond).

    Where fewer than 10 clusters differ at all, or a stratum has fewer than 5, the bootstrap is too narrow (without
    any difference it has no width). Values in [0, 1] then get a Student interval (`t+2`) to whose variance one
    cluster for a and one for b is added, as Agresti and Min 2005 do (doi:10.1002/sim.1781); its strata are pooled
    when they are small.
    """
    first, second = checked(a), checked(b)
    if first.size != second.size:
        raise ValueError(f"paired values differ in length: {first.size} and {second.size}")
    bounded = resolve_bounded(np.concatenate([first, second]), bounded)
    check_level(level)
    if first.size == 0:
        return PairedDifference(math.nan, math.nan, math.nan, math.nan, 0, 0, "empty", level)
    labels = strata if strata is not None else [""] * first.size
    groups = list(stratify(first - second, labels, clusters).values())
    n_clusters = sum(len(group.sums) for group in groups)
    value = math.fsum(group.mean for group in groups) / len(groups)
    rng = np.random.default_rng([seed])
    p_value = _sign_flip_p_value(groups, rng, n_resamples)

    def result(lo: float, hi: float, method: str) -> PairedDifference:
        if bounded:
            lo, hi = max(-1.0, lo), min(1.0, hi)
        return PairedDifference(value, lo, hi, p_value, first.size, n_clusters, method, level)

    fewest = min(len(group.sums) for group in groups)
    differing = sum(int((group.sums != 0).sum()) for group in groups)
    is_small = fewest < MIN_STRATUM_CLUSTERS or n_clusters < MIN_BOOTSTRAP_CLUSTERS
    if bounded and (is_small or differing < MIN_BOOTSTRAP_CLUSTERS):
        dof: float
        if is_small:
            pooled = reduce_clusters(first - second, integer_codes(clusters, first.size))
            error, dof = math.sqrt(pooled.variance_of_mean), n_clusters - 1
        else:
            error, dof = standard_error(groups), satterthwaite(groups)
        half = t_quantile(level, max(dof, 1)) * math.hypot(error, math.sqrt(2) / (n_clusters + 2))
        return result(value - half, value + half, "t+2")
    if fewest < 2 or all(np.ptp(group.sums / group.counts) == 0 for group in groups):
        return result(math.nan, math.nan, "none")
    if is_small or is_too_varied(groups):
        half = t_quantile(level, satterthwaite(groups)) * standard_error(groups)
        return result(value - half, value + half, "t")
    draws = bootstrap_strata(groups, rng, n_resamples)
    lo, hi = expanded_percentiles(draws, level, satterthwaite(groups))
    return result(min(lo, value), max(hi, value), "bootstrap")


def holm(p_values: Iterable[float]) -> list[float]:
    """Holm's step-down adjustment: reject where the adjusted value is below alpha, and the chance of any false
    rejection among all comparisons stays below alpha. Order is kept.  Source: Holm 1979."""
    p = np.asarray(list(p_values), dtype=np.float64)
    if p.size and not ((p >= 0) & (p <= 1)).all():
        raise ValueError(
            "p-values must lie in [0, 1] and not be NaN; leave out comparisons without one"
        )
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    scaled = p[order] * np.arange(p.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted.tolist()


def _sign_flip_p_value(
    groups: Sequence[Clusters], rng: np.random.Generator, n_resamples: int
) -> float:
    """Two-sided p-value of sum over strata of (cluster difference sums / samples of the stratum)."""
    parts = np.concatenate([group.sums / group.counts.sum() for group in groups])
    observed = abs(float(parts.sum()))
    parts = parts[parts != 0]  # a zero stays zero whatever its sign
    if parts.size == 0:
        return 1.0
    parts = np.sort(parts)
    tolerance = 1e-12 * max(1.0, float(np.abs(parts).sum()))
    if parts.size <= EXACT_SIGN_FLIPS:
        patterns = np.arange(2**parts.size)[:, None] >> np.arange(parts.size) & 1
        flipped = np.abs((1 - 2 * patterns) @ parts)
        return float((flipped >= observed - tolerance).mean())
    # Equal magnitudes are interchangeable: the number of positive signs among them is binomial.
    magnitudes, frequency = np.unique(np.round(np.abs(parts), 15), return_counts=True)
    hits = 0
    step = max(1, 4_000_000 // magnitudes.size)
    for start in range(0, n_resamples, step):
        positive = rng.binomial(frequency, 0.5, (min(step, n_resamples - start), magnitudes.size))
        flipped = np.abs((2 * positive - frequency) @ magnitudes)
        hits += int((flipped >= observed - tolerance).sum())
    return (1 + hits) / (1 + n_resamples)
