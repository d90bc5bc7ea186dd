"""The rules of DPG-Bench: from a judge's answers to scores of pictures, categories and a whole run.

`official` gives the figures of `dpg_bench/compute_dpg_bench.py` of TencentQQGYLab/ELLA, commit 3c228f1
(arXiv:2403.05135), run in one process, with the judge left out: its answers come in as text. `fixed`
repairs what that script does by mistake and keeps everything else:

=================================================  ==================================================
official                                            fixed
=================================================  ==================================================
the first row of the question file is lost; a       every row counts
picture whose questions depend on it fails
categories hold the answers on a prompt's last      categories hold the answers on all pictures
picture only
pictures that are missing or fail are left out      the same, and prompts without a picture are named
an item that comes back later in the file           its questions are taken together
replaces its first block
two files of one item both count                    the first one counts, the other has failed
items whose ids are all numbers match no file       they match (`dpg_records`)
cells such as "NA" or "None" are read as empty      they are texts (`dpg_records`)
=================================================  ==================================================

(The script's mixing of categories between processes depends on hash seeds and cannot be repeated.)

In both, only the answer "yes" scores, exactly as written. A question whose parent has no score left is
zeroed, in one pass in file order: zeros cascade to later questions, while a parent that stands later
is seen as it was answered. Categories know nothing of parents. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum

MAX_PICTURES = 4
"""Pictures per prompt that the official 2 x 2 grid holds."""

Answers = Mapping[str, Sequence[Mapping[int, str | None]]]
"""Item id -> for each of its pictures, proposition id -> the judge's text (None: it gave none)."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the rules read of a row of the question file.

    `parents` are proposition ids of the same item; 0 stands for none. `tuple` begins with the
    category, as in "attribute - color (car, red)"; None where the file has an empty cell.
    """

    item_id: str
    proposition_id: int
    parents: tuple[int, ...]
    tuple: str | None

    @property
    def category(self) -> str | None:
        """The level 2 category: "attribute - color", "global -"."""
        return None if self.tuple is None else self.tuple.split("(")[0].strip()


Items = dict[str, dict[int, Row]]
"""Item id -> proposition id -> row, both in file order."""


@dataclass(frozen=True, slots=True)
class PictureScore:
    """Shares of questions that hold, 0 to 1: for each picture of a prompt, and their mean."""

    crop_scores: tuple[float, ...]
    score: float


@dataclass(frozen=True, slots=True)
class Counted:
    """An answer that a category holds: 1 or 0, parents not considered. `picture` counts from 0."""

    item_id: str
    picture: int
    proposition_id: int
    category: str
    value: float


@dataclass
class Scores:
    """A run's figures. `l1`, `l2` and `overall` are percentages; `overall` is None for an empty mean.

    `images` is keyed by file name; `failed` names the files, and in `fixed` mode also the items, that
    have no score, and `reasons` says why. `counted` are the answers behind the categories `l1` and `l2`.
    """

    images: dict[str, PictureScore] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    l1: dict[str, float] = field(default_factory=dict)
    l2: dict[str, float] = field(default_factory=dict)
    overall: float | None = None
    counted: list[Counted] = field(default_factory=list)

    def fail(self, name: str, reason: str) -> None:
        self.failed.append(name)
        self.reasons[name] = reason


class PictureError(ValueError):
    """A picture cannot be scored; it is left out and named."""


def level_1_of(category: str) -> str:
    """ "attribute" of "attribute - color"."""
    return category.split("-")[0].strip()


def official_items(rows: Sequence[Row]) -> Items:
    """The questions as the official script reads them: without the first row, and with the last block
    of every item only."""
    items: Items = {}
    previous = None
    for row in rows[1:]:
        if row.item_id != previous:
            items[row.item_id] = {}
        items[row.item_id][row.proposition_id] = row
        previous = row.item_id
    return items


def fixed_items(rows: Iterable[Row]) -> Items:
    """All questions of every item."""
    items: Items = {}
    for row in rows:
        items.setdefault(row.item_id, {})[row.proposition_id] = row
    return items


def item_of(file_name: str) -> str:
    """The item that a picture belongs to: its file name up to the first dot."""
    return file_name.split(".")[0]


def raw_scores(questions: Mapping[int, Row], answers: Mapping[int, str | None]) -> dict[int, float]:
    """1 for "yes" and 0 for any other text. Raises PictureError for a question without an answer."""
    scores = {}
    for proposition_id in questions:
        answer = answers.get(proposition_id)
        if answer is None:
            raise PictureError(f"question {proposition_id} has no answer")
        scores[proposition_id] = float(answer == "yes")
    return scores


def crop_score(questions: Mapping[int, Row], raw: Mapping[int, float]) -> float:
    """The share of an item's questions that hold on one picture, parents considered.

    Raises: PictureError for a parent that has no row, unless an earlier parent has zeroed the question
    (the rest of its parents is then not looked at).
    """
    scores = dict(raw)
    for proposition_id, row in questions.items():
        for parent in row.parents:
            if parent == 0:
                continue
            if parent not in scores:
                raise PictureError(
                    f"question {proposition_id} depends on {parent}, which has no row"
                )
            if scores[parent] == 0:
                scores[proposition_id] = 0.0
                break
    return fsum(scores.values()) / len(scores)


def score_official(
    rows: Sequence[Row], pic_num: int, images: Iterable[str], answers: Answers
) -> Scores:
    """The figures of the official script, its mistakes included; see the module's table.

    Args: rows: the question file. pic_num: pictures cut from each grid, at most 4. images: the file
    names in the folder, whatever they are.
    """
    return _score(
        official_items(rows), pic_num, images, answers, counts_in_categories=lambda n: range(n - 1, n)
    )


def score_fixed(
    rows: Sequence[Row], pic_num: int, images: Iterable[str], answers: Answers
) -> Scores:
    """The repaired figures. Files that belong to no item are no pictures and not looked at.

    `failed` names pictures without a score in the order of `images`, then items without a picture.
    """
    items = fixed_items(rows)
    pictures = [name for name in dict.fromkeys(images) if item_of(name) in items]
    first = {item_of(name): name for name in reversed(pictures)}
    scores = _score(
        items,
        pic_num,
        [name for name in pictures if first[item_of(name)] == name],
        answers,
        counts_in_categories=range,
    )
    for name in pictures:
        if first[item_of(name)] != name:
            scores.fail(name, f"the item already has the picture {first[item_of(name)]}")
    scores.failed.sort(key=pictures.index)
    for item_id in items:
        if item_id not in first:
            scores.fail(item_id, "the item has no picture")
    return scores


Raw = list[dict[int, float]]


def _score(
    items: Items,
    pic_num: int,
    images: Iterable[str],
    answers: Answers,
    counts_in_categories: Callable[[int], Sequence[int]],
) -> Scores:
    scores = Scores()
    prompt_scores = []
    for name in images:
        try:
            questions = items.get(item_of(name))
            if questions is None:
                raise PictureError("no item of the question file has this name")
            raw = _raw_of_pictures(questions, answers.get(item_of(name), ()), pic_num)
            crops = tuple(crop_score(questions, one) for one in raw)
            scores.images[name] = PictureScore(crops, fsum(crops) / len(crops))
            prompt_scores.append(scores.images[name].score)
            for proposition_id, row in questions.items():
                # Too late to take the picture's score back: it counts and is named as failed.
                if row.category is None:
                    raise PictureError(f"question {proposition_id} has no category")
                for number in counts_in_categories(len(raw)):
                    value = raw[number][proposition_id]
                    scores.counted.append(
                        Counted(row.item_id, number, proposition_id, row.category, value)
                    )
        except PictureError as error:
            scores.fail(name, str(error))
    categories: dict[str, list[float]] = {}
    for one in scores.counted:
        categories.setdefault(one.category, []).append(one.value)
    scores.l2 = {name: _percent(categories[name]) for name in sorted(categories)}
    level_1: dict[str, list[float]] = {}
    for name, values in categories.items():
        level_1.setdefault(level_1_of(name), []).extend(values)
    scores.l1 = {name: _percent(values) for name, values in level_1.items()}
    scores.overall = _percent(prompt_scores) if prompt_scores else None
    return scores


def _raw_of_pictures(
    questions: Mapping[int, Row], pictures: Sequence[Mapping[int, str | None]], pic_num: int
) -> Raw:
    wanted = range(MAX_PICTURES)[:pic_num]
    if not wanted:
        raise PictureError(f"pic_num {pic_num} leaves no picture")
    if len(pictures) < len(wanted):
        raise PictureError(f"answers on {len(pictures)} of {len(wanted)} pictures")
    return [raw_scores(questions, pictures[index]) for index in wanted]


def _percent(values: Sequence[float]) -> float:
    return 100 * fsum(values) / len(values)
