"""Kernel distance between two sets of features (KID, where the features are Inception's).

The squared maximum mean discrepancy under the kernel k(x, y) = (x.y / D + 1)^3, in its unbiased form: lower is better,
about 0 (also below) for sets of one kind, and its expectation does not depend on the number of pictures.

`kernel_distance` is the mean over seeded subsets, as torch-fidelity 0.4 computes it (100 subsets of 1,000, seed 2020;
the same subsets and, in float64, the same value to 1e-5 of the kernel's scale). Source: Binkowski et al.,
arXiv:1801.01401. Input: features (N, D), any float dtype.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SUBSETS = 100
SUBSET_SIZE = 1000
SEED = 2020
_BLOCK = 512  # rows of kernel values in memory at a time


def kernel(x: Any, y: Any) -> np.ndarray:
    """(N, D), (M, D) -> (N, M), float64."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    value: np.ndarray = x @ y.T
    value /= x.shape[1]
    value += 1.0
    value **= 3
    return value


def between(x: Any, y: Any) -> float:
    """Mean kernel value over pairs of one feature of each set."""
    return _total(x, y) / (len(x) * len(y))


def unbiased_mmd2(x: Any, y: Any) -> float:
    """The unbiased estimate from all pairs. Raises ValueError for fewer than two features in a set."""
    n, m = len(x), len(y)
    if n < 2 or m < 2:
        raise ValueError(f"a kernel distance needs 2 pictures or more in each set, there are {n} and {m}")
    own = within(x) + within(y)
    return own - 2 * between(x, y)


def within(x: Any) -> float:
    """Mean kernel value over pairs of different features of one set."""
    x = np.asarray(x, dtype=np.float64)
    with_itself = ((x * x).sum(axis=1) / x.shape[1] + 1.0) ** 3
    n = len(x)
    return float((_total(x, x) - with_itself.sum()) / (n * (n - 1)))


def _total(x: Any, y: Any) -> float:
    y = np.asarray(y, dtype=np.float64)
    blocks = (x[start : start + _BLOCK] for start in range(0, len(x), _BLOCK))
    return float(sum(kernel(block, y).sum() for block in blocks))


def kernel_distance(
    x: Any,
    y: Any,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = SEED,
) -> float:
    """Mean of `unbiased_mmd2` over seeded subsets of equal size; x are the generated features, y the reference's.

    Sets smaller than `subset_size` make the subsets smaller: they are then the whole of the smaller set. x and y may
    be arrays on disk: only a subset is read at a time.
    """
    size = min(subset_size, len(x), len(y))
    rng = np.random.RandomState(seed)
    total = 0.0
    for _ in range(subsets):
        one = x[rng.choice(len(x), size, replace=False)]
        two = y[rng.choice(len(y), size, replace=False)]
        total += unbiased_mmd2(one, two)
    return total / subsets
