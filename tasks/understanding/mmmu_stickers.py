"""Multiple choice about sticker scenes in MMMU's form, some of it about four pictures at once.

Measures: objects, counts, colours and positions in one picture (`object`, `count`, `color`, `position`), and the
choice among four pictures (`which_picture`: the one that shows what is described; `most_objects`: the one with the most
objects). 300 questions, four options each, 50 a subject.
Paper: Yue et al., arXiv:2311.16502 (form and scoring; the questions are ours).
Data: made by `blip3o.stickers`, splits test_seen and test_unseen, level easy; nothing to download.
Scorer: that of `mmmu`: a letter is looked for; an answer without one is wrong and counted as unparsed.

Worth: figures about sticker scenes only. `chance` is 0.25. Counts are never kept out of training: `seen_half` and
`unseen_half` leave out `count` and `most_objects`.

Version 1. Pictures are given in the order in which the options number them; the text has no marks for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from evals.api import Metric
from evals.recorded import Field
from tasks.choices import lettered, letters_of
from tasks.generation.geneval import Half
from tasks.understanding.metrics import Mean, in_group, unparsed_share
from tasks.understanding.mmmu import CHOICE, AccuracyWithDraws, Mmmu, Question
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
from tasks.understanding.vqa_stickers import in_groups

if TYPE_CHECKING:
    from blip3o.stickers import Scene

QUESTIONS = 50
"""Per subject."""
PICTURES = ("the first picture", "the second picture", "the third picture", "the fourth picture")

# Subject -> kinds of scene it is asked about.
_SCENES: Mapping[str, tuple[str, ...]] = {
    "object": ("two_object",),
    "count": ("single_object", "counting"),  # one to four, equally often
    "color": ("colors", "color_attr"),
    "position": ("position",),
    "which_picture": ("two_object", "colors", "color_attr"),
    "most_objects": ("single_object", "counting"),
}
SUBJECTS = tuple(_SCENES)
IN_BOTH_HALVES = ("object", "color", "position", "which_picture")


class MmmuStickers(OfficialStickerQuestions, Mmmu):
    """The task; see the module's card. The group is the subject."""

    name = "mmmu_stickers"
    version = "1"
    groups = SUBJECTS
    max_new_tokens = 16
    card = {
        "measures": "multiple choice about one or four sticker scenes",
        "paper": "form and scoring of MMMU, Yue et al., arXiv:2311.16502",
        "data": "300 questions about scenes of two test splits, level easy; 100 of them about four pictures",
        "licence": "Apache-2.0; sprites: Noto Emoji, Apache-2.0",
        "scorer": "that of task mmmu, without random letters; lmms-eval's own figure beside it",
        "worth": WORTH,
    }

    def __init__(self) -> None:
        super().__init__()

    def ask(self) -> Sequence[Asked]:
        found = []
        for subject in SUBJECTS:
            splits = SPLITS if subject in IN_BOTH_HALVES else SPLITS[:1]
            for split in splits:
                for index in range(QUESTIONS // len(splits)):
                    found.append(self._asked(subject, split, index))
        return found

    def _asked(self, subject: str, split: str, index: int) -> Asked:
        # The right letter is balanced, so that a letter given always scores chance.
        place = balanced(index, len(PICTURES), "letters", subject, split)
        scenes, text, options = _MAKERS.get(subject, _about_one)(split, index, subject, place)
        # MMMU's ids are like validation_Art_Theory_1: what stands between the first and the last mark is the subject.
        name = f"{split.replace('_', '-')}_{subject}_{index}"
        record = {
            "id": name,
            "question": text,
            "question_type": CHOICE,
            "options": str(list(options)),
            "answer": letters_of(options)[place],
        }
        prompt = self.prompt(self.read(Field(record, name)))
        return Asked(name, subject, prompt, name, tuple(scenes), record, 1 / len(options))

    def prompt(self, doc: Question) -> str:
        return f"{doc.question}\n{lettered(doc.options)}{self.prompt_end}"

    def metrics(self) -> Sequence[Metric]:
        """`accuracy`, the subjects, questions about several pictures, the halves, and what they are read beside."""
        halves: list[Any] = [
            Half(Mean(name, in_groups(IN_BOTH_HALVES)), is_held_out=flag)  # type: ignore[arg-type]
            for name, flag in (("seen_half", False), ("unseen_half", True))
        ]
        return [
            Mean("accuracy"),
            *(Mean(subject, in_group(subject)) for subject in SUBJECTS),
            Mean("several_pictures", in_groups(("which_picture", "most_objects"))),
            *halves,
            Chance(),
            unparsed_share(),
            AccuracyWithDraws("accuracy_lmms_eval"),
        ]


Made = tuple[Sequence["Scene"], str, Sequence[str]]
"""Scenes, question, options."""


def _about_one(split: str, index: int, subject: str, place: int) -> Made:
    """A question of the world with four options about one picture, the right one moved to `place`."""
    from blip3o.stickers.questions import LETTERS, questions

    scene = make(split, index, _SCENES[subject])
    asked = next(q for q in questions(scene) if q.kind == "choice" and q.aspect == subject)
    options, right = list(asked.choices), LETTERS.index(asked.answer)
    options[right], options[place] = options[place], options[right]
    return [scene], asked.question, options


def _count(split: str, index: int, subject: str, place: int) -> Made:
    """How many there are of the only class; one, two, three and four are equally often right."""
    from blip3o.stickers.captions import COUNT_WORDS, plural
    from blip3o.stickers.rng import Stream

    number = 1 + balanced(index, 4, "counts", subject, split)
    scene = make_counted(split, index, number)
    wrong = Stream(subject, split, index).shuffled([k for k in COUNT_WORDS if k != number])
    options = [COUNT_WORDS[k] for k in (*wrong[:place], number, *wrong[place:])]
    name = plural(scene.stickers[0].class_name)
    return [scene], f"How many {name} does the picture show?", options


def _which_picture(split: str, index: int, subject: str, place: int) -> Made:
    """Four pictures of one kind and what one of them shows; none of the others shows all of its objects."""
    from blip3o.stickers.captions import prompt

    kind = (_SCENES[subject][index % len(_SCENES[subject])],)
    start = 1000 + 40 * index  # scenes of their own for every question
    right = make(split, start, kind)
    others: list[Scene] = []
    for number in count(start + 1):
        if len(others) == len(PICTURES) - 1:
            break
        scene = make(split, number, kind)
        if not _shows_all(scene, right):
            others.append(scene)
    what = prompt(right).removeprefix("a photo of ")
    scenes = (*others[:place], right, *others[place:])
    return scenes, f"Which of the four pictures shows {what}?", PICTURES


def _shows_all(scene: Scene, wanted: Scene) -> bool:
    """Whether a scene shows every class of another one, in its colour where its prompt names colours."""
    with_color = wanted.kind in ("colors", "color_attr")
    shown, asked = (
        {(sticker.class_name, sticker.color if with_color else None) for sticker in one.stickers}
        for one in (scene, wanted)
    )
    return asked <= shown


def _most_objects(split: str, index: int, subject: str, place: int) -> Made:
    """Four pictures with one, two, three and four objects."""
    from blip3o.stickers.rng import Stream

    fewer = Stream(subject, split, index).shuffled((1, 2, 3))
    numbers = (*fewer[:place], 4, *fewer[place:])
    scenes = [make_counted(split, 1000 + index, number) for number in numbers]
    return scenes, "Which of the four pictures shows the most objects?", PICTURES


_MAKERS = {"count": _count, "which_picture": _which_picture, "most_objects": _most_objects}
