"""Descriptions of sticker scenes: objects that are named and not there, and objects that are there and not named.

Measures: hallucination and object recall of free descriptions. 200 pictures, half with one object, half with two
different ones.
Paper: Rohrbach et al., CHAIR, arXiv:1809.02156 (the measure; table and pictures are ours).
Data: made by `blip3o.stickers`, splits test_seen and test_unseen, level easy; nothing to download.
Scorer: `stickers_words`, a strict table of words for each class, no tagger and no model. `chair_i` is the share of
mentions of an object that is not in the picture, `chair_s` the share of descriptions with such a mention,
`object_recall` the share of the pictures' objects that are named. The headline `f1` joins them per description:
2 |named and shown| / (|named| + |shown|) over classes, 0 for a description that names nothing.

Worth: figures about sticker scenes only. Neither CHAIR nor recall says anything alone: naming nothing hallucinates
nothing, and naming everything recalls everything. The chance figures score the same descriptions against all other
pictures of the run: what they owe to chance and to the model's favourite words.

Version 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evals.api import Metric, Score, TaskKind
from tasks.generation.geneval import Half
from tasks.understanding.metrics import Mean, in_group, unparsed_share
from tasks.understanding.stickers_base import SPLITS, WORTH, Asked, StickerQuestions, make
from tasks.understanding.stickers_chair import (
    ChairMentions,
    ChanceOf,
    ObjectRecall,
    f1,
    mentions_share,
    recall,
)
from tasks.understanding.stickers_words import classes_named

PROMPT = "Describe the image."
PICTURES = 50
"""Per group and split."""

# Group -> kinds of scene.
_SCENES = {"one_object": ("colors",), "two_objects": ("two_object", "position", "color_attr")}

# (something named, wrong, missing) -> what is the matter; few and short, so that reports can count them.
_REASONS = {
    (True, False, False): "",
    (True, True, False): "names what is not there",
    (True, False, True): "leaves something out",
    (True, True, True): "names what is not there, leaves some out",
    (False, False, True): "names nothing",
}


class CaptionStickers(StickerQuestions):
    """The task; see the module's card. The group says how many objects the picture shows."""

    name = "caption_stickers"
    version = "1"
    kind: TaskKind = "understanding"
    groups = tuple(_SCENES)
    num_images = 1
    judges: Mapping[str, str] = {}
    max_new_tokens = 128
    stop = ()
    card: Mapping[str, str] = {
        "measures": "hallucinated and missed objects in descriptions of sticker scenes",
        "paper": "CHAIR, Rohrbach et al., arXiv:1809.02156",
        "data": "200 scenes of two test splits, level easy",
        "licence": "Apache-2.0; sprites: Noto Emoji, Apache-2.0",
        "scorer": "a strict table of words for each class, tasks/understanding/stickers_words.py",
        "worth": f"{WORTH} CHAIR and recall belong together: a description that names nothing hallucinates nothing.",
    }

    def ask(self) -> Sequence[Asked]:
        found, prompt = [], PROMPT + self.prompt_end
        for group, kinds in _SCENES.items():
            for split in SPLITS:
                for index in range(PICTURES):
                    scene = make(split, index, kinds)
                    picture = f"{group}-{split}-{index:04d}"
                    shown = list(dict.fromkeys(s.class_name for s in scene.stickers))
                    record = {"shown": shown}
                    found.append(Asked(picture, group, prompt, picture, (scene,), record))
        return found

    def verdict(self, record: Mapping[str, Any], answer: str) -> Score:
        """Value: F1. Details: `mentions` (classes, once per mention), `shown`, `hallucinates` (1 or 0), `words`,
        `unparsed` (no class is named)."""
        mentions, shown = classes_named(answer), list(record["shown"])
        wrong, missing = set(mentions) - set(shown), set(shown) - set(mentions)
        return Score(
            f1(mentions, shown),
            answer=", ".join(dict.fromkeys(mentions)) or None,
            reason=_REASONS[bool(mentions), bool(wrong), bool(missing)],
            details={
                "mentions": mentions,
                "shown": shown,
                "hallucinates": float(bool(wrong)),
                "words": len(answer.split()),
                "unparsed": not mentions,
            },
        )

    def metrics(self) -> Sequence[Metric]:
        """`f1`, its parts, groups and halves, then the same descriptions scored against other pictures."""
        halves: list[Any] = [
            Half(Mean(name), is_held_out=flag)  # type: ignore[arg-type]
            for name, flag in (("seen_half", False), ("unseen_half", True))
        ]
        return [
            Mean("f1"),
            ObjectRecall("object_recall"),
            ChairMentions("chair_i"),
            Mean("chair_s", _hallucinates, higher_is_better=False),
            *(Mean(group, in_group(group)) for group in self.groups),
            *halves,
            ChanceOf("chance", f1),
            ChanceOf("chance_object_recall", recall),
            ChanceOf("chance_chair_i", mentions_share, higher_is_better=False),
            unparsed_share(),
        ]


def _hallucinates(row: Any) -> float | None:
    return float(row.score.details["hallucinates"]) if row.score.is_scored else None
