"""Edits of sticker scenes: does the picture follow the instruction, and does the rest stay as it was?

Measures: editing by instruction. 240 pairs of a source picture and an instruction, 60 of each kind (recolor, remove,
add, move), half of them with results that training on the sticker world never shows.
Data: made by `blip3o.stickers.edits`, splits test_seen and test_unseen, level easy; nothing to download.
Scorer: `edit_rules`, on the detections of the judge. A picture is right when the asked change is there and every other
object is still found at its place in its colour, with nothing added.

Worth: figures about sticker scenes only; they do not compare with figures on photographs. Read a score beside two
baselines: `copy_source`, the judge's verdict on the unchanged source, is a metric of every run (model `copy-source`
is the same as a model), and a model without its picture (`--set model.args.without_images=true`) shows what the words
alone give.

Version 1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from evals.api import Metric, MetricValue, Sample, Score, ScoreItem, ScoreRow, TaskKind, Terms

KINDS = ("recolor", "remove", "add", "move")
SPLITS = ("test_seen", "test_unseen")
PER_KIND_AND_SPLIT = 30


class EditStickers:
    """The task; see the module's card."""

    name = "edit_stickers"
    version = "1"
    kind: TaskKind = "generation"
    groups = KINDS
    num_images = 1
    # The pictures are stickers whatever drew them.
    judges: Mapping[str, str] = {
        "stickers": "stickers",
        "photos": "stickers",
        "unknown": "stickers",
    }
    card: Mapping[str, str] = {
        "measures": "whether an edit by instruction is carried out and the rest kept",
        "paper": "none; made for this package",
        "data": "240 edit pairs of the sticker world, splits test_seen and test_unseen, level easy",
        "licence": "Apache-2.0; sprites: Noto Emoji, Apache-2.0",
        "scorer": "the rules of tasks/generation/edit_rules.py on the judge's detections",
        "worth": (
            "Sticker scenes only: no figure here compares with one on photographs. Read it beside copy_source, the "
            "verdict on the unchanged picture, and beside the same model without its picture."
        ),
    }

    @cached_property
    def _pairs(self) -> list[Any]:
        from blip3o.stickers import SceneConfig
        from blip3o.stickers.edits import make_edit

        world = SceneConfig.level("easy")
        return [
            make_edit(split, index, world, (kind,))
            for kind in KINDS
            for split in SPLITS
            for index in range(PER_KIND_AND_SPLIT)
        ]

    def samples(self) -> Sequence[Sample]:
        """The pairs, kind by kind; ``images`` holds the source picture."""
        from PIL import Image

        from blip3o.stickers import render

        return [
            Sample(
                id=f"{pair.kind}-{pair.source.split}-{pair.source.index:04d}",
                number=number,
                group=pair.kind,
                prompt=pair.instruction,
                metadata={
                    "kind": pair.kind,
                    "split": pair.source.split,
                    "index": pair.source.index,
                    "source": _objects(pair.source),
                    "target": _objects(pair.target),
                },
                images=(Image.fromarray(render(pair.source).image),),
            )
            for number, pair in enumerate(self._pairs)
        ]

    def digest(self) -> str:
        total = hashlib.sha256()
        for sample in self.samples():
            total.update(json.dumps([sample.prompt, sample.metadata], sort_keys=True).encode())
            total.update(sample.images[0].tobytes())
        return total.hexdigest()

    def score(self, items: Sequence[ScoreItem], judge: Any | None) -> Sequence[Score]:
        """Value 1 or 0. Details: ``followed``, ``kept``, ``changed_elsewhere`` (mean absolute difference of 1 to the
        source outside the edited objects), ``copy_source``, ``held_out`` and the detections."""
        from tasks.generation import edit_rules as rules

        if judge is None:
            raise ValueError("edit_stickers needs a judge that finds objects")
        images = [item.image for item in items]
        sources = [item.sample.images[0] for item in items]
        asked = [rules.color_classes(item.sample.metadata) for item in items]
        found = judge.detect([*images, *sources], [*asked, *asked])
        scores = []
        for number, item in enumerate(items):
            assert item.image is not None
            record = item.sample.metadata
            try:
                verdict = rules.judge(found[number], item.image.size, record)
                copied = rules.judge(found[len(items) + number], sources[number].size, record)
            except rules.EditSpecError as error:
                scores.append(Score.unscored(f"the judge's answer cannot be used: {error}"))
                continue
            details = {
                "followed": verdict.followed,
                "kept": verdict.kept,
                "changed_elsewhere": self._changed_elsewhere(item),
                "copy_source": copied.is_right,
                "held_out": record["split"] == "test_unseen",
                "detections": verdict.detections,
            }
            scores.append(Score(float(verdict.is_right), reason=verdict.reason, details=details))
        return scores

    def _changed_elsewhere(self, item: ScoreItem) -> float:
        import numpy as np
        from PIL import Image

        from blip3o.stickers import render

        assert item.image is not None
        pair = self._pairs[item.sample.number]
        source = np.asarray(item.sample.images[0], dtype=float)
        image = item.image.convert("RGB")
        if image.size != item.sample.images[0].size:
            image = image.resize(item.sample.images[0].size, Image.Resampling.BICUBIC)
        edited = np.zeros(source.shape[:2], dtype=bool)
        for scene, other in ((pair.source, pair.target), (pair.target, pair.source)):
            for sticker, mask in zip(scene.stickers, render(scene).masks, strict=True):
                if sticker not in other.stickers:
                    edited |= mask
        difference = np.abs(np.asarray(image, dtype=float) - source).mean(axis=2) / 255
        return float(difference[~edited].mean())

    def metrics(self) -> Sequence[Metric]:
        """`overall`, the mean of the four kinds; each kind; its two halves; baselines; what else changed."""
        from evals.metrics.accuracy import GroupMean, MeanOfGroups

        return [
            MeanOfGroups(KINDS, name="overall"),
            *(GroupMean(kind, name=kind) for kind in KINDS),
            MeanOfGroups(KINDS, name="followed", detail="followed"),
            MeanOfGroups(KINDS, name="kept", detail="kept"),
            MeanOfGroups(KINDS, name="copy_source", detail="copy_source"),
            _Half(MeanOfGroups(KINDS, name="seen_half"), is_held_out=False),
            _Half(MeanOfGroups(KINDS, name="unseen_half"), is_held_out=True),
            GroupMean(
                None, name="changed_elsewhere", detail="changed_elsewhere", higher_is_better=False
            ),
        ]


class _Half:
    """A metric over the pairs whose result training was kept from, or over the others."""

    unit, higher_is_better = "fraction", True

    def __init__(self, metric: Any, is_held_out: bool) -> None:
        self.metric, self.is_held_out, self.name = metric, is_held_out, metric.name

    def _mine(self, rows: Sequence[ScoreRow]) -> list[ScoreRow]:
        return [r for r in rows if r.score.details.get("held_out") is self.is_held_out]

    def terms(self, rows: Sequence[ScoreRow]) -> Terms | None:
        terms: Terms | None = self.metric.terms(self._mine(rows))
        return terms

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        value: MetricValue = self.metric.compute(self._mine(rows))
        return value


def _objects(scene: Any) -> list[dict[str, Any]]:
    """Class, named colour (or None) and box, as fractions of the side, of everything a scene shows."""
    return [
        {
            "class": sticker.class_name,
            "color": sticker.color,
            "box": [round(side, 4) for side in sticker.extent],
        }
        for sticker in scene.stickers
    ]
