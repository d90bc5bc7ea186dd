"""Values in clusters: sums and counts per cluster, strata, the cluster bootstrap, robust standard errors.

The unit of everything here is the cluster (a prompt, an image pair). `evals.stats` has the public functions and
says which interval is used when.
"""

from __future__ import annotations

import math
from array import array as array_type
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

N_RESAMPLES = 10_000
# Fewer clusters than these say too little for a bootstrap.
MIN_BOOTSTRAP_CLUSTERS = 10
MIN_STRATUM_CLUSTERS = 5
MAX_BOOTSTRAP_DISTINCT = 5_000


@dataclass(frozen=True, slots=True)
class Clusters:
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


def checked(values: Iterable[float]) -> np.ndarray:
    is_compact = isinstance(values, (np.ndarray, array_type))
    array = np.asarray(values if is_compact else list(values), dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"values must be one number per sample, got shape {array.shape}")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise ValueError(
            f"{bad} of {array.size} values are NaN or infinite: mark these samples unscored"
        )
    return array


def resolve_bounded(array: np.ndarray, bounded: bool | None) -> bool:
    if bounded is None:
        return bool(np.isin(array, (0.0, 1.0)).all())
    if bounded and array.size and (array.min() < 0 or array.max() > 1):
        raise ValueError(
            f"values reach from {array.min()} to {array.max()}, but bounded means [0, 1]"
        )
    return bounded


def check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1 (95 % is 0.95)")


def integer_codes(labels: Sequence[Hashable] | None, n: int) -> np.ndarray:
    """Integer code per sample, by first appearance."""
    if labels is None:
        return np.arange(n)
    if len(labels) != n:
        raise ValueError(f"{n} values but {len(labels)} labels")
    if isinstance(labels, (np.ndarray, array_type)):  # numbers already: no object per sample
        _, first, inverse = np.unique(np.asarray(labels), return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[inverse]
    seen: dict[Hashable, int] = {}
    return np.fromiter((seen.setdefault(label, len(seen)) for label in labels), np.int64, n)


def reduce_clusters(array: np.ndarray, codes: np.ndarray) -> Clusters:
    _, codes = np.unique(codes, return_inverse=True)
    # Sorting the values first makes each cluster's float sum independent of the order of samples.
    order = np.lexsort((array, codes))
    sums = np.bincount(codes[order], weights=array[order])
    counts = np.bincount(codes).astype(np.float64)
    order = np.lexsort((counts, sums))
    return Clusters(sums[order], counts[order])


def stratify(
    array: np.ndarray, strata: Sequence[Hashable], clusters: Sequence[Hashable] | None
) -> dict[Hashable, Clusters]:
    stratum_codes, cluster_codes = (
        integer_codes(strata, array.size),
        integer_codes(clusters, array.size),
    )
    names = list(dict.fromkeys(strata))
    order = np.argsort(cluster_codes, kind="stable")
    is_same_cluster = np.diff(cluster_codes[order]) == 0
    is_other_stratum = np.diff(stratum_codes[order]) != 0
    shared = cluster_codes[order][1:][is_same_cluster & is_other_stratum]
    if shared.size:
        label = clusters[int(np.argmax(cluster_codes == shared[0]))]  # type: ignore[index]
        raise ValueError(f"cluster {label!r} lies in more than one stratum")
    return {
        name: reduce_clusters(array[stratum_codes == code], cluster_codes[stratum_codes == code])
        for code, name in enumerate(names)
    }


def standard_error(groups: Sequence[Clusters]) -> float:
    return math.sqrt(math.fsum(group.variance_of_mean for group in groups)) / len(groups)


def satterthwaite(groups: Sequence[Clusters]) -> float:
    """Degrees of freedom of the summed variance of strata (Satterthwaite 1946)."""
    variances = [(group.variance_of_mean, len(group.sums) - 1) for group in groups]
    total = math.fsum(variance for variance, _ in variances)
    if total == 0:
        return float(max(sum(dof for _, dof in variances), 1))
    return total**2 / math.fsum(variance**2 / dof for variance, dof in variances if dof)


def t_quantile(level: float, dof: float) -> float:
    from scipy.special import stdtrit  # imported late: the command line must start quickly

    return float(stdtrit(dof, (1 + level) / 2))


def is_too_varied(groups: Sequence[Clusters]) -> bool:
    return any(len(distinct(group)[0]) > MAX_BOOTSTRAP_DISTINCT for group in groups)


def distinct(group: Clusters) -> tuple[np.ndarray, np.ndarray]:
    """Distinct (sum, count) pairs (K, 2) and how many clusters have each (K,).

    Clusters that look alike are interchangeable, so a resample is a multinomial draw over K kinds: four pictures
    per prompt make five kinds, however many prompts there are.
    """
    changes = (np.diff(group.sums) != 0) | (np.diff(group.counts) != 0)
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    kinds = np.stack([group.sums[starts], group.counts[starts]], axis=1)
    return kinds, np.diff(np.append(starts, len(group.sums)))


def bootstrap(group: Clusters, rng: np.random.Generator, n_resamples: int) -> np.ndarray:
    """(n_resamples,) means of resampled clusters."""
    kinds, frequency = distinct(group)
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


def bootstrap_strata(
    groups: Sequence[Clusters], rng: np.random.Generator, n_resamples: int
) -> np.ndarray:
    # The order of strata must not matter either: draw for them in an order given by their content.
    ordered = sorted(groups, key=lambda group: (group.mean, group.n, group.sums.tolist()))
    total = np.zeros(n_resamples)
    for group in ordered:
        total += bootstrap(group, rng, n_resamples)
    return total / len(groups)


def expanded_percentiles(draws: np.ndarray, level: float, dof: float) -> tuple[float, float]:
    tail = NormalDist().cdf(-t_quantile(level, dof))
    lo, hi = np.quantile(draws, [tail, 1 - tail])
    return float(lo), float(hi)
