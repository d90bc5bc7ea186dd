"""One sticker, 80 classes: a free answer has to name the right one.

Measures: recognition of objects. 320 pictures, each class once as drawn, once in a colour, once in the colour in which
training never showed it, and once in a drawing style that training never showed.
Data: made by `blip3o.stickers`, level easy, of splits test_seen, test_unseen and unseen_style the first scene of each
class; nothing to download.
Scorer: `stickers_words`, a strict table of words for each class. An answer is right when it names the class and no
other one. One that names none, or several, is wrong and counted as unparsed.

Worth: figures about sticker scenes only, with one to five sprites for each class. `chance` is 1/80.

Version 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from evals.api import Metric, Score, TaskKind
from tasks.understanding.metrics import Mean, in_group, unparsed_share
from tasks.understanding.stickers_base import WORTH, Asked, Chance, StickerQuestions, make
from tasks.understanding.stickers_words import classes_named

PROMPT = "What object does the picture show?"

# Group -> split and kind of scene.
_SCENES = {
    "natural": ("test_seen", "single_object"),
    "seen_color": ("test_seen", "colors"),
    "unseen_color": ("test_unseen", "colors"),
    "unseen_style": ("unseen_style", "single_object"),
}


class ClassifyStickers(StickerQuestions):
    """The task; see the module's card. The group says how the class is drawn."""

    name = "classify_stickers"
    version = "1"
    kind: TaskKind = "understanding"
    groups = tuple(_SCENES)
    num_images = 1
    judges: Mapping[str, str] = {}
    max_new_tokens = 16
    stop = ("\n\n",)
    card: Mapping[str, str] = {
        "measures": "naming one sticker of 80 classes",
        "paper": "none; made for this package",
        "data": "320 scenes of one sticker, splits test_seen, test_unseen and unseen_style, level easy",
        "licence": "Apache-2.0; sprites: Noto Emoji, Apache-2.0; unseen style: Twemoji graphics by Twitter, Inc and "
        "other contributors, CC-BY 4.0, modified",
        "scorer": "a strict table of words for each class, tasks/understanding/stickers_words.py",
        "worth": WORTH,
    }

    def ask(self) -> Sequence[Asked]:
        from blip3o.stickers.names import CLASSES

        found, prompt = [], PROMPT + self.prompt_end
        for group, (split, kind) in _SCENES.items():
            first: dict[str, Any] = {}
            for index in count():
                scene = make(split, index, (kind,))
                first.setdefault(scene.stickers[0].class_name, scene)
                if len(first) == len(CLASSES):
                    break
            for name in CLASSES:
                picture = f"{group}-{name.replace(' ', '_')}"
                record = {"class": name, "color": first[name].stickers[0].color}
                chance = 1 / len(CLASSES)
                found.append(Asked(picture, group, prompt, picture, (first[name],), record, chance))
        return found

    def verdict(self, record: Mapping[str, Any], answer: str) -> Score:
        """Details: `expected`, `named`, the classes that the answer names, and `unparsed`."""
        named = list(dict.fromkeys(classes_named(answer)))
        said = named[0] if len(named) == 1 else None
        return Score(
            float(said == record["class"]),
            answer=said,
            details={"expected": record["class"], "named": named, "unparsed": said is None},
        )

    def metrics(self) -> Sequence[Metric]:
        return [
            Mean("accuracy"),
            *(Mean(group, in_group(group)) for group in self.groups),
            Chance(),
            unparsed_share(),
        ]
