"""Intervals of shares near 0 and 1, where a bootstrap sees too little: Wilson's, adjusted for clusters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from evals.stats.clusters import Clusters, check_level

# A count that is found as share times size misses the whole number by rounding: (1 - 32 / 35) * 35 is above 3.
COUNT_SLACK = 1e-9


def wilson(successes: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share, for independent trials (n may be an effective size).

    Returns (0, 1) for n = 0: nothing is known. Source: Wilson 1927; equals scipy's `proportion_ci("wilson")`.
    """
    check_level(level)
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: need 0 <= successes <= n")
    if n == 0:
        return 0.0, 1.0
    return wilson_limits(successes / n, n, NormalDist().inv_cdf((1 + level) / 2))


def cluster_wilson(group: Clusters, level: float) -> tuple[float, float]:
    """Wilson's interval with n replaced by the effective sample size."""
    effective = effective_n(group)
    lo, hi = wilson_limits(group.mean, effective, NormalDist().inv_cdf((1 + level) / 2))
    if 0 < group.mean * effective <= 3 + COUNT_SLACK:
        lo = min(lo, poisson_lower(group.mean, effective, level))
    if 0 < (1 - group.mean) * effective <= 3 + COUNT_SLACK:
        hi = max(hi, 1 - poisson_lower(1 - group.mean, effective, level))
    return lo, hi


def effective_n(group: Clusters) -> float:
    """How many independent samples the clusters are worth: n / design effect."""
    n = group.n
    icc = cautious_correlation(group)
    # Kish's design effect for unequal cluster sizes; equals 1 + (m - 1) icc when all have m samples.
    effect = 1 + (float((group.counts**2).sum()) / n - 1) * icc
    return n / max(effect, 1.0)


def cautious_correlation(group: Clusters) -> float:
    """Intra-cluster correlation after adding one cluster that is all right and one that is all wrong.

    In the spirit of Agresti and Coull: it is then defined at 0 and 1, and leans to caution with little data.
    Without it, a tag at 0.99 would often see too few failures to notice that they come in fours.
    """
    size = group.n / len(group.sums)
    return intra_cluster_correlation(
        np.append(group.sums, (0.0, size)), np.append(group.counts, (size, size))
    )


def poisson_lower(share: float, n: float, level: float) -> float:
    """One-sided Poisson limit: where one to three successes were seen Wilson's is above it, and its coverage dips.

    Source: Brown, Cai and DasGupta 2001, section 4.1.1 (doi:10.1214/ss/1009213286), for fractional counts.
    """
    if share <= 0:
        return 0.0
    from scipy.special import gammaincinv

    return float(gammaincinv(share * n, 1 - level)) / n


def intra_cluster_correlation(sums: np.ndarray, counts: np.ndarray) -> float:
    """Intra-cluster correlation of values in [0, 1], from the excess variance of the clusters; in [0, 1].

    For values strictly inside (0, 1) p (1 - p) bounds their variance, so this errs on the side of caution.
    """
    n, n_clusters = counts.sum(), len(sums)
    share = sums.sum() / n
    spread = share * (1 - share)
    if spread == 0 or n_clusters < 2:
        return 1.0
    size = (n - (counts**2).sum() / n) / (n_clusters - 1)
    if size <= 1:
        return 0.0
    means = sums / counts
    between = float((counts * (means - share) ** 2).sum()) / (n_clusters - 1)
    within = float((counts * means * (1 - means)).sum()) / max(n - n_clusters, 1)
    icc = (between - within) / (between + (size - 1) * within)
    return min(max(icc, 0.0), 1.0)


def mover(groups: Sequence[Clusters], level: float) -> tuple[float, float]:
    """Limits of a mean of shares, recovered from the limits of each: p - sqrt(sum w^2 (p_h - lo_h)^2), likewise up."""
    value = math.fsum(group.mean for group in groups) / len(groups)
    limits = [(group.mean, *cluster_wilson(group, level)) for group in groups]
    lo = value - math.sqrt(math.fsum((share - lo) ** 2 for share, lo, _ in limits)) / len(groups)
    hi = value + math.sqrt(math.fsum((hi - share) ** 2 for share, _, hi in limits)) / len(groups)
    # With a handful of successes in all, squaring each stratum's distance loses what they say together.
    effective = len(groups) ** 2 / math.fsum(1 / effective_n(group) for group in groups)
    if value * effective <= 10 + COUNT_SLACK:
        lo = min(lo, poisson_lower(value, effective, level))
    if (1 - value) * effective <= 10 + COUNT_SLACK:
        hi = max(hi, 1 - poisson_lower(1 - value, effective, level))
    return max(0.0, lo), min(1.0, hi)


def wilson_limits(share: float, n: float, z: float) -> tuple[float, float]:
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # Rounding must not leave a bound on the wrong side of the share (at 0 and 1 they coincide exactly).
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))
