"""Frechet distance between two sets of features, each seen as a Gaussian (FID, where the features are Inception's).

    d = |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))

Lower is better; 0 for equal sets. Input: features (N, D), any float dtype, computed with in float64. Covariances are
divided by N - 1. Reference: torch-fidelity 0.4 (`fid_statistics_to_metric`), equal to 1e-5 of the value on float32
features, whose mean it rounds to float32; closed forms in the tests. Source: Heusel et al., arXiv:1706.08500.

The distance is biased upwards, the more the fewer pictures: values compare at equal numbers only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Gaussian:
    """Mean (D,) and covariance (D, D) of n features, float64."""

    n: int
    mean: np.ndarray
    covariance: np.ndarray


class Moments:
    """Count, sum and sum of outer products: all that the distance needs of a set, whatever its size.

    Float64 sums of float32 numbers: batch size and order change nothing beyond rounding (1e-12 of the value).
    """

    def __init__(self, dimensions: int) -> None:
        self.n = 0
        self.total = np.zeros(dimensions)
        self.outer = np.zeros((dimensions, dimensions))

    def update(self, features: np.ndarray) -> Moments:
        """Add features (B, D). Raises ValueError for another width or for values that are not finite."""
        batch = np.asarray(features, dtype=np.float64)
        if batch.ndim != 2 or batch.shape[1] != len(self.total):
            raise ValueError(f"features of shape {batch.shape} do not fit {len(self.total)} dimensions")
        if not np.isfinite(batch).all():
            raise ValueError("features hold values that are not finite")
        self.n += len(batch)
        self.total += batch.sum(axis=0)
        self.outer += batch.T @ batch
        return self

    def minus(self, part: Moments) -> Moments:
        """What is left of the set without a part of it."""
        rest = Moments(0)
        rest.n = self.n - part.n
        rest.total, rest.outer = self.total - part.total, self.outer - part.outer
        return rest

    def compute(self) -> Gaussian:
        """Mean and covariance. Raises ValueError for fewer than two features."""
        if self.n < 2:
            raise ValueError(f"a covariance needs 2 pictures or more, there are {self.n}")
        mean = self.total / self.n
        covariance = (self.outer - self.n * np.outer(mean, mean)) / (self.n - 1)
        return Gaussian(self.n, mean, (covariance + covariance.T) / 2)


def moments_of(features: np.ndarray) -> Moments:
    """The moments of all rows of features (N, D)."""
    return Moments(np.shape(features)[1]).update(features)


class Frechet:
    """The distance of many sets to one reference, whose square root is taken once."""

    def __init__(self, reference: Gaussian) -> None:
        self.reference = reference
        self._root = _square_root(reference.covariance)

    def distance(self, other: Gaussian) -> float:
        """The distance; not negative. Raises ValueError when the dimensions differ."""
        if other.mean.shape != self.reference.mean.shape:
            raise ValueError(
                f"features of {len(other.mean)} and of {len(self.reference.mean)} dimensions have no distance"
            )
        shift = other.mean - self.reference.mean
        # The eigenvalues of S1 S2 are those of the symmetric S1^(1/2) S2 S1^(1/2), which stay real and stable.
        inner = self._root @ other.covariance @ self._root
        overlap = np.sqrt(_no_noise(np.linalg.eigvalsh((inner + inner.T) / 2))).sum()
        traces = np.trace(self.reference.covariance) + np.trace(other.covariance)
        return max(0.0, float(shift @ shift + traces - 2 * overlap))


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """The distance between two sets; see `Frechet`."""
    return Frechet(first).distance(second)


def _square_root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    root: np.ndarray = (vectors * np.sqrt(_no_noise(values))) @ vectors.T
    return root


def _no_noise(eigenvalues: np.ndarray) -> np.ndarray:
    """Rounding leaves eigenvalues of about 1e-16 of the largest where there should be zeros: with fewer pictures
    than dimensions that is most of them, and their square roots would add up."""
    floor = np.finfo(np.float64).eps * len(eigenvalues) * max(float(eigenvalues.max(initial=0.0)), 0.0)
    kept: np.ndarray = np.where(eigenvalues > floor, eigenvalues, 0.0)
    return kept
