"""What the FID tasks share: features of a model's pictures, against the statistics of a reference.

Reference statistics are made once per reference and recipe, by the judge itself, and kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.api import Metric, Sample, Score, ScoreItem, TaskKind
from evals.errors import InputError, MissingRequirementError, StoreError

if TYPE_CHECKING:
    from evals.metrics.features import Recipe, Statistics


class FidTask:
    """Base of the tasks; a subclass says what the prompts and the reference are."""

    name = ""
    version = "1"
    kind: TaskKind = "generation"
    groups: tuple[str, ...] = ("all",)
    num_images = 1
    judges: Mapping[str, str] = {}
    judge_methods = ("extract",)
    card: Mapping[str, str] = {}
    with_classes = True
    headline = "fd"

    def __init__(self) -> None:
        self._reference: Statistics | None = None

    def samples(self) -> Sequence[Sample]:
        raise NotImplementedError

    def reference_digest(self) -> str:
        """sha256 of which pictures the reference is."""
        raise NotImplementedError

    def make_reference(self, judge: Any) -> Statistics:
        """The reference's statistics by this judge's features; refuses ready ones of another recipe."""
        raise NotImplementedError

    def reporting_groups(self) -> tuple[str, ...]:
        """Groups with a distance of their own."""
        return ()

    def score(self, items: Sequence[ScoreItem], judge: Any | None) -> Sequence[Score]:
        """Value 1 when the picture lies within the reference's manifold (their mean is `precision`), else 0.

        Details: the features, from which all other figures come.
        """
        from evals.metrics import manifold
        from tasks.generation import fid_metrics as rows

        if judge is None:
            raise ValueError(f"{self.name} needs a judge that takes features")
        reference = self._reference_for(judge)
        extracted = judge.extract([item.image for item in items])
        within = manifold.is_within(extracted.features, reference.features, reference.radii)
        scores = []
        for number, is_inside in enumerate(within):
            details = {
                rows.REFERENCE: self._key(judge.recipe),
                rows.FEATURES: rows.encode(extracted.features[number]),
            }
            if extracted.logits is not None:
                details[rows.LOGITS] = rows.encode(extracted.logits[number])
            reason = "" if is_inside else "far from every picture of the reference"
            scores.append(Score(float(is_inside), reason=reason, details=details))
        return scores

    def metrics(self) -> Sequence[Metric]:
        from tasks.generation.fid_metrics import Collected, set_metrics

        collected = Collected(self._stored)
        return set_metrics(collected, self.reporting_groups(), self.with_classes, self.headline)

    def _key(self, recipe: Recipe) -> str:
        text = f"{self.name} {self.version} {self.reference_digest()} {recipe.digest}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _reference_for(self, judge: Any) -> Statistics:
        """From memory, else from the cache, else made now."""
        if self._reference is not None and self._reference.recipe == judge.recipe:
            return self._reference
        from evals.metrics import features

        path = _cache(self._key(judge.recipe))
        found = None
        if path.exists():
            try:
                found = features.load(path)
            except InputError:  # damaged: made again
                found = None
        if found is None:
            found = self.make_reference(judge)
            judge.recipe.refuse_other(found.recipe, found.source)
            try:
                features.save(found, path)
            except OSError as error:
                raise StoreError(
                    f"{path}: reference statistics cannot be kept ({error.strerror}); set XDG_CACHE_HOME to a folder "
                    "that can be written"
                ) from error
            found = features.load(path)
        self._reference = found
        return found

    def _stored(self, key: str) -> Statistics:
        """The statistics that scores were made with. Raises MissingRequirementError once they are gone."""
        from evals.metrics import features

        path = _cache(key)
        if not path.exists():
            raise MissingRequirementError(
                f"{path}: the reference statistics of these scores are gone; run it again with --fresh, or rescore "
                "the run"
            )
        return features.load(path)


def _cache(key: str) -> Path:
    from evals.io.digests import cache_file

    return cache_file().parent / "statistics" / f"{key}.safetensors"
