"""DPG-Bench's recorded input: a run's questions and a judge's answers, one run a line of JSON.

`rows` are the question file's rows in order, `pic_num` the pictures per prompt, `images` the file
names in the folder, `answers[item][picture][proposition_id]` the judge's text. Only these keys and
`id` are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tasks.generation import dpg_rules as rules

if TYPE_CHECKING:
    from evals.recorded import Field

# Cells that the script's table reader, pandas 2, takes for empty: its `STR_NA_VALUES`.
_MISSING = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
     "NULL", "NaN", "None", "n/a", "nan", "null")
)  # fmt: skip
_NO_FILE = "."  # an id that no picture has: a file's item is its name up to the first dot
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")


def score_answers(line: Field) -> dict[str, Any]:
    """`id`, and the figures of both modes under `official` and `fixed`."""
    name = line["id"].text()
    rows = [_row(item) for item in line["rows"].items()]
    pic_num = line["pic_num"].integer()
    images = [item.text() for item in line["images"].items()]
    members = line["answers"].object()
    answers = {item: _pictures(line["answers"][item]) for item in members}
    return {
        "id": name,
        "official": to_json(rules.score_official(_as_table(rows), pic_num, images, answers)),
        "fixed": to_json(rules.score_fixed(rows, pic_num, images, answers)),
    }


def _as_table(rows: Sequence[rules.Row]) -> list[rules.Row]:
    """The rows as the script's table reader hands them out."""
    # A column of numbers alone, empty cells left out, becomes numbers, which are the name of no file.
    if all(row.item_id in _MISSING or _NUMBER.fullmatch(row.item_id) for row in rows):
        return []
    return [
        replace(
            row,
            item_id=_NO_FILE if row.item_id in _MISSING else row.item_id,
            tuple=None if row.tuple in _MISSING else row.tuple,
        )
        for row in rows
    ]


def to_json(scores: rules.Scores) -> dict[str, Any]:
    """The figures under the names of the recorded form."""
    return {
        "images": {
            name: {"crop_scores": list(one.crop_scores), "score": one.score}
            for name, one in scores.images.items()
        },
        "failed": scores.failed,
        "l1": scores.l1,
        "l2": scores.l2,
        "overall": scores.overall,
    }


def _row(field: Field) -> rules.Row:
    dependency, category = field["dependency"], field.get("tuple")
    return rules.Row(
        item_id=_text_or_number(field["item_id"]),
        proposition_id=_proposition_id(field["proposition_id"]),
        parents=tuple(_number(dependency, part) for part in _text_or_number(dependency).split(",")),
        # The script reads its questions from a table, where an empty cell and no cell are the same.
        tuple=(category.text() or None) if category and category.value is not None else None,
    )


def _text_or_number(field: Field) -> str:
    return str(field.value) if type(field.value) is int else field.text()


def _proposition_id(field: Field) -> int:
    return _number(field, _text_or_number(field))


def _number(field: Field, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return field.fail(f"must hold whole numbers with commas between, got {field.shown}")


def _pictures(field: Field) -> list[Mapping[int, str | None]]:
    pictures: list[Mapping[int, str | None]] = []
    for picture in field.items():
        found: dict[int, str | None] = {}
        for key in picture.object():
            answer = picture[key]
            number = _number(picture, key)
            if number in found:
                answer.fail(f"is a second answer to question {number}")
            found[number] = None if answer.value is None else answer.text()
        pictures.append(found)
    return pictures
