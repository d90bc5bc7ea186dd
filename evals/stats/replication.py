"""How many trainings a difference needs: the paired t-test over seeds, prompts taken as they are.

Two designs are trained with the same seeds; d_i is the difference of their scores with seed i, with mean d and
standard deviation s over seeds. "No difference" is rejected where |d| > t(1 - alpha/2; n - 1) s / sqrt(n). With a true
difference D this happens with probability

    power(n) = P(|T| > t(1 - alpha/2; n - 1)),   T noncentral t, n - 1 degrees of freedom, noncentrality D sqrt(n) / s

(Owen, Technometrics 10, 1968, 445-478; Cohen, Statistical Power Analysis, 2nd edition 1988, chapter 2). The smallest n
with power(n) >= 0.8 is the answer. statsmodels' `TTestPower` computes the same, which the tests use. s is itself known
from few seeds only: `sd_interval` says how well (chi-squared), and the answer grows with its square.

Other prompts are another source of chance; `evals.stats.seeds.seeds_needed` counts both.
"""

from __future__ import annotations

import math

from evals.stats.clusters import check_level, t_quantile

_NODES = 400  # of the integration; agrees with statsmodels to 1e-6


def paired_power(n_seeds: int, difference: float, sd: float, *, alpha: float = 0.05) -> float:
    """Probability that `n_seeds` pairs (two or more) show a true `difference`, two-sided at `alpha`.

    Args: sd: standard deviation of the paired differences over seeds, above 0.
    Raises: ValueError for fewer than two seeds or a spread that is not above 0.
    """
    import numpy as np
    from scipy.special import chdtri, ndtr

    if n_seeds < 2:
        raise ValueError(f"n_seeds {n_seeds}: a paired t-test needs two or more")
    if not 0 < sd < math.inf:
        raise ValueError(f"sd {sd} must be a number above 0")
    dof, bound = n_seeds - 1, t_quantile(1 - alpha, n_seeds - 1)
    shift = difference * math.sqrt(n_seeds) / sd
    # T = (Z + shift) / sqrt(V / dof) with V chi-squared: integrated over V's quantiles, as scipy.special.nctdtr gives
    # NaN for large shifts.
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    limit = bound * np.sqrt(chdtri(dof, (1 + nodes) / 2) / dof)
    return float(weights @ (ndtr(shift - limit) + ndtr(-shift - limit)) / 2)


def paired_seeds_needed(
    difference: float, sd: float, *, power: float = 0.8, alpha: float = 0.05, limit: int = 1000
) -> int | None:
    """Fewest seeds with which a paired t-test finds a true `difference`; None if `limit` are not enough.

    A spread of 0 needs two seeds, the least with which there is a spread.
    Raises: ValueError for a difference that is not above 0 or a negative spread.
    """
    if not 0 < difference < math.inf:
        raise ValueError(f"difference {difference} must be a number above 0")
    if not 0 <= sd < math.inf:
        raise ValueError(f"sd {sd} must be a number of 0 or more")
    for n in range(2, limit + 1):
        if sd == 0 or paired_power(n, difference, sd, alpha=alpha) >= power:
            return n
    return None


def sd_interval(sd: float, dof: int, *, level: float = 0.95) -> tuple[float, float]:
    """Interval for a true standard deviation of which `sd` was seen with `dof` degrees of freedom, normal values.

    dof s^2 / sigma^2 is chi-squared with `dof` degrees of freedom. Raises: ValueError for fewer than one.
    """
    from scipy.special import chdtri

    check_level(level)
    if dof < 1:
        raise ValueError(f"dof {dof}: one degree of freedom or more is needed")
    tail = (1 - level) / 2
    return sd * math.sqrt(dof / chdtri(dof, tail)), sd * math.sqrt(dof / chdtri(dof, 1 - tail))
