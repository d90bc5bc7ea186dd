"""What the FID tasks read back from scores: features of pictures, collected on disk, and the figures over them.

A score's details hold the picture's features as base64 of little-endian float32, its logits where the Inception score
needs them, and the digest of the reference statistics they belong to. So a run folder holds all that its figures rest
on, interrupted runs resume like any other, and nothing is kept in memory.
"""

from __future__ import annotations

import base64
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evals.api import MetricValue, ScoreRow

if TYPE_CHECKING:
    import numpy as np

    from evals.metrics.features import FeatureFile, Statistics
    from evals.metrics.set_figures import PictureSet

FEATURES, LOGITS, REFERENCE = "features", "logits", "reference"


def encode(values: np.ndarray) -> str:
    """One picture's numbers as text."""
    import numpy as np

    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()


def decode(text: str) -> np.ndarray:
    """The numbers of `encode`, (1, D)."""
    import numpy as np

    return np.frombuffer(base64.b64decode(text), dtype="<f4")[None]


class Collected:
    """The features behind the rows of a run, read in one pass for all its figures."""

    def __init__(self, load_reference: Callable[[str], Statistics]) -> None:
        self._load_reference = load_reference
        self._rows: Sequence[ScoreRow] | None = None
        self._sets: dict[str | None, PictureSet] = {}
        self.reference: Statistics | None = None

    def of(self, rows: Sequence[ScoreRow], groups: Sequence[str]) -> dict[str | None, PictureSet]:
        """The set of all pictures under None, and of each group that has some. Empty when nothing was scored."""
        if rows is not self._rows:
            self._sets = self._collect(rows, groups)
            self._rows = rows
        return self._sets

    def _collect(self, rows: Sequence[ScoreRow], groups: Sequence[str]) -> dict[str | None, PictureSet]:
        import numpy as np

        from evals.metrics.features import FeatureFile
        from evals.metrics.set_figures import PictureSet

        features: FeatureFile | None = None
        logits: FeatureFile | None = None
        batch: list[np.ndarray] = []
        batch_logits: list[np.ndarray] = []

        def flush() -> None:
            nonlocal features, logits
            if batch:
                features = features or FeatureFile(batch[0].shape[1], with_moments=False)
                features.append(np.concatenate(batch))
                batch.clear()
            if batch_logits:
                logits = logits or FeatureFile(batch_logits[0].shape[1], with_moments=False)
                logits.append(np.concatenate(batch_logits))
                batch_logits.clear()

        clusters, group_of, unscored, prompt, before = array("q"), array("i"), 0, -1, None
        digests: dict[str, None] = {}
        for row in rows:
            details = row.score.details
            prompt += row.sample_id != before  # a prompt's pictures stand next to each other
            before = row.sample_id
            if FEATURES not in details:
                unscored += 1
                continue
            digests[details[REFERENCE]] = None
            batch.append(decode(details[FEATURES]))
            if LOGITS in details:
                batch_logits.append(decode(details[LOGITS]))
            clusters.append(prompt)
            group_of.append(groups.index(row.group) if row.group in groups else -1)
            if len(batch) >= 512:
                flush()
        flush()
        if features is None:
            return {}
        self.reference = self._load_reference(next(iter(digests)))
        whole = PictureSet(
            features.array(),
            np.array(clusters),
            None if logits is None else logits.array(),
            unscored,
        )
        found: dict[str | None, PictureSet] = {None: whole}
        for number, group in enumerate(groups):
            mine = np.flatnonzero(np.array(group_of) == number)
            if len(mine):
                found[group] = PictureSet(whole.features[mine], whole.clusters[mine])
        return found


@dataclass(frozen=True)
class SetMetric:
    """One figure of the whole set. Its full name, with features and resize, is known when it is computed."""

    name: str  # fd, kid, is, precision or recall
    collected: Collected = field(repr=False, compare=False)
    groups: tuple[str, ...] = ()
    unit: str = "distance"
    higher_is_better: bool = False

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        from evals.metrics import manifold, set_figures

        found = self.collected.of(rows, self.groups).get(None)
        if found is None:
            return self._nothing(rows)
        reference = self.collected.reference
        assert reference is not None
        if self.name == "fd":
            return set_figures.frechet_figure(found, reference)
        if self.name == "kid":
            return set_figures.kernel_figure(found, reference)
        if self.name == "is":
            return set_figures.inception_score_figure(found, reference) or self._nothing(
                rows, "these features are of no classifier whose classes count"
            )
        if self.name == "recall":
            return set_figures.recall_figure(found, reference)
        within = manifold.is_within(found.features, reference.features, reference.radii)
        return set_figures.precision_figure(found, reference, within)

    def _nothing(self, rows: Sequence[ScoreRow], note: str = "nothing was scored") -> MetricValue:
        return MetricValue(
            self.name, None, 0, len(rows), None, self.unit, self.higher_is_better, 0, None, note
        )


@dataclass(frozen=True)
class GroupFrechet:
    """The Frechet distance of one group's pictures to the reference's pictures of that group (MJHQ-30K)."""

    group: str
    collected: Collected = field(repr=False, compare=False)
    groups: tuple[str, ...] = ()
    unit: str = "distance"
    higher_is_better: bool = False

    @property
    def name(self) -> str:
        return f"fd:{self.group}"

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        from dataclasses import replace

        from evals.metrics import set_figures
        from evals.metrics.frechet import moments_of

        found = self.collected.of(rows, self.groups).get(self.group)
        if found is None:
            note = "no pictures of this group"
            return MetricValue(self.name, None, 0, 0, None, self.unit, False, 0, None, note)
        reference = self.collected.reference
        assert reference is not None
        own = reference.of_group(self.group)
        name = f"{set_figures.name_of('fd', reference.recipe)}:{self.group}"
        if len(own) < 2:
            note = "not given: the reference has fewer than 2 pictures of this group"
            return MetricValue(name, None, found.n, 0, None, self.unit, False, 0, None, note)
        part = replace(reference, gaussian=moments_of(own).compute(), features=own)
        return replace(set_figures.frechet_figure(found, part, with_interval=False), name=name)


def set_metrics(
    collected: Collected,
    groups: tuple[str, ...] = (),
    with_classes: bool = True,
    headline: str = "fd",
) -> list[Any]:
    """The figures in the order in which reports print them; the headline is fd or kid."""
    kinds = [("fd", "distance", False), ("kid", "distance", False)]
    kinds.sort(key=lambda kind: kind[0] != headline)
    kinds += [("is", "score", True)] if with_classes else []
    kinds += [("precision", "fraction", True), ("recall", "fraction", True)]
    figures: list[Any] = [SetMetric(n, collected, groups, unit, up) for n, unit, up in kinds]
    return figures + [GroupFrechet(group, collected, groups) for group in groups]
