"""Flat colours: can a text-to-image model leave everything out but one colour?

Measures: plain pictures. Eight prompts, two pictures each; the score is the share of pixels whose
nearest colour name is the one that was asked for.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from evals.api import Metric, Sample, Score, ScoreItem, TaskKind
from evals.metrics.accuracy import GroupMean, MeanOfGroups

BLIP3O_EVAL_API = 1  # the version of evals.api this was written for

GROUPS = {
    "warm": ("red", "orange", "yellow"),
    "cold": ("green", "blue", "purple"),
    "neutral": ("black", "white"),
}


class FlatColors:
    """Plain pictures of one colour, judged by their pixels."""

    name = "flat_colors"
    version = "1"  # raise it when prompts or scoring change: scores of two versions do not compare
    kind: TaskKind = "generation"  # or "understanding": then models answer in text
    groups = tuple(GROUPS)
    num_images = 2  # pictures per prompt
    # The judge that `--judge auto` takes for pictures of each domain.
    judges = {"photos": "pixels", "stickers": "pixels", "flat": "pixels"}
    judge_methods = ("color_shares",)  # what a judge must offer; checked before anything is generated
    card = {
        "measures": "whether a picture can be nothing but one colour",
        "paper": "none",
        "data": "eight prompts, written for this example",
        "licence": "Apache-2.0",
        "scorer": "share of pixels that are nearest to the colour asked for",
        "worth": "An example: eight prompts tell models apart only where they differ much.",
    }

    def samples(self) -> Sequence[Sample]:
        """All prompts in a fixed order. An id never changes: seeds hang on it."""
        colors = [(group, color) for group, members in GROUPS.items() for color in members]
        return [
            Sample(
                id=color,
                number=number,
                group=group,
                prompt=f"a plain {color} picture, nothing else in it",
                metadata={"color": color},
            )
            for number, (group, color) in enumerate(colors)
        ]

    def digest(self) -> str:
        """sha256 of everything that defines the samples."""
        prompts = [sample.prompt for sample in self.samples()]
        return hashlib.sha256(json.dumps(prompts).encode()).hexdigest()

    def score(self, items: Sequence[ScoreItem], judge: Any) -> Sequence[Score]:
        """One Score per item, in order; only pictures that were made arrive here."""
        shares = judge.color_shares([item.image for item in items])
        scores = []
        for item, share in zip(items, shares, strict=True):
            wanted = item.sample.metadata["color"]
            seen = max(share, key=share.get)
            reason = "" if seen == wanted else f"most of the picture is {seen}"
            scores.append(Score(share[wanted], answer=seen, reason=reason, details={"shares": share}))
        return scores

    def metrics(self) -> Sequence[Metric]:
        """Figures in printing order, the headline first; intervals resample the prompts."""
        return [MeanOfGroups(self.groups), *(GroupMean(name, name) for name in self.groups)]
