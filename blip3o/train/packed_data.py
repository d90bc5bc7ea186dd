"""What the backbone learns about sticker scenes, as packed conversations (``blip3o.train.packed_chats``).

Per picture: every kind of question that the scene can answer, a few of them in the wordings of public benchmarks, short
probes ("dog:" -> "yes"; "dog, left or right:" -> "left"; "besides the dog:" -> "a red cup"), its description, and for
some what it would show after an edit. Beside the pictures: the same questions about a description instead, short
prompts to be imagined in full, rows of four pictures, and conversations.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from blip3o.prompts import ASSISTANT, SYSTEM
from blip3o.stickers import Scene, SceneConfig, make_scene, render
from blip3o.stickers.captions import OPPOSITE, long_caption, phrase, prompt
from blip3o.stickers.edits import make_edit
from blip3o.stickers.names import CLASSES
from blip3o.stickers.questions import Question, by_class, clear_pairs, questions
from blip3o.train.dialogue_data import Dialogues
from blip3o.train.edit_data import vision_block
from blip3o.train.packed_chats import PackedBatch, PackedRow, Piece, pack
from blip3o.train.world_data import DESCRIBE, IMAGINE, caption_of, question_text, to_pixels

USER = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
SHORT = "\nAnswer the question using a single word or phrase."
YES_NO = " Please answer yes or no."
LETTER = "\nAnswer with the option's letter from the given choices directly."
NAME_IT = ("What object does the picture show?", "What is shown in this image?")
OFF_CENTRE = 0.1  # of the side: nearer to the middle, an object is in neither half
PICTURES = ("the first picture", "the second picture", "the third picture", "the fourth picture")


def answered(question: str, answer: str) -> tuple[Piece, ...]:
    """A segment: the rest of the user's turn, and the learned reply."""
    return ((f"{question}<|im_end|>\n{ASSISTANT}", False), (f"{answer}<|im_end|>", True))


def place_probes(scene: Scene) -> list[tuple[str, str]]:
    """(probe, reply): in which half of the picture an object stands, and how one stands to another. Without these,
    questions about places stay at chance: several steps of reasoning end in one word."""
    groups = by_class(scene)
    found = []
    for name, group in groups.items():
        if len(group) > 1:
            continue
        x1, y1, x2, y2 = group[0].extent
        across, down = (x1 + x2) / 2 - 0.5, (y1 + y2) / 2 - 0.5
        if abs(across) > OFF_CENTRE:
            found.append((f"{name}, left or right", "left" if across < 0 else "right"))
        if abs(down) > OFF_CENTRE:
            found.append((f"{name}, above or below", "above" if down < 0 else "below"))
    for a, b, relation in clear_pairs(groups):
        found += [(f"{a} to {b}", relation), (f"{b} to {a}", OPPOSITE[relation])]
    return found


def rest_probes(scene: Scene) -> list[tuple[str, str]]:
    """(probe, reply): what a picture of two objects shows besides one of them. An edit keeps just that, and "remove"
    leaves nothing else to say."""
    groups = by_class(scene)
    if len(groups) != 2 or any(len(group) > 1 for group in groups.values()):
        return []
    a, b = (group[0] for group in groups.values())
    return [
        (f"besides the {one.class_name}", phrase(other.class_name, other.color)) for one, other in ((a, b), (b, a))
    ]


class PackedConversations:
    """Batches of one split, a function of the step; the numbers of rows are of each kind.

    Args: max_questions, probes, places, rest: at most so many about one picture; the last two are 0 in the study of
        designs, whose understanding phase is too short for them.
    """

    def __init__(
        self,
        split: str,
        config: SceneConfig,
        tokenizer: PreTrainedTokenizerBase,
        n_image_tokens: int,
        *,
        scenes: int = 16,
        edits: int = 8,
        texts: int = 8,
        imagined: int = 8,
        quartets: int = 2,
        dialogues: int = 4,
        max_questions: int = 9,
        probes: int = 5,
        places: int = 0,
        rest: int = 0,
        suffix_share: float = 0.25,
        first: int = 0,
    ) -> None:
        self.split, self.config, self.tokenizer, self.first = split, config, tokenizer, first
        self.scenes, self.edits, self.texts = scenes, edits, texts
        self.imagined, self.quartets = imagined, quartets
        self.max_questions, self.probes = max_questions, probes
        self.places, self.rest = places, rest
        self.suffix_share = suffix_share
        self.block = vision_block(n_image_tokens)
        self.dialogues = (
            Dialogues(split, config, tokenizer, dialogues, n_image_tokens, first=first)
            if dialogues
            else None
        )

    def __call__(self, step: int) -> tuple[PackedBatch, PackedBatch, PackedBatch | None]:
        """(rows with one picture, rows of text, rows with several pictures or turns)."""
        rng = np.random.default_rng([step, 43])
        per_step = self.scenes + self.edits + self.texts + self.imagined + 4 * self.quartets
        start = self.first + step * per_step
        made = iter(range(start, start + per_step))
        seen, shown = [], []
        for _ in range(self.scenes):
            scene = make_scene(self.split, next(made), self.config)
            seen.append(PackedRow(USER + self.block, self.about(scene, rng)))
            shown.append(scene)
        for _ in range(self.edits):
            pair = make_edit(self.split, next(made), self.config)
            # the line break stands between a picture and its instruction wherever an edit is asked for
            edit = answered("\n" + pair.instruction, long_caption(pair.target))
            seen.append(
                PackedRow(USER + self.block, (edit, *self.about(pair.source, rng, n_questions=3)))
            )
            shown.append(pair.source)
        told = []
        for _ in range(self.texts):
            scene = make_scene(self.split, next(made), self.config)
            told.append(
                PackedRow(f"{USER}{long_caption(scene)}\n", self.about(scene, rng, describe=0.0))
            )
        for _ in range(self.imagined):
            scene = make_scene(self.split, next(made), self.config)
            wordings = dict.fromkeys(caption_of(scene, float(rng.random()) * 0.75) for _ in "ab")
            told.append(
                PackedRow(
                    USER, tuple(answered(IMAGINE + w, long_caption(scene)) for w in wordings)
                )
            )
        several, pictures = [], []
        for _ in range(self.quartets):
            four = [make_scene(self.split, next(made), self.config) for _ in PICTURES]
            several.append(PackedRow(USER + self.block * 4, self._which(four, rng)))
            pictures += four
        talks = self._dialogues(step)
        return (
            self._batch(f"{self.split}/{start}", seen, shown),
            self._batch(f"{self.split}/text/{start}", told, []),
            self._batch(f"{self.split}/several/{start}", several, pictures, talks)
            if several or talks
            else None,
        )

    def about(
        self,
        scene: Scene,
        rng: Generator,
        n_questions: int | None = None,
        describe: float = 0.5,
    ) -> tuple[tuple[Piece, ...], ...]:
        """Segments about one scene."""
        asked = questions(scene, int(rng.integers(2**31)))
        chosen = rng.permutation(len(asked))[: n_questions or self.max_questions]
        found = [answered(self._worded(asked[k], rng), asked[k].answer) for k in chosen]
        probes = self._probes(scene, rng)
        for most, found_in in ((self.places, place_probes), (self.rest, rest_probes)):
            if most:
                known = found_in(scene)
                probes += [known[k] for k in rng.permutation(len(known))[:most]]
        found += [answered(f" {what}:", reply) for what, reply in probes]
        if len(scene.stickers) == 1:
            found.append(answered(str(rng.choice(NAME_IT)), scene.stickers[0].class_name))
        if rng.random() < describe:
            found.append(answered(DESCRIBE, long_caption(scene)))
        return tuple(found)

    def _worded(self, question: Question, rng: Generator) -> str:
        """A question as it is, or with the request that a public benchmark adds to its kind."""
        text = question_text(question)
        if rng.random() >= self.suffix_share:
            return text
        if question.kind == "choice":
            return text + LETTER
        return text + (YES_NO if question.kind == "yes_no" and rng.random() < 0.5 else SHORT)

    def _probes(self, scene: Scene, rng: Generator) -> list[tuple[str, str]]:
        present = list(dict.fromkeys(sticker.class_name for sticker in scene.stickers))
        absent = [name for name in CLASSES if name not in present]
        n_present = min(len(present), (self.probes + 1) // 2)
        there = [(str(name), "yes") for name in rng.permutation(present)[:n_present]]
        return there + [(str(name), "no") for name in rng.choice(absent, n_present, replace=False)]

    def _which(self, four: list[Scene], rng: Generator) -> tuple[tuple[Piece, ...], ...]:
        """Which of four pictures shows what: asked of each whose objects no other one shows."""
        classes = [{sticker.class_name for sticker in scene.stickers} for scene in four]
        found = []
        for place, scene in enumerate(four):
            if any(classes[place] <= other for k, other in enumerate(classes) if k != place):
                continue
            what = prompt(scene).removeprefix("a photo of ")
            options = "\n".join(f"{a}. {b}" for a, b in zip("ABCD", PICTURES, strict=True))
            text = f"Which of the four pictures shows {what}?\n{options}"
            found.append(
                answered(text + (LETTER if rng.random() < self.suffix_share else ""), "ABCD"[place])
            )
        return tuple(found)

    def _dialogues(self, step: int) -> list[tuple[PackedRow, list[Scene]]]:
        if self.dialogues is None:
            return []
        return [
            (PackedRow("", (tuple(pieces),)), shown)
            for pieces, shown in self.dialogues.conversations(step)
        ]

    def _batch(
        self,
        name: str,
        rows: list[PackedRow],
        scenes: list[Scene],
        talks: list[tuple[PackedRow, list[Scene]]] = [],  # noqa: B006 (never changed)
    ) -> PackedBatch:
        rows = rows + [row for row, _ in talks]
        scenes = scenes + [scene for _, shown in talks for scene in shown]
        pixels: Tensor | None = (
            to_pixels([render(scene).image for scene in scenes]) if scenes else None
        )
        ids = [f"{name}+{i}" for i in range(len(rows))]
        return PackedBatch(ids, *pack(self.tokenizer, rows), pixels=pixels)
