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


def kernel(x: Any, y: Any) -> np.ndarray:
    """(N, D), (M, D) -> (N, M), float64."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    value: np.ndarray = (x @ y.T / x.shape[1] + 1.0) ** 3
    return value


def unbiased_mmd2(x: Any, y: Any) -> float:
    """The unbiased estimate from all pairs. Raises ValueError for fewer than two features in a set."""
    n, m = len(x), len(y)
    if n < 2 or m < 2:
        raise ValueError(f"a kernel distance needs 2 pictures or more in each set, there are {n} and {m}")
    own = within(x) + within(y)
    return own - 2 * float(kernel(x, y).mean())


def within(x: Any) -> float:
    """Mean kernel value over pairs of different features of one set."""
    values = kernel(x, x)
    n = len(values)
    return float((values.sum() - np.trace(values)) / (n * (n - 1)))


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
