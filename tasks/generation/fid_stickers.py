"""The offline edition of `fid`: sticker scenes, and features of a small classifier of the sticker world.

Measures: distance of a model's pictures of 1,000 prompts to 3,000 other scenes of the same kind.
Data: made by `blip3o.stickers`, split test, level easy, nothing to download; prompts and reference scenes differ.
Scorer: kernel and Frechet distance (`evals.metrics`) on the features of `blip3o.stickers.feature_net`, which shares no
weights with any part of a model.

Worth: figures about sticker scenes and these features only; they are no FID and compare with none. `kid-stickers`
near 0 says that the set cannot be told from real scenes by these features; other real scenes are the floor, see
docs/fid.md.

Version 1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from evals.api import Sample
from tasks.generation.fid_base import FidTask

if TYPE_CHECKING:
    from evals.metrics.features import Statistics

SPLIT, LEVEL = "test", "easy"
PROMPTS, REFERENCES, FIRST_REFERENCE = 1_000, 3_000, 100_000
_BATCH = 100


class FidStickers(FidTask):
    """The task; see the module's card."""

    name = "fid_stickers"
    groups = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
    with_classes = False
    headline = "kid"  # not biased by the number of pictures, which is small here
    # The pictures are stickers whatever drew them.
    judges: Mapping[str, str] = {
        "stickers": "sticker-features",
        "photos": "sticker-features",
        "unknown": "sticker-features",
        "test": "sticker-features",
    }
    card: Mapping[str, str] = {
        "measures": "distance of the set of pictures to real sticker scenes, prompts aside",
        "paper": "none; made for this package (estimators: arXiv:1706.08500, arXiv:1801.01401)",
        "data": "1,000 prompts and 3,000 reference scenes of the sticker world, split test, level easy",
        "licence": "Apache-2.0; sprites: Noto Emoji, Apache-2.0",
        "scorer": "kernel and Frechet distance on features of a classifier of the sticker world",
        "worth": "No FID: other features, other pictures. Compares models of the sticker world with one another.",
    }

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        from blip3o.stickers import SceneConfig, make_scene

        world = SceneConfig.level(LEVEL)
        scenes = [make_scene(SPLIT, index, world) for index in range(PROMPTS)]
        return tuple(
            Sample(f"{SPLIT}-{scene.index:04d}", number, scene.kind, scene.spec()["prompt"])
            for number, scene in enumerate(scenes)
        )

    def samples(self) -> Sequence[Sample]:
        return self._samples

    def digest(self) -> str:
        total = hashlib.sha256(self.reference_digest().encode())
        for sample in self._samples:
            total.update(json.dumps([sample.id, sample.prompt]).encode())
        return total.hexdigest()

    def reference_digest(self) -> str:
        from blip3o.stickers import SceneConfig

        key = f"{SPLIT} {SceneConfig.level(LEVEL).digest} {FIRST_REFERENCE} {REFERENCES}"
        return hashlib.sha256(key.encode()).hexdigest()

    def make_reference(self, judge: Any) -> Statistics:
        from evals.metrics.features import collect

        return collect(self._batches(judge), judge.recipe, "sticker scenes", self.reference_digest())

    def _batches(self, judge: Any) -> Iterator[tuple[Any, list[str]]]:
        from PIL import Image

        from blip3o.stickers import SceneConfig, make_scene, render

        world = SceneConfig.level(LEVEL)
        for start in range(FIRST_REFERENCE, FIRST_REFERENCE + REFERENCES, _BATCH):
            scenes = [make_scene(SPLIT, index, world) for index in range(start, start + _BATCH)]
            pictures = [Image.fromarray(render(scene).image) for scene in scenes]
            yield judge.extract(pictures).features, [scene.kind for scene in scenes]

    def _stored(self, key: str) -> Statistics:
        """These can be made again from nothing, so a cleared cache does no harm."""
        from evals.api import ModelOptions
        from evals.errors import MissingRequirementError
        from evals.judges.features import create_stickers

        try:
            return super()._stored(key)
        except MissingRequirementError:
            judge = create_stickers("", ModelOptions())
            if self._key(judge.recipe) != key:
                raise
            return self._reference_for(judge)
