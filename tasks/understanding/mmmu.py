"""MMMU: college exam questions with pictures, in thirty subjects.

Measures: knowledge and reasoning over diagrams, tables, charts and photographs. 900 questions (val),
most of them multiple choice, with up to seven pictures each.
Paper: Yue et al., arXiv:2311.16502.
Data: hub data set lmms-lab-encoder/MMMU, split validation, or the same columns in a parquet file.
Scorer: task `mmmu_val` of lmms-eval 0.7.3, written anew and compared with recorded scores of the
original. It draws a letter at random when it finds none, so that answers without any meaning score
about 25 %; here such an answer is wrong and counted as unparsed. It also takes a gold answer that is
written as a list, "['3', 'three']", for one text; here each of its members counts.
`accuracy_lmms_eval` is by its rules, with its draws for `random.seed(0)` in file order.

Worth: with 900 questions the 95 % interval is about 3 points either way; chance is near 0.25 on the
multiple choice part. Some questions can be answered without the picture.

Version 1: the rules above. Pictures are given in the order of their names; their marks (`<image 1>`)
stay in the text.
Version 2: answers end after 128 tokens or at a blank line, as in lmms-eval.
"""

from __future__ import annotations

import ast
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from evals.api import Metric, MetricValue, Score, ScoreRow
from evals.recorded import Field
from tasks.choices import lettered, letters_of
from tasks.understanding.base import QuestionTask
from tasks.understanding.data import Source
from tasks.understanding.metrics import (
    Mean,
    Value,
    in_group,
    to_value,
    unparsed_share,
    unscored,
)
from tasks.understanding.mmmu_answers import Candidate, candidates_of, choice_of, is_open_match

SUBJECTS = (
    "Accounting", "Agriculture", "Architecture_and_Engineering", "Art", "Art_Theory",
    "Basic_Medical_Science", "Biology", "Chemistry", "Clinical_Medicine", "Computer_Science",
    "Design", "Diagnostics_and_Laboratory_Medicine", "Economics", "Electronics",
    "Energy_and_Power", "Finance", "Geography", "History", "Literature", "Manage", "Marketing",
    "Materials", "Math", "Mechanical_Engineering", "Music", "Pharmacy", "Physics", "Psychology",
    "Public_Health", "Sociology",
)  # fmt: skip
CHOICE = "multiple-choice"

_CHOICE_END = "Answer with the option's letter from the given choices directly."
_OPEN_END = "Answer the question using a single word or phrase."
_PICTURE_MARK = re.compile(r"<image (\d+)>")
_ID = re.compile(r"([^_]*)_(.+?)_\d+")


@dataclass(frozen=True, slots=True)
class Question:
    """`golds`: the right answers as the data has them, one or a list; `options` is empty for open ones."""

    id: str
    subject: str
    question: str
    question_type: str
    options: tuple[str, ...]
    golds: tuple[str, ...]

    @property
    def is_choice(self) -> bool:
        return self.question_type == CHOICE


class Mmmu(QuestionTask[Question]):
    """The task; see the module's card. The group is the subject."""

    name = "mmmu"
    version = "2"
    max_new_tokens: ClassVar[int | None] = 128
    stop: ClassVar[tuple[str, ...]] = ("\n\n",)
    groups: ClassVar[tuple[str, ...]] = SUBJECTS
    source = Source("lmms-lab-encoder/MMMU", "validation", aliases=("mmmu_val",), rows=900)
    card = {
        "measures": "college exam questions with pictures, in thirty subjects",
        "paper": "Yue et al., MMMU, arXiv:2311.16502",
        "data": "hub data set lmms-lab-encoder/MMMU, split validation: 900 questions",
        "licence": "Apache-2.0",
        "scorer": "task mmmu_val of lmms-eval 0.7.3 without its random letters; its own figure beside it",
        "worth": (
            "With 900 questions the 95 % interval is about 3 points either way; chance is near 0.25 on "
            "multiple choice, and some questions can be answered without the picture."
        ),
    }

    def read(self, record: Field) -> Question:
        name, question_type = record["id"], record["question_type"].text()
        match = _ID.fullmatch(name.text())
        if match is None:
            name.fail(f"must be like validation_Art_Theory_1, got {name.shown}")
        answer = record["answer"]
        golds = answer.items() if type(answer.value) is list else [answer]
        return Question(
            id=name.text(),
            subject=match[2],
            question=record["question"].text(),
            question_type=question_type,
            options=_options(record["options"]) if question_type == CHOICE else (),
            golds=tuple(gold.text() for gold in golds),
        )

    def prompt(self, doc: Question) -> str:
        body = f"{doc.question}\n{lettered(doc.options)}" if doc.is_choice else doc.question
        return f"{body}\n\n{_CHOICE_END if doc.is_choice else _OPEN_END}"

    def identity(self, doc: Question, number: int) -> tuple[str, str]:
        return doc.id, doc.subject

    def picture_columns(self, doc: Question) -> Sequence[str]:
        """Every picture that the question or an option names, once, by name."""
        names = {f"image_{number}" for number in _PICTURE_MARK.findall(self.prompt(doc))}
        return sorted(names)

    def judge(self, doc: Question, answer: str) -> Score:
        """Details: `expected`, `question_type`, `unparsed`, `lmms_eval` (1 or 0 by its rules; None, with `choices`
        and `golds`, where it draws a letter)."""
        golds = _listed(doc.golds)
        details: dict[str, object] = {
            "expected": " or ".join(golds),
            "question_type": doc.question_type,
            "unparsed": False,
        }
        if not doc.is_choice:
            candidates = candidates_of(answer)
            details["lmms_eval"] = float(is_open_match(candidates, doc.golds))
            details["unparsed"] = not answer
            return Score(float(is_open_match(candidates, golds)), answer=answer, details=details)
        letter = choice_of(answer, doc.options)
        if letter is None:
            details |= {"unparsed": True, "lmms_eval": None}
            details |= {"choices": len(doc.options), "golds": list(doc.golds)}
        else:
            details["lmms_eval"] = float(letter in doc.golds)
        return Score(float(letter in golds), answer=letter, details=details)

    def metrics(self) -> Sequence[Metric]:
        return [
            Mean("accuracy"),
            Mean("multiple_choice", _of_type(CHOICE)),
            Mean("open", _of_type("open")),
            *(Mean(subject, in_group(subject)) for subject in SUBJECTS),
            unparsed_share(),
            AccuracyWithDraws("accuracy_lmms_eval"),
        ]

    def lmms_eval(self) -> LmmsEval:
        return LmmsEval()


def _options(field: Field) -> tuple[str, ...]:
    """The options, which the data writes as the text of a Python list."""
    parsed = _literal(field.text())
    if not isinstance(parsed, (list, tuple)) or not parsed:
        field.fail(f"must be the text of a list of options, got {field.shown}")
    return tuple(map(str, parsed))


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _listed(golds: Sequence[str]) -> list[str]:
    """Golds, those that are written as a list taken apart."""
    found: list[str] = []
    for gold in golds:
        parsed = _literal(gold) if gold.strip().startswith("[") else None
        found += [str(one) for one in parsed] if isinstance(parsed, list) else [gold]
    return found


def _of_type(question_type: str) -> Value:
    def value(row: ScoreRow) -> float | None:
        is_mine = row.score.details.get("question_type") == question_type
        return row.score.value if is_mine else None

    return value


@dataclass(frozen=True)
class AccuracyWithDraws:
    """lmms-eval's accuracy: a letter is drawn for answers without one, for `random.seed(0)` in the
    order of the rows."""

    name: str
    unit: str = "fraction"
    higher_is_better: bool = True

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        from evals import stats

        rng, values = random.Random(0), []
        for row in rows:
            details = row.score.details
            if not row.score.is_scored:
                continue
            value = details["lmms_eval"]
            if value is None:
                letter = rng.choice(letters_of(range(int(details["choices"]))))
                value = float(letter in details["golds"])
            values.append(value)
        return to_value(self.name, stats.mean(values, bounded=True), unscored(rows))


class LmmsEval:
    """The scores of lmms-eval 0.7.3, its draws those of `random.seed(0)` before the first answer."""

    def __init__(self) -> None:
        self._random = random.Random(0)
        self._correct: dict[str, list[bool]] = {}

    def result(self, doc: Question, answer: str) -> Mapping[str, object]:
        parsed: object
        if doc.is_choice:
            letter = choice_of(answer, doc.options)
            if letter is None:
                letter = self._random.choice(letters_of(doc.options))
            parsed, is_correct = letter, letter in doc.golds
        else:
            candidates = candidates_of(answer)
            parsed, is_correct = _to_json(candidates), is_open_match(candidates, doc.golds)
        self._correct.setdefault(doc.subject, []).append(is_correct)
        return {
            "subdomain": doc.subject,
            "question_type": doc.question_type,
            "parsed_pred": parsed,
            "correct": is_correct,
        }

    def metrics(self) -> Mapping[str, float | None]:
        # By subject first, as there: the rounding of the last place depends on it.
        right = sum(sum(one) / len(one) * len(one) for one in self._correct.values())
        total = sum(map(len, self._correct.values()))
        return {"mmmu_acc": round(right / total, 5)} if total else {}


def _to_json(candidates: Sequence[Candidate]) -> list[object]:
    """Texts sorted, then numbers; those that JSON does not know under `non_finite`."""
    numbers = [one for one in candidates if not isinstance(one, str)]
    numbers.sort(key=lambda number: (math.isnan(number), number))
    return [
        *sorted(one for one in candidates if isinstance(one, str)),
        *(n if math.isfinite(n) else {"non_finite": str(n)} for n in numbers),
    ]
