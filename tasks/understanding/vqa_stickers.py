"""Open questions about sticker scenes with the answers of ten simulated annotators, scored as VQAv2 is.

Measures: short answers about what there is, how many, in which colour and where. 60 pictures for each kind of
question, 391 questions.
Paper: Goyal et al., arXiv:1612.00837 (form and scoring; the questions are ours).
Data: made by `blip3o.stickers`, splits test_seen and test_unseen, level easy; nothing to download.
Scorer: that of `vqav2`: the official normalisation, and soft accuracy over ten annotators.

The annotators are simulated. Each gives the scene's true answer, or with chance 0.05, at most three of ten, another
one: yes for no, one more or fewer, a neighbouring colour, the opposite place, or another word for the object
(`disagree`). So the true answer scores 1, and an answer that one, two or three of them gave scores 0.3, 0.6 or 0.9.
A disagreement is drawn from a stream of the question and nothing else.

Worth: figures about sticker scenes only. `chance` is what a uniform guess expects among yes and no, the numbers 1 to
4, ten colours, four places or 80 names, disagreeing annotators included. Numbers are never kept out of training:
`seen_half` and `unseen_half` leave them out.

Version 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evals.api import Metric
from evals.recorded import Field
from tasks.generation.geneval import Half
from tasks.understanding.annotated import accuracy
from tasks.understanding.metrics import Mean, in_group, unparsed_share
from tasks.understanding.stickers_base import (
    SPLITS,
    WORTH,
    Asked,
    Chance,
    OfficialStickerQuestions,
    balanced,
    make,
    make_counted,
)
from tasks.understanding.stickers_words import SYNONYMS
from tasks.understanding.vqav2 import Vqav2

if TYPE_CHECKING:
    from blip3o.stickers import Scene
    from blip3o.stickers.questions import Question as SceneQuestion

ANNOTATORS = 10
MOST_DISAGREE = 3
DISAGREE = 0.05
PICTURES = 60
"""Per kind of question."""

# Kind of question (the group) -> kinds of scene it is asked about.
_SCENES: Mapping[str, tuple[str, ...]] = {
    "yes/no": ("two_object", "position", "color_attr"),
    "number": ("single_object", "counting"),  # one to four, equally often
    "color": ("colors", "color_attr"),
    "position": ("position",),
    "object": ("colors",),
}
KINDS = tuple(_SCENES)
IN_BOTH_HALVES = ("yes/no", "color", "position", "object")
_WHAT = "What object does the picture show?"

_NEAR_COLORS: Mapping[str, tuple[str, ...]] = {
    "red": ("orange", "pink"),
    "orange": ("red", "yellow"),
    "yellow": ("orange", "gold"),
    "green": ("blue", "teal"),
    "blue": ("purple", "green"),
    "purple": ("blue", "pink"),
    "pink": ("purple", "red"),
    "brown": ("orange", "red"),
    "black": ("gray", "brown"),
    "white": ("gray", "silver"),
}


class VqaStickers(OfficialStickerQuestions, Vqav2):
    """The task; see the module's card. The group is the kind of question."""

    name = "vqa_stickers"
    version = "1"
    groups = KINDS
    card = {
        "measures": "short answers to open questions about sticker scenes",
        "paper": "form and scoring of VQAv2, Goyal et al., arXiv:1612.00837",
        "data": "391 questions about 300 scenes of two test splits, level easy; ten simulated annotators",
        "licence": "Apache-2.0; sprites: Noto Emoji, Apache-2.0",
        "scorer": "that of task vqav2: soft accuracy over ten annotators",
        "worth": f"{WORTH} The annotators are simulated: at most three of ten give another answer than the true one.",
    }

    def __init__(self) -> None:
        super().__init__()

    def ask(self) -> Sequence[Asked]:
        found: list[Asked] = []
        for kind, scenes in _SCENES.items():
            splits = SPLITS if kind in IN_BOTH_HALVES else SPLITS[:1]
            for split in splits:
                for index in range(PICTURES // len(splits)):
                    if kind == "number":
                        number = 1 + balanced(index, 4, "vqa_stickers", split)
                        scene = make_counted(split, index, number)
                    else:
                        scene = make(split, index, scenes)
                    found += self._about(kind, scene)
        return found

    def _about(self, kind: str, scene: Scene) -> list[Asked]:
        picture = f"{kind.replace('/', '-')}-{scene.split}-{scene.index:04d}"
        return [
            self._asked(kind, scene, picture, f"{picture}-{place}", text, answer)
            for place, (text, answer) in enumerate(_open_questions(kind, scene), start=1)
        ]

    def _asked(
        self, kind: str, scene: Scene, picture: str, name: str, text: str, answer: str
    ) -> Asked:
        record: dict[str, Any] = {
            "question_id": name,
            "image_id": picture,
            "question": text,
            "multiple_choice_answer": answer,
            "answers": [
                {"answer": said, "answer_confidence": "yes", "answer_id": number}
                for number, said in enumerate(annotators_say(kind, answer, name), start=1)
            ],
            "answer_type": kind,
        }
        doc = self.read(Field(record, name))
        assert doc.golds is not None
        guesses = [accuracy(self.normalise(guess), doc.golds) for guess in allowed(kind)]
        chance = round(sum(guesses) / len(guesses), 6)
        return Asked(name, kind, self.prompt(doc), picture, (scene,), record, chance)

    def metrics(self) -> Sequence[Metric]:
        """`accuracy`, its kinds, the halves without numbers, and what it is read beside."""
        halves: list[Any] = [
            Half(Mean(name, in_groups(IN_BOTH_HALVES), cluster="picture"), is_held_out=flag)  # type: ignore[arg-type]
            for name, flag in (("seen_half", False), ("unseen_half", True))
        ]
        return [
            Mean("accuracy", cluster="picture"),
            *(Mean(kind, in_group(kind), cluster="picture") for kind in KINDS),
            *halves,
            Chance(),
            unparsed_share(),
        ]


def in_groups(groups: Sequence[str]) -> Any:
    """The score of rows of some groups; see `in_group`."""
    return lambda row: row.score.value if row.group in groups else None


def _open_questions(kind: str, scene: Scene) -> list[tuple[str, str]]:
    """(question, true answer): for yes/no both questions of one pair, else all of the kind."""
    from blip3o.stickers.captions import plural
    from blip3o.stickers.questions import questions
    from blip3o.stickers.rng import Stream

    first = scene.stickers[0].class_name
    if kind == "object":
        return [(_WHAT, first)]
    if kind == "number":
        return [(f"How many {plural(first)} are in the picture?", str(len(scene.stickers)))]
    asked: list[SceneQuestion] = questions(scene)
    if kind == "yes/no":
        draw = Stream("vqa_stickers", scene.split, scene.index, scene.kind)
        pair = draw.choice(sorted({q.pair for q in asked if q.pair is not None}))
        asked = draw.shuffled([q for q in asked if q.pair == pair])
    else:
        asked = [q for q in asked if q.kind == kind]
    return [(q.question, q.answer) for q in asked]


def annotators_say(kind: str, answer: str, name: str) -> list[str]:
    """What ten annotators say to the question called `name`; at least seven give the true answer.

    >>> annotators_say("color", "red", "x").count("red") >= 7
    True
    """
    from blip3o.stickers.rng import Stream

    draw = Stream("annotators", name)
    others, said, different = disagree(kind, answer), [], 0
    for _ in range(ANNOTATORS):
        is_other = draw.uniform() < DISAGREE and different < MOST_DISAGREE and bool(others)
        different += is_other
        said.append(draw.choice(others) if is_other else answer)
    return said


def disagree(kind: str, answer: str) -> tuple[str, ...]:
    """What an annotator who does not give the true answer may say; nothing for names without a second word."""
    from blip3o.stickers.captions import OPPOSITE

    if kind == "yes/no":
        return ("no",) if answer == "yes" else ("yes",)
    if kind == "number":
        return tuple(str(n) for n in (int(answer) - 1, int(answer) + 1) if n > 0)
    if kind == "color":
        return _NEAR_COLORS[answer]
    return (OPPOSITE[answer],) if kind == "position" else SYNONYMS.get(answer, ())


def allowed(kind: str) -> Sequence[str]:
    """The answers among which `chance` guesses."""
    from blip3o.stickers.names import CLASSES, COLORS, RELATIONS

    return {
        "yes/no": ("yes", "no"),
        "number": ("1", "2", "3", "4"),
        "color": COLORS,
        "position": RELATIONS,
        "object": CLASSES,
    }[kind]
