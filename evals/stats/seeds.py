"""Several trainings of one recipe, judged on the same prompts: two crossed sources of chance.

Seeds (trainings) and prompts both are samples of what could have been. The value is the plain mean of the seeds'
values. Its interval starts from the prompts' own (`evals.stats.mean`, `mean_of_strata`, `paired_difference`, with what
they do near 0 and 1), made from the scores of all seeds together with prompts as clusters, and each margin m becomes

    sqrt(m^2 + (t sd / sqrt(S))^2)

where sd is the standard deviation between the values of S single seeds and t is Student's with S - 1 degrees of
freedom: the margins of the two sources are added as Zou and Donner do (2008, doi:10.1002/sim.3095), so three seeds
that differ make the interval wide, and seeds that agree leave it as it is. What seed and prompt do together is in both
parts, which errs on the side of caution (Davezies, D'Haultfoeuille and Guyonvarch 2021, doi:10.1214/20-AOS1981). The
p-value of a difference is the level at which its interval ends at zero. One seed alone says nothing about seeds:
`n_seeds` is 1 then, and interval and p are over prompts only.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from evals.stats.clusters import (
    N_RESAMPLES,
    Clusters,
    check_level,
    checked,
    resolve_bounded,
    satterthwaite,
    standard_error,
    stratify,
    t_quantile,
)
from evals.stats.interval import Interval

MANY = 1e9  # degrees of freedom of a normal


@dataclass(frozen=True)
class SeedScores:
    """One training's values, one per sample, with its prompt (`clusters`) and the group it counts in (`strata`).

    For a difference `values` are those of the system and `against` those of the other one, sample by sample.
    """

    values: Sequence[float]
    clusters: Sequence[Hashable]
    strata: Sequence[Hashable] | None = None
    against: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class SeedsEstimate(Interval):
    """Mean over seeds with its interval; of a difference also a two-sided p-value for "no difference".

    `sd_seeds`: standard deviation between the values of single seeds (NaN for one). `var_prompts`: the part of the
    variance of `value` that more seeds cannot shrink. Bounds and p are NaN where they do not exist.

    `lo`, `hi` cover both sources of chance. Each alone: `ci_prompts`, other prompts and these very trainings;
    `ci_seeds`, other trainings and these very prompts, Student's t with `n_seeds` - 1 degrees of freedom. None where
    there is no such interval: no prompts (FID), or one seed.
    """

    p_value: float
    n: int
    n_clusters: int
    n_seeds: int
    method: str
    sd_seeds: float
    var_prompts: float
    ci_prompts: tuple[float, float] | None = None
    ci_seeds: tuple[float, float] | None = None


def over_seeds(
    seeds: Sequence[SeedScores],
    *,
    bounded: bool | None = None,
    level: float = 0.95,
    n_resamples: int = N_RESAMPLES,
    seeds_error: tuple[float, float] | None = None,
) -> SeedsEstimate:
    """Mean over seeds of each seed's mean (of strata means, with strata), or of each seed's paired difference.

    Args: seeds: one entry per training; clusters with equal labels are the same prompt. bounded: as in
    `evals.stats.mean`, of the values before differences are taken. seeds_error: standard error from seeds and its
    degrees of freedom, where more is known than these values tell (`welch`); used if there are two seeds or more.
    Raises: ValueError for no seeds, an empty one, NaN, or seeds of which only some are differences.
    """
    from evals import stats

    check_level(level)
    if not seeds or not all(len(seed.values) for seed in seeds):
        raise ValueError("give at least one seed, and none without values")
    is_difference = seeds[0].against is not None
    if any((seed.against is not None) != is_difference for seed in seeds):
        raise ValueError("either every seed is a difference or none is")
    singles = [_strata_of(seed) for seed in seeds]
    values = [math.fsum(group.mean for group in groups) / len(groups) for groups in singles]
    value = math.fsum(values) / len(values)

    all_values = np.concatenate([checked(seed.values) for seed in seeds])
    clusters = [label for seed in seeds for label in seed.clusters]
    strata = [
        label for seed in seeds for label in (seed.strata if seed.strata is not None else [""] * len(seed.values))
    ]
    p_value, drawn = math.nan, [all_values]
    if is_difference:
        other = np.concatenate([checked(seed.against or ()) for seed in seeds])
        paired = stats.paired_difference(
            all_values, other, clusters, strata, bounded=bounded, level=level, n_resamples=n_resamples
        )
        centre, lo, hi, method, n_clusters = paired.value, paired.lo, paired.hi, paired.method, paired.n_clusters
        p_value, drawn = paired.p_value, [all_values, other]
        all_values = all_values - other
    else:
        if len(set(strata)) > 1:
            found = stats.mean_of_strata(
                all_values, strata, clusters, bounded=bounded, level=level, n_resamples=n_resamples
            )
        else:
            found = stats.mean(all_values, clusters, bounded=bounded, level=level, n_resamples=n_resamples)
        centre, lo, hi, method, n_clusters = found.value, found.lo, found.hi, found.method, found.n_clusters
    groups = list(stratify(all_values, strata, clusters).values())
    var_prompts, dof_prompts = standard_error(groups) ** 2, satterthwaite(groups)
    n_seeds, n = len(seeds), int(all_values.size)
    if n_seeds == 1:
        lo, hi = lo - centre + value, hi - centre + value
        alone = None if math.isnan(lo) else (lo, hi)
        return SeedsEstimate(
            value, lo, hi, p_value, n, n_clusters, 1, method, math.nan, var_prompts, alone
        )
    sd = float(np.std(values, ddof=1))
    error, dof = seeds_error or (sd / math.sqrt(n_seeds), n_seeds - 1)
    seeds_part = t_quantile(level, dof) * error
    below, above = (0.0 if math.isnan(bound) else abs(bound - centre) for bound in (lo, hi))
    is_bounded = resolve_bounded(np.concatenate(drawn), bounded)
    least = -1.0 if is_difference else 0.0

    def around(down: float, up: float) -> tuple[float, float]:
        low, high = value - down, value + up
        return (max(low, least), min(high, 1.0)) if is_bounded else (low, high)

    ci_prompts = None if math.isnan(lo) else around(below, above)
    ci_seeds = around(seeds_part, seeds_part)
    lo, hi = around(math.hypot(below, seeds_part), math.hypot(above, seeds_part))
    if is_difference:
        se_prompts = max(below, above) / t_quantile(level, dof_prompts)
        p_value = _p_value(value, [(se_prompts, dof_prompts), (error, dof)])
    # Seen with one seed the prompts' variance holds prompt-by-seed noise whole, in the pooled one a share of it.
    one = math.fsum(standard_error(groups) ** 2 for groups in singles) / n_seeds
    prompts_alone = max(var_prompts - max(one - var_prompts, 0.0) / (n_seeds - 1), 0.0)
    return SeedsEstimate(
        value, lo, hi, p_value, n, n_clusters, n_seeds, f"{method}+seeds", sd, prompts_alone, ci_prompts, ci_seeds
    )


def of_values(
    values: Sequence[float],
    *,
    is_difference: bool = False,
    level: float = 0.95,
    seeds_error: tuple[float, float] | None = None,
) -> SeedsEstimate:
    """The same for figures that are no means over samples (FID, KID): one number per seed, Student's t over seeds."""
    array = checked(values)
    if not array.size:
        raise ValueError("give at least one seed")
    value, n = float(array.mean()), int(array.size)
    if n == 1:
        return SeedsEstimate(value, math.nan, math.nan, math.nan, n, 0, 1, "none", math.nan, 0.0)
    sd = float(array.std(ddof=1))
    error, dof = seeds_error or (sd / math.sqrt(n), n - 1)
    half = t_quantile(level, dof) * error
    p_value = _p_value(value, [(error, dof)]) if is_difference else math.nan
    bounds = (value - half, value + half)
    return SeedsEstimate(value, *bounds, p_value, n, 0, n, "t over seeds", sd, 0.0, None, bounds)


def welch(weights: Sequence[float], groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Standard error of the sum of weight times group mean, and its degrees of freedom (Welch, Satterthwaite 1946).

    Each group (design) has its own variance over its seeds; with s_c^2 / n_c the variance of a group's mean, v_c =
    w_c^2 s_c^2 / n_c, the error is sqrt(sum v_c) with (sum v_c)^2 / sum(v_c^2 / (n_c - 1)) degrees of freedom. A
    contrast of four designs with three seeds each has up to 8 of them, where the three differences alone have 2.
    Raises: ValueError for a group with fewer than two values, or lists that differ in length.
    """
    parts = []
    for weight, group in zip(weights, groups, strict=True):
        values = checked(group)
        if values.size < 2:
            raise ValueError("every group needs two seeds or more")
        parts.append((weight**2 * float(values.var(ddof=1)) / values.size, int(values.size) - 1))
    total = math.fsum(v for v, _ in parts)
    if total == 0:
        return 0.0, float(min(dof for _, dof in parts))
    return math.sqrt(total), total**2 / math.fsum(v**2 / dof for v, dof in parts)


def seeds_needed(
    difference: float,
    *,
    sd_seeds: float,
    var_prompts: float = 0.0,
    power: float = 0.8,
    alpha: float = 0.05,
    limit: int = 1000,
) -> int | None:
    """Fewest seeds a side with which a true `difference` is found with probability `power`; None if none are enough.

    Args: sd_seeds: standard deviation of the difference between single seeds. var_prompts: what more seeds cannot
    shrink (`SeedsEstimate.var_prompts`). Student's t replaces the normal, as seeds are few.
    Raises: ValueError for a difference that is not above 0 or a negative spread.
    """
    if not 0 < difference < math.inf:
        raise ValueError(f"difference {difference} must be a number above 0")
    if not (0 <= sd_seeds < math.inf and 0 <= var_prompts < math.inf):
        raise ValueError(f"sd_seeds {sd_seeds} and var_prompts {var_prompts} must be numbers of 0 or more")
    for n in range(2, limit + 1):
        if detectable_difference(n, sd_seeds=sd_seeds, var_prompts=var_prompts, power=power, alpha=alpha) <= difference:
            return n
    return None


def detectable_difference(
    n_seeds: int, *, sd_seeds: float, var_prompts: float = 0.0, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Smallest true difference that `n_seeds` seeds a side (two or more) find with probability `power`."""
    if n_seeds < 2:
        raise ValueError(f"n_seeds {n_seeds}: two or more are needed to see what seeds do")
    # Added as the margins of the two sources are; that errs on the side of caution.
    parts = ((sd_seeds / math.sqrt(n_seeds), n_seeds - 1), (math.sqrt(var_prompts), MANY))
    return math.hypot(
        *((t_quantile(1 - alpha, dof) + t_quantile(2 * power - 1, dof)) * error for error, dof in parts)
    )


def _strata_of(seed: SeedScores) -> list[Clusters]:
    values = checked(seed.values)
    if seed.against is not None:
        other = checked(seed.against)
        if other.size != values.size:
            raise ValueError(f"paired values differ in length: {values.size} and {other.size}")
        values = values - other
    labels = seed.strata if seed.strata is not None else [""] * values.size
    return list(stratify(values, labels, seed.clusters).values())


def _p_value(value: float, parts: Sequence[tuple[float, float]]) -> float:
    """The alpha at which sqrt(sum of (t_{1 - alpha/2, dof} * error)^2) over (error, dof) equals |value|."""
    from scipy.special import stdtr

    if not any(error for error, _ in parts):
        return 1.0 if value == 0 else 0.0
    if len(parts) == 1:
        ((error, dof),) = parts
        return float(2 * stdtr(dof, -abs(value) / error))
    low, high = -60.0, 0.0  # of ln(alpha); the margin falls as alpha grows
    for _ in range(80):
        middle = (low + high) / 2
        margin = math.hypot(*(error * -_stdtrit(dof, math.exp(middle) / 2) for error, dof in parts))
        low, high = (middle, high) if margin > abs(value) else (low, middle)
    return math.exp(high)


def _stdtrit(dof: float, share: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(dof, share))
