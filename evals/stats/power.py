"""Planning: which difference a benchmark of a given size can show, and what size a difference needs.

Two systems answer the same clusters (prompts), each several times (pictures). On a prompt each has its own chance
of being right; the chances vary between prompts (`icc` of their variance), and those of the two systems go together
(`correlation`). The difference of the two means then has, per cluster, the variance

    2 share (1 - share) (icc (1 - correlation) + (1 - icc) / cluster_size)

so more pictures shrink its second part only, and more prompts shrink both. Strata (GenEval's tags) are averaged
plainly. Tests are two-sided; the normal approximation is used throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from evals.stats.clusters import check_level


@dataclass(frozen=True)
class Design:
    """A comparison to be planned: clusters, shares and intra-cluster correlations of each stratum."""

    n_clusters: tuple[int, ...]
    shares: tuple[float, ...]
    iccs: tuple[float, ...]
    cluster_size: float = 4
    correlation: float = 0.5

    def __post_init__(self) -> None:
        if not len(self.n_clusters) == len(self.shares) == len(self.iccs) >= 1:
            raise ValueError(
                "give clusters, share and icc for each stratum, and at least one stratum"
            )
        if min(self.n_clusters) < 1 or not self.cluster_size >= 1:
            raise ValueError(
                f"n_clusters {list(self.n_clusters)} and cluster_size {self.cluster_size} must be 1 or more"
            )
        for name, numbers in (
            ("share", self.shares),
            ("icc", self.iccs),
            ("correlation", (self.correlation,)),
        ):
            for number in numbers:
                if not 0 <= number <= 1:
                    raise ValueError(f"{name} {number} is not in [0, 1]")

    @property
    def between(self) -> float:
        """Variance of the difference that more pictures cannot shrink."""
        parts = zip(self.n_clusters, self.shares, self.iccs, strict=True)
        total = math.fsum(2 * p * (1 - p) * icc * (1 - self.correlation) / n for n, p, icc in parts)
        return total / len(self.shares) ** 2

    @property
    def within(self) -> float:
        """Variance of the difference from one picture per prompt; it shrinks with their number."""
        parts = zip(self.n_clusters, self.shares, self.iccs, strict=True)
        total = math.fsum(2 * p * (1 - p) * (1 - icc) / n for n, p, icc in parts)
        return total / len(self.shares) ** 2

    def standard_error(self, cluster_size: float | None = None) -> float:
        """Standard error of the difference with so many pictures per prompt (infinite is allowed)."""
        size = self.cluster_size if cluster_size is None else cluster_size
        return math.sqrt(self.between + self.within / size)

    def with_clusters(self, factor: float) -> Design:
        """The same strata, each with `factor` times as many clusters, rounded up."""
        return replace(self, n_clusters=tuple(math.ceil(n * factor) for n in self.n_clusters))


def standard_error_of_difference(
    n_clusters: int | Sequence[int],
    *,
    share: float | Sequence[float] = 0.5,
    cluster_size: float = 4,
    icc: float | Sequence[float] = 0.5,
    correlation: float = 0.5,
) -> float:
    """Standard error of the paired difference of two systems that are both right on `share` of the samples.

    Args:
        n_clusters: prompts, or prompts per stratum (the value compared is then the mean of strata means).
        icc: correlation of two samples of one cluster. correlation: of the two systems' chances on a prompt.
        share, icc: one number for all strata, or one per stratum.
    Raises: ValueError for numbers outside their range, NaN among them.
    """
    sizes = [n_clusters] if isinstance(n_clusters, int) else list(n_clusters)
    shares, iccs = (
        tuple([number] * len(sizes) if isinstance(number, (int, float)) else number)
        for number in (share, icc)
    )
    return Design(tuple(sizes), shares, iccs, cluster_size, correlation).standard_error()


def power_of_difference(difference: float, standard_error: float, *, alpha: float = 0.05) -> float:
    """Chance that a two-sided test at `alpha` finds a true `difference` (normal approximation, both tails)."""
    check_level(alpha)
    _check_standard_error(standard_error)
    if not math.isfinite(difference):
        raise ValueError(f"difference {difference} is not a finite number")
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
    _check_standard_error(standard_error)
    return _quantiles(power, alpha) * standard_error


def clusters_factor(
    design: Design, difference: float, *, power: float = 0.8, alpha: float = 0.05
) -> float:
    """How many times as many clusters `difference` needs, at the design's pictures per prompt."""
    _check_difference(difference)
    return (_quantiles(power, alpha) * design.standard_error() / difference) ** 2


def cluster_size_needed(
    design: Design, difference: float, *, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """Pictures per prompt that `difference` needs with the design's prompts; None when no number is enough."""
    _check_difference(difference)
    room = (difference / _quantiles(power, alpha)) ** 2 - design.between
    return max(1, math.ceil(design.within / room - 1e-9)) if room > 0 else None


def _quantiles(power: float, alpha: float) -> float:
    check_level(alpha)
    if not alpha < power < 1:
        raise ValueError(f"power {power} must lie between alpha ({alpha}) and 1")
    normal = NormalDist()
    return normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)


def _check_standard_error(standard_error: float) -> None:
    if not 0 <= standard_error < math.inf:
        raise ValueError(f"standard_error {standard_error} is not a number of 0 or more")


def _check_difference(difference: float) -> None:
    if not 0 < difference < math.inf:
        raise ValueError(f"difference {difference} must be a number above 0")
