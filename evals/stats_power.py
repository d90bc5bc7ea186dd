"""Planning: which difference a benchmark of a given size can show, and what size a difference needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from evals.stats_clusters import check_level


def standard_error_of_difference(
    n_clusters: int | Sequence[int],
    *,
    share: float = 0.5,
    cluster_size: int = 4,
    icc: float = 0.5,
    correlation: float = 0.5,
) -> float:
    """Standard error of the paired difference of two systems that are both right on `share` of the samples.

    Args:
        n_clusters: prompts, or prompts per stratum (the value compared is then the mean of strata means).
        icc: correlation of two samples of one cluster. correlation: of the two systems' cluster means.
    Formula: sqrt(sum_h w_h^2 * 2 (1 - correlation) * share (1 - share) (1 + (m - 1) icc) / (m C_h)), w_h = 1 / H.
    """
    sizes = [n_clusters] if isinstance(n_clusters, int) else list(n_clusters)
    if not sizes or min(sizes) < 1 or cluster_size < 1:
        raise ValueError(
            f"n_clusters {n_clusters} and cluster_size {cluster_size} must be 1 or more"
        )
    for name, number in (("share", share), ("icc", icc), ("correlation", correlation)):
        if not 0 <= number <= 1:
            raise ValueError(f"{name} {number} is not in [0, 1]")
    of_cluster_mean = share * (1 - share) * (1 + (cluster_size - 1) * icc) / cluster_size
    variance = (
        sum(2 * (1 - correlation) * of_cluster_mean / size for size in sizes) / len(sizes) ** 2
    )
    return math.sqrt(variance)


def power_of_difference(difference: float, standard_error: float, *, alpha: float = 0.05) -> float:
    """Chance that a two-sided test at `alpha` finds a true `difference` (normal approximation, both tails)."""
    check_level(alpha)
    if standard_error < 0:
        raise ValueError(f"standard_error {standard_error} is negative")
    if standard_error == 0:
        return 1.0 if difference else alpha
    normal = NormalDist()
    critical = normal.inv_cdf(1 - alpha / 2)
    shift = abs(difference) / standard_error
    return normal.cdf(shift - critical) + normal.cdf(-shift - critical)


def minimum_detectable_difference(
    standard_error: float, *, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Smallest true difference found with probability `power`: (z_{1-alpha/2} + z_power) * standard_error."""
    check_level(alpha)
    if not alpha < power < 1:
        raise ValueError(f"power {power} must lie between alpha ({alpha}) and 1")
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * standard_error
