"""From the features of two sets to the figures of the FID family, each with its interval and caveats.

=================  =========================================================================================
figure             value, and what its 95 % interval is
=================  =========================================================================================
fid, fd            Frechet distance. Interval: the generated prompts in ten seeded parts, each left out in
                   turn (delete-a-group jackknife, Student's t with 9 degrees of freedom). It covers the
                   distance at this number of pictures, bias included, for this reference.
kid                mean over 100 seeded subsets, as torch-fidelity. Interval: the spread of the distance over
                   ten disjoint parts of the prompts, each against the same reference (at most 5,000 of it).
is                 mean over ten parts; interval: the spread over them.
precision          share of pictures within the reference's manifold; interval over prompts (`evals.stats`).
recall             share of the reference within the pictures' manifold; none: both sets would have to vary.
fd, kid, bootstrap on demand, as for small sets: prompts drawn with replacement, percentiles around the value. Drawing
                   pictures twice moves both distances upwards, so the draws' own mean is put in place of it.
=================  =========================================================================================

Names say the features, and the resize where it is not the default: `fid-clean`, `fid-legacy`, `kid-clean` for
Inception, `fd-stickers`, `kid-stickers`, `fd-effnetlite0` for others. N pictures, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evals import stats
from evals.api import MetricValue
from evals.metrics import inception_score, kernel, manifold
from evals.metrics.features import Recipe, Statistics
from evals.metrics.frechet import Frechet, Moments, moments_of

PARTS = 10
USUAL_PICTURES = 30_000
MAX_REFERENCE = 5_000
_T9 = 2.2621571628  # Student's t, 9 degrees of freedom, 97.5 %
_BLOCK = 4096
_SEED = 2020


@dataclass(frozen=True, eq=False)
class PictureSet:
    """Features of generated pictures. ``clusters`` (N,): which prompt each is of. ``unscored``: pictures without."""

    features: np.ndarray
    clusters: np.ndarray
    logits: np.ndarray | None = None
    unscored: int = 0

    @property
    def n(self) -> int:
        return len(self.features)

    @property
    def n_clusters(self) -> int:
        return len(np.unique(self.clusters))


def name_of(figure: str, recipe: Recipe) -> str:
    """``fid-clean``; ``kid-stickers``; ``fd-effnetlite0-legacy``. ``figure``: fd, kid, is, precision, recall."""
    if recipe.features == "inception":
        return f"{'fid' if figure == 'fd' else figure}-{recipe.resize}"
    return f"{figure}-{recipe.features}" + ("-legacy" if recipe.resize == "legacy" else "")


def frechet_figure(
    found: PictureSet, reference: Statistics, with_interval: bool = True, draws: int = 0
) -> MetricValue:
    """The Frechet distance of the set to the reference; ``draws``: of a bootstrap, 0 for the jackknife."""

    def compute() -> tuple[float, tuple[float, float] | None]:
        frechet, whole = Frechet(reference.gaussian), _moments(found.features)
        value = frechet.distance(whole.compute())
        if draws:
            ci = _bootstrap(found, value, draws, lambda r: frechet.distance(_moments(found.features[r]).compute()))
            return value, ci and (max(0.0, ci[0]), ci[1])
        if not with_interval or found.n_clusters < 2 * PARTS:
            return value, None
        left = []
        for rows in _parts(found):
            rest = whole.minus(_moments(found.features[rows]))
            if rest.n < 2:
                return value, None
            left.append(frechet.distance(rest.compute()))
        spread = np.sqrt((PARTS - 1) / PARTS * np.square(np.array(left) - np.mean(left)).sum())
        return value, (max(0.0, value - _T9 * spread), value + _T9 * spread)

    few = found.n < USUAL_PICTURES or reference.n < USUAL_PICTURES
    note = (
        f"{found.n:,} pictures against {reference.n:,}: biased upwards, compares at equal numbers only"
        if few
        else None
    )
    method = "centred bootstrap" if draws else "jackknife"
    return _figure("fd", "distance", False, found, reference, compute, method, note)


def kernel_figure(found: PictureSet, reference: Statistics, draws: int = 0) -> MetricValue:
    """The kernel distance of the set to the reference; ``draws``: of a bootstrap, 0 for disjoint parts."""

    def compute() -> tuple[float, tuple[float, float] | None]:
        value = kernel.kernel_distance(found.features, reference.features)
        if draws:
            other = _some(reference.features)
            # The reference's own term is the same in every draw.
            return value, _bootstrap(
                found,
                value,
                draws,
                lambda rows: kernel.within(found.features[rows])
                - 2 * kernel.between(found.features[rows], other),
            )
        parts = _parts(found)
        if found.n_clusters < 2 * PARTS or min(map(len, parts)) < 2:
            return value, None
        other = _some(reference.features)
        # The reference's own term is the same for all parts, so it does not spread.
        found_by_part = [
            kernel.within(part) - 2 * kernel.between(part, other)
            for part in (found.features[rows] for rows in parts)  # one in memory at a time
        ]
        half = _T9 * float(np.std(found_by_part, ddof=1)) / np.sqrt(PARTS)
        return value, (value - half, value + half)

    method = "centred bootstrap" if draws else "disjoint parts"
    return _figure("kid", "distance", False, found, reference, compute, method, None)


def inception_score_figure(found: PictureSet, reference: Statistics) -> MetricValue | None:
    """The Inception score; None for features whose classes do not count."""
    if found.logits is None:
        return None
    logits = found.logits

    def compute() -> tuple[float, tuple[float, float] | None]:
        parts = inception_score.scores_of_parts(logits)
        half = _T9 * float(parts.std(ddof=1)) / np.sqrt(len(parts))
        return float(parts.mean()), (max(1.0, float(parts.mean()) - half), float(parts.mean()) + half)

    return _figure("is", "score", True, found, reference, compute, "disjoint parts", None)


def precision_figure(found: PictureSet, reference: Statistics, is_within: np.ndarray) -> MetricValue:
    """The share of pictures within the reference's manifold; ``is_within`` (N,) as `manifold.is_within` gives it."""
    name = name_of("precision", reference.recipe)
    if not found.n:
        return MetricValue(name, None, 0, found.unscored, clusters=0, note="nothing was scored")
    estimate = stats.mean(is_within.astype(float), found.clusters.tolist(), bounded=True)
    return MetricValue(
        name,
        estimate.value,
        estimate.n,
        found.unscored,
        estimate.ci,
        clusters=estimate.n_clusters,
        method=estimate.method,
    )


def recall_figure(found: PictureSet, reference: Statistics) -> MetricValue:
    """The share of reference pictures within the set's manifold."""

    def compute() -> tuple[float, None]:
        own = manifold.radii(found.features)
        return float(manifold.is_within(reference.features, found.features, own).mean()), None

    return _figure("recall", "fraction", True, found, reference, compute, "none", None)


def all_figures(found: PictureSet, reference: Statistics, draws: int = 0) -> list[MetricValue]:
    """Every figure the features allow, headline first; with ``draws`` the distances' intervals are a bootstrap's."""
    within = manifold.is_within(found.features, reference.features, reference.radii)
    figures = [
        frechet_figure(found, reference, draws=draws),
        kernel_figure(found, reference, draws),
        inception_score_figure(found, reference),
        precision_figure(found, reference, within),
        recall_figure(found, reference),
    ]
    return [figure for figure in figures if figure is not None]


def _figure(
    figure: str,
    unit: str,
    higher_is_better: bool,
    found: PictureSet,
    reference: Statistics,
    compute: Callable[[], tuple[float, tuple[float, float] | None]],
    method: str,
    note: str | None,
) -> MetricValue:
    """The value with its interval, or None with the reason for sets that are too small."""
    value, ci = None, None
    try:
        value, ci = compute()
    except ValueError as error:
        note = f"not given: {error}"
    return MetricValue(
        name_of(figure, reference.recipe),
        value,
        found.n,
        found.unscored,
        None if ci is None else (float(ci[0]), float(ci[1])),
        unit,
        higher_is_better,
        found.n_clusters,
        method if ci is not None else "none",
        note,
    )


def _some(features: np.ndarray) -> np.ndarray:
    """At most 5,000 of them, by seed."""
    order = np.random.RandomState(_SEED).permutation(len(features))[:MAX_REFERENCE]
    return features[np.sort(order)]


def _bootstrap(
    found: PictureSet, value: float, draws: int, distance: Callable[[np.ndarray], float]
) -> tuple[float, float] | None:
    """95 % interval from ``draws`` of the prompts with replacement; None with fewer than two prompts.

    The draws' deviations from their own mean are laid around the value: a set with repeats lies farther from
    everything than one without, by about the same in every draw.
    """
    names, codes = np.unique(found.clusters, return_inverse=True)
    if len(names) < 2:
        return None
    rows_of = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    random = np.random.RandomState(_SEED)
    drawn = np.array(
        [
            distance(np.concatenate([rows_of[i] for i in random.randint(len(names), size=len(names))]))
            for _ in range(draws)
        ]
    )
    low, high = np.percentile(drawn - drawn.mean(), [2.5, 97.5])
    return value + float(low), value + float(high)


def _parts(found: PictureSet) -> list[np.ndarray]:
    """Row numbers of ten seeded parts; the pictures of a prompt stay together."""
    names, codes = np.unique(found.clusters, return_inverse=True)
    part_of = np.random.RandomState(_SEED).permutation(len(names)) % PARTS
    return [np.flatnonzero(part_of[codes] == part) for part in range(PARTS)]


def _moments(features: np.ndarray) -> Moments:
    if not len(features):
        return Moments(features.shape[1])
    whole = moments_of(features[:_BLOCK])
    for start in range(_BLOCK, len(features), _BLOCK):
        whole.update(features[start : start + _BLOCK])
    return whole
