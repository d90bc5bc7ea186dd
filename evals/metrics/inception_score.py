"""Inception score: how sure a classifier is about each picture, and how varied its answers are over all.

    exp(mean KL(p(y|x) || p(y))), the mean over ten parts of the pictures; 1 or more, higher is better.

It looks at no reference. Input: logits (N, C). Reference: torch-fidelity 0.4 (`isc_features_to_metric`, seed 2020),
the same parts and value to 1e-10. Source: Salimans et al., arXiv:1606.03498.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SPLITS = 10
SEED = 2020


def scores_of_parts(logits: Any, splits: int = SPLITS, seed: int = SEED) -> np.ndarray:
    """The score of each part, float64 (splits,). Raises ValueError for fewer pictures than parts."""
    n = len(logits)
    if n < splits:
        raise ValueError(f"an inception score of {splits} parts needs {splits} pictures, there are {n}")
    order = np.random.RandomState(seed).permutation(n)
    return np.array(
        [_score(logits[order[i * n // splits : (i + 1) * n // splits]]) for i in range(splits)]
    )


def inception_score(logits: Any, splits: int = SPLITS, seed: int = SEED) -> float:
    """The mean over the parts."""
    return float(scores_of_parts(logits, splits, seed).mean())


def _score(logits: Any) -> float:
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    p = np.exp(log_p)
    q = p.mean(axis=0)
    # Classes that nobody is given probability for add nothing, though their logarithm is infinite.
    log_q = np.log(np.where(q > 0, q, 1.0))
    return float(np.exp((p * (log_p - log_q)).sum(axis=1).mean()))
