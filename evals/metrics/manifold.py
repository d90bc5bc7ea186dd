"""Improved precision and recall: which pictures lie within the other set's manifold.

The manifold of a set is the union of balls around its features, each as wide as the distance to its third nearest
neighbour in the set. Precision: the share of generated pictures within the reference's manifold. Recall: the share of
reference pictures within that of the generated. Both 0 to 1, higher is better.

Reference: torch-fidelity 0.4 (`prc_features_to_metric`), equal but for pictures on a ball's very edge.
Source: Kynkaanniemi et al., arXiv:1904.06991. Input: features (N, D).
"""

from __future__ import annotations

from typing import Any

import numpy as np

NEIGHBOURS = 3
_BLOCK = 1024


def radii(features: Any, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """Squared distance of each feature to its n-th nearest neighbour, float64 (N,).

    Raises ValueError for sets of n features or fewer.
    """
    if len(features) <= neighbours:
        raise ValueError(
            f"a manifold of {neighbours} neighbours needs {neighbours + 1} pictures, there are {len(features)}"
        )
    found = np.empty(len(features))
    for start in range(0, len(features), _BLOCK):
        block = features[start : start + _BLOCK]
        nearest = _keep_nearest(block, features, neighbours + 1, start)
        found[start : start + len(block)] = nearest[:, neighbours]
    return found


def is_within(features: Any, reference: Any, reference_radii: np.ndarray) -> np.ndarray:
    """Whether each feature (N, D) lies within any ball of the reference, bool (N,)."""
    found = np.zeros(len(features), dtype=bool)
    for start in range(0, len(features), _BLOCK):
        block = features[start : start + _BLOCK]
        for first in range(0, len(reference), _BLOCK):
            part = reference[first : first + _BLOCK]
            near = squared_distances(block, part) <= reference_radii[first : first + _BLOCK]
            found[start : start + len(block)] |= near.any(axis=1)
    return found


def squared_distances(x: Any, y: Any) -> np.ndarray:
    """(N, D), (M, D) -> (N, M), float64, not negative."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    squares = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1) - 2 * x @ y.T
    return np.maximum(squares, 0.0)


def _keep_nearest(block: Any, features: Any, n: int, start: int) -> np.ndarray:
    """The n smallest squared distances from each row of the block to all features, sorted, itself first."""
    best = np.full((len(block), n), np.inf)
    for first in range(0, len(features), _BLOCK):
        distances = squared_distances(block, features[first : first + _BLOCK])
        own = np.arange(start, start + len(block)) - first
        is_here = (own >= 0) & (own < distances.shape[1])
        distances[np.flatnonzero(is_here), own[is_here]] = 0.0
        joined = np.concatenate([best, distances], axis=1)
        best = np.partition(joined, n - 1, axis=1)[:, :n]
    return np.sort(best, axis=1)
