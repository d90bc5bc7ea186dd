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
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

N_RESAMPLES = 10_000
EDGE = 0.1  # shares nearer than this to 0 or 1 get Wilson's interval
MIN_BOOTSTRAP_CLUSTERS = 10
MIN_STRATUM_CLUSTERS = 5
# Clusters worth of right and of wrong answers that a bootstrapped mean of strata needs.
MIN_EDGE_CLUSTERS = 8
MAX_BOOTSTRAP_DISTINCT = 5_000
EXACT_SIGN_FLIPS = 12  # up to 2**12 sign patterns are enumerated instead of drawn


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval. `lo` and `hi` are NaN where no interval exists (see `method`)."""

    value: float
    lo: float
    hi: float
    n: int
    n_clusters: int
    method: str
    level: float = 0.95

    @property
    def ci(self) -> list[float] | None:
        """[lo, hi] as results.json stores it, or None when there is no interval."""
        return None if math.isnan(self.lo) or math.isnan(self.hi) else [self.lo, self.hi]


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Mean of a - b over shared samples, its interval and a two-sided p-value for "no difference"."""

    value: float
    lo: float
    hi: float
    p_value: float
    n: int
    n_clusters: int
    method: str
    level: float = 0.95

    @property
    def ci(self) -> list[float] | None:
        """[lo, hi], or None when there is no interval."""
        return None if math.isnan(self.lo) or math.isnan(self.hi) else [self.lo, self.hi]


@dataclass(frozen=True, slots=True)
class _Clusters:
    """Sums and counts of the clusters of one stratum, sorted, so that sample order cannot matter."""

    sums: np.ndarray  # (C,) float64
    counts: np.ndarray  # (C,) float64

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        return float(math.fsum(self.sums) / self.counts.sum())

    @property
    def variance_of_mean(self) -> float:
        """Cluster-robust variance of the ratio mean sum(sums) / sum(counts); 0 for a single cluster."""
        n_clusters = len(self.sums)
        if n_clusters < 2:
            return 0.0
        residuals = self.sums - self.mean * self.counts
        return float(
            n_clusters / (n_clusters - 1) * math.fsum(residuals**2) / self.counts.sum() ** 2
        )


# --- means -----------------------------------------------------------------------------------------------------


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
    array = _checked(values)
    bounded = _resolve_bounded(array, bounded)
    _check_level(level)
    if array.size == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, 0, "empty", level)
    group = _reduce(array, _codes(clusters, array.size))
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
    array = _checked(values)
    bounded = _resolve_bounded(array, bounded)
    _check_level(level)
    if array.size == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, 0, "empty", level)
    groups = list(_stratify(array, strata, clusters).values())
    n = sum(group.n for group in groups)
    n_clusters = sum(len(group.sums) for group in groups)
    value = math.fsum(group.mean for group in groups) / len(groups)

    def result(lo: float, hi: float, method: str) -> Estimate:
        return Estimate(value, lo, hi, n, n_clusters, method, level)

    fewest = min(len(group.sums) for group in groups)
    is_edge = n_clusters * min(value, 1 - value) < MIN_EDGE_CLUSTERS
    if bounded and (is_edge or fewest < MIN_STRATUM_CLUSTERS):
        return result(*_mover(groups, level), "mover")
    if fewest < 2:
        return result(math.nan, math.nan, "none")
    if fewest < MIN_STRATUM_CLUSTERS or _is_too_varied(groups):
        half = _t_quantile(level, _satterthwaite(groups)) * _standard_error(groups)
        return result(value - half, value + half, "t")
    draws = _bootstrap_strata(groups, np.random.default_rng([seed]), n_resamples)
    lo, hi = _expanded_percentiles(draws, level, _satterthwaite(groups))
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
    array = _checked(values)
    bounded = _resolve_bounded(array, bounded)
    _check_level(level)
    groups = _stratify(array, strata, clusters) if array.size else {}
    return {
        name: _mean_of(group, bounded, level, np.random.default_rng([seed]), n_resamples)
        for name, group in groups.items()
    }


def wilson(successes: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share, for independent trials (n may be an effective size).

    Returns (0, 1) for n = 0: nothing is known. Source: Wilson 1927; equals scipy's `proportion_ci("wilson")`.
    """
    _check_level(level)
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: need 0 <= successes <= n")
    if n == 0:
        return 0.0, 1.0
    return _wilson(successes / n, n, NormalDist().inv_cdf((1 + level) / 2))


# --- comparisons -----------------------------------------------------------------------------------------------


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
    first, second = _checked(a), _checked(b)
    if first.size != second.size:
        raise ValueError(f"paired values differ in length: {first.size} and {second.size}")
    bounded = _resolve_bounded(np.concatenate([first, second]), bounded)
    _check_level(level)
    if first.size == 0:
        return PairedDifference(math.nan, math.nan, math.nan, math.nan, 0, 0, "empty", level)
    labels = strata if strata is not None else [""] * first.size
    groups = list(_stratify(first - second, labels, clusters).values())
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
        if is_small:
            pooled = _reduce(first - second, _codes(clusters, first.size))
            error, dof = math.sqrt(pooled.variance_of_mean), n_clusters - 1
        else:
            error, dof = _standard_error(groups), _satterthwaite(groups)
        half = _t_quantile(level, max(dof, 1)) * math.hypot(error, math.sqrt(2) / (n_clusters + 2))
        return result(value - half, value + half, "t+2")
    if fewest < 2 or all(np.ptp(group.sums / group.counts) == 0 for group in groups):
        return result(math.nan, math.nan, "none")
    if is_small or _is_too_varied(groups):
        half = _t_quantile(level, _satterthwaite(groups)) * _standard_error(groups)
        return result(value - half, value + half, "t")
    draws = _bootstrap_strata(groups, rng, n_resamples)
    lo, hi = _expanded_percentiles(draws, level, _satterthwaite(groups))
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


# --- planning --------------------------------------------------------------------------------------------------


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
    _check_level(alpha)
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
    _check_level(alpha)
    if not alpha < power < 1:
        raise ValueError(f"power {power} must lie between alpha ({alpha}) and 1")
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * standard_error


# --- inside ----------------------------------------------------------------------------------------------------


def _checked(values: Iterable[float]) -> np.ndarray:
    array = np.asarray(values if isinstance(values, np.ndarray) else list(values), dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"values must be one number per sample, got shape {array.shape}")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise ValueError(
            f"{bad} of {array.size} values are NaN or infinite: mark these samples unscored"
        )
    return array


def _resolve_bounded(array: np.ndarray, bounded: bool | None) -> bool:
    if bounded is None:
        return bool(np.isin(array, (0.0, 1.0)).all())
    if bounded and array.size and (array.min() < 0 or array.max() > 1):
        raise ValueError(
            f"values reach from {array.min()} to {array.max()}, but bounded means [0, 1]"
        )
    return bounded


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1 (95 % is 0.95)")


def _codes(labels: Sequence[Hashable] | None, n: int) -> np.ndarray:
    """Integer code per sample, by first appearance."""
    if labels is None:
        return np.arange(n)
    if len(labels) != n:
        raise ValueError(f"{n} values but {len(labels)} labels")
    seen: dict[Hashable, int] = {}
    return np.fromiter((seen.setdefault(label, len(seen)) for label in labels), np.int64, n)


def _reduce(array: np.ndarray, codes: np.ndarray) -> _Clusters:
    _, codes = np.unique(codes, return_inverse=True)
    # Sorting the values first makes each cluster's float sum independent of the order of samples.
    order = np.lexsort((array, codes))
    sums = np.bincount(codes[order], weights=array[order])
    counts = np.bincount(codes).astype(np.float64)
    order = np.lexsort((counts, sums))
    return _Clusters(sums[order], counts[order])


def _stratify(
    array: np.ndarray, strata: Sequence[Hashable], clusters: Sequence[Hashable] | None
) -> dict[Hashable, _Clusters]:
    stratum_codes, cluster_codes = _codes(strata, array.size), _codes(clusters, array.size)
    names = list(dict.fromkeys(strata))
    order = np.argsort(cluster_codes, kind="stable")
    is_same_cluster = np.diff(cluster_codes[order]) == 0
    is_other_stratum = np.diff(stratum_codes[order]) != 0
    shared = cluster_codes[order][1:][is_same_cluster & is_other_stratum]
    if shared.size:
        label = clusters[int(np.argmax(cluster_codes == shared[0]))]  # type: ignore[index]
        raise ValueError(f"cluster {label!r} lies in more than one stratum")
    return {
        name: _reduce(array[stratum_codes == code], cluster_codes[stratum_codes == code])
        for code, name in enumerate(names)
    }


def _mean_of(
    group: _Clusters, bounded: bool, level: float, rng: np.random.Generator, n_resamples: int
) -> Estimate:
    value, n_clusters = group.mean, len(group.sums)

    def result(lo: float, hi: float, method: str) -> Estimate:
        return Estimate(value, lo, hi, group.n, n_clusters, method, level)

    if bounded and (n_clusters < MIN_BOOTSTRAP_CLUSTERS or not EDGE <= value <= 1 - EDGE):
        return result(*_cluster_wilson(group, level), "wilson")
    if n_clusters == 1:
        return result(math.nan, math.nan, "none")
    if n_clusters < MIN_BOOTSTRAP_CLUSTERS or _is_too_varied([group]):
        half = _t_quantile(level, n_clusters - 1) * math.sqrt(group.variance_of_mean)
        return result(value - half, value + half, "t")
    lo, hi = _expanded_percentiles(_bootstrap(group, rng, n_resamples), level, n_clusters - 1)
    return result(min(lo, value), max(hi, value), "bootstrap")


def _wilson(share: float, n: float, z: float) -> tuple[float, float]:
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # Rounding must not leave a bound on the wrong side of the share (at 0 and 1 they coincide exactly).
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def _cluster_wilson(group: _Clusters, level: float) -> tuple[float, float]:
    """Wilson's interval with n replaced by the effective sample size."""
    effective = _effective_n(group)
    lo, hi = _wilson(group.mean, effective, NormalDist().inv_cdf((1 + level) / 2))
    if 0 < group.mean * effective <= 3:
        lo = min(lo, _poisson_lower(group.mean, effective, level))
    if 0 < (1 - group.mean) * effective <= 3:
        hi = max(hi, 1 - _poisson_lower(1 - group.mean, effective, level))
    return lo, hi


def _effective_n(group: _Clusters) -> float:
    """How many independent samples the clusters are worth: n / design effect.

    The intra-cluster correlation is estimated after adding one cluster that is all right and one that is all
    wrong (in the spirit of Agresti and Coull): it is then defined at 0 and 1, and leans to caution with little
    data. Without it, a tag at 0.99 would often see too few failures to notice that they come in fours.
    """
    n = group.n
    size = n / len(group.sums)
    icc = _icc(np.append(group.sums, (0.0, size)), np.append(group.counts, (size, size)))
    # Kish's design effect for unequal cluster sizes; equals 1 + (m - 1) icc when all have m samples.
    effect = 1 + (float((group.counts**2).sum()) / n - 1) * icc
    return n / max(effect, 1.0)


def _poisson_lower(share: float, n: float, level: float) -> float:
    """One-sided Poisson limit: where one to three successes were seen Wilson's is above it, and its coverage dips.

    Source: Brown, Cai and DasGupta 2001, section 4.1.1 (doi:10.1214/ss/1009213286), for fractional counts.
    """
    if share <= 0:
        return 0.0
    from scipy.special import gammaincinv

    return float(gammaincinv(share * n, 1 - level)) / n


def _icc(sums: np.ndarray, counts: np.ndarray) -> float:
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


def _mover(groups: Sequence[_Clusters], level: float) -> tuple[float, float]:
    """Limits of a mean of shares, recovered from the limits of each: p - sqrt(sum w^2 (p_h - lo_h)^2), likewise up."""
    value = math.fsum(group.mean for group in groups) / len(groups)
    limits = [(group.mean, *_cluster_wilson(group, level)) for group in groups]
    lo = value - math.sqrt(math.fsum((share - lo) ** 2 for share, lo, _ in limits)) / len(groups)
    hi = value + math.sqrt(math.fsum((hi - share) ** 2 for share, _, hi in limits)) / len(groups)
    # With a handful of successes in all, squaring each stratum's distance loses what they say together.
    effective = len(groups) ** 2 / math.fsum(1 / _effective_n(group) for group in groups)
    if value * effective <= 10:
        lo = min(lo, _poisson_lower(value, effective, level))
    if (1 - value) * effective <= 10:
        hi = max(hi, 1 - _poisson_lower(1 - value, effective, level))
    return max(0.0, lo), min(1.0, hi)


def _standard_error(groups: Sequence[_Clusters]) -> float:
    return math.sqrt(math.fsum(group.variance_of_mean for group in groups)) / len(groups)


def _satterthwaite(groups: Sequence[_Clusters]) -> float:
    """Degrees of freedom of the summed variance of strata (Satterthwaite 1946)."""
    variances = [(group.variance_of_mean, len(group.sums) - 1) for group in groups]
    total = math.fsum(variance for variance, _ in variances)
    if total == 0:
        return float(max(sum(dof for _, dof in variances), 1))
    return total**2 / math.fsum(variance**2 / dof for variance, dof in variances if dof)


def _t_quantile(level: float, dof: float) -> float:
    from scipy.special import stdtrit  # imported late: the command line must start quickly

    return float(stdtrit(dof, (1 + level) / 2))


def _is_too_varied(groups: Sequence[_Clusters]) -> bool:
    return any(len(_distinct(group)[0]) > MAX_BOOTSTRAP_DISTINCT for group in groups)


def _distinct(group: _Clusters) -> tuple[np.ndarray, np.ndarray]:
    """Distinct (sum, count) pairs (K, 2) and how many clusters have each (K,).

    Clusters that look alike are interchangeable, so a resample is a multinomial draw over K kinds: four pictures
    per prompt make five kinds, however many prompts there are.
    """
    changes = (np.diff(group.sums) != 0) | (np.diff(group.counts) != 0)
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    kinds = np.stack([group.sums[starts], group.counts[starts]], axis=1)
    return kinds, np.diff(np.append(starts, len(group.sums)))


def _bootstrap(group: _Clusters, rng: np.random.Generator, n_resamples: int) -> np.ndarray:
    """(n_resamples,) means of resampled clusters."""
    kinds, frequency = _distinct(group)
    n_clusters = len(group.sums)
    n_drawn = n_clusters - 1  # Rao and Wu: unbiased variance
    if len(kinds) <= n_clusters // 4:
        drawn = rng.multinomial(n_drawn, frequency / n_clusters, size=n_resamples)
        totals = drawn @ kinds
        return totals[:, 0] / totals[:, 1]
    means = np.empty(n_resamples)
    step = max(1, 4_000_000 // n_drawn)  # keeps the index block near 32 MB
    for start in range(0, n_resamples, step):
        rows = rng.integers(0, n_clusters, (min(step, n_resamples - start), n_drawn))
        means[start : start + step] = group.sums[rows].sum(1) / group.counts[rows].sum(1)
    return means


def _bootstrap_strata(
    groups: Sequence[_Clusters], rng: np.random.Generator, n_resamples: int
) -> np.ndarray:
    # The order of strata must not matter either: draw for them in an order given by their content.
    ordered = sorted(groups, key=lambda group: (group.mean, group.n, group.sums.tolist()))
    total = np.zeros(n_resamples)
    for group in ordered:
        total += _bootstrap(group, rng, n_resamples)
    return total / len(groups)


def _expanded_percentiles(draws: np.ndarray, level: float, dof: float) -> tuple[float, float]:
    tail = NormalDist().cdf(-_t_quantile(level, dof))
    lo, hi = np.quantile(draws, [tail, 1 - tail])
    return float(lo), float(hi)


def _sign_flip_p_value(
    groups: Sequence[_Clusters], rng: np.random.Generator, n_resamples: int
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
