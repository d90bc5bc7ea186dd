"""VQAv2: open questions about everyday photographs, ten human answers each.

Measures: short answers, scored by how many of ten people gave the same one. 214,354 questions (val).
Paper: Goyal et al., arXiv:1612.00837.
Data: hub data set lmms-lab-encoder/VQAv2, split validation, or the same columns in a parquet file.
Scorer: task `vqav2_val` of lmms-eval 0.7.3, written anew (`vqa`) and compared with recorded scores.

Worth: exact words decide; a right answer in other words scores nothing. "none" is the number 0 to the
scorer. Questions alone, without the picture, are answered surprisingly well.

Version 1: the rules above. Intervals resample pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evals.api import Metric, Score
from evals.recorded import Field
from tasks.understanding.base import QuestionTask, identifier, optional_identifier
from tasks.understanding.data import Source
from tasks.understanding.metrics import Mean, in_group, unparsed_share
from tasks.understanding.vqa import normalise_vqav2, soft_accuracy

ANSWER_TYPES = ("yes/no", "number", "other")
PROMPT_END = "\nAnswer the question using a single word or phrase."


@dataclass(frozen=True, slots=True)
class Gold:
    """One annotator's answer, normalised; equal ones are one and the same to the scorer."""

    answer: str
    rest: tuple[tuple[str, object], ...]


@dataclass(frozen=True, slots=True)
class Question:
    question_id: str
    image_id: str | None
    question: str
    answer_type: str
    golds: tuple[Gold, ...] | None


class Vqav2(QuestionTask[Question]):
    """The task; see the module's card. The group is the kind of answer."""

    name = "vqav2"
    groups = ANSWER_TYPES
    source = Source("lmms-lab-encoder/VQAv2", "validation", aliases=("vqav2_val",))
    card = {
        "measures": "short answers to open questions about everyday photographs",
        "paper": "Goyal et al., VQAv2, arXiv:1612.00837",
        "data": "hub data set lmms-lab-encoder/VQAv2, split validation: 214,354 questions",
        "licence": "CC-BY-4.0 (annotations)",
        "scorer": "task vqav2_val of lmms-eval 0.7.3: soft accuracy over ten annotators",
        "worth": (
            "Exact words decide, and questions are answered surprisingly well without the picture."
        ),
    }

    def read(self, record: Field) -> Question:
        answers, answer_type = record.get("answers"), record.get("answer_type")
        golds = None
        if answers is not None and answers.value is not None:
            golds = tuple(_gold(item) for item in answers.items())
            if not golds:
                answers.fail("must hold the annotators' answers, got []")
        return Question(
            identifier(record["question_id"]),
            optional_identifier(record, "image_id"),
            record["question"].text(),
            "" if answer_type is None else answer_type.text(),
            golds,
        )

    def prompt(self, doc: Question) -> str:
        return doc.question + PROMPT_END

    def identity(self, doc: Question, number: int) -> tuple[str, str]:
        return doc.question_id, doc.answer_type or "other"

    def judge(self, doc: Question, answer: str) -> Score:
        """Details: `image`, `unparsed` (nothing is left of the answer)."""
        if doc.golds is None:
            return Score.unscored("the question has no answers to compare with")
        said = normalise_vqav2(answer)
        return Score(
            value=_accuracy(said, doc.golds),
            answer=said,
            details={"image": doc.image_id or doc.question_id, "unparsed": not said},
        )

    def metrics(self) -> Sequence[Metric]:
        return [
            Mean("accuracy", cluster="image"),
            *(Mean(name, in_group(name), cluster="image") for name in ANSWER_TYPES),
            unparsed_share(),
        ]

    def lmms_eval(self) -> LmmsEval:
        return LmmsEval()


def _gold(field: Field) -> Gold:
    members = field.object()
    answer = normalise_vqav2(field["answer"].text())
    return Gold(answer, tuple(sorted((k, v) for k, v in members.items() if k != "answer")))


def _accuracy(said: str, golds: Sequence[Gold]) -> float:
    return soft_accuracy(said, golds, lambda gold: gold.answer)


class LmmsEval:
    """The scores of lmms-eval 0.7.3; a question without answers scores 0 there."""

    def __init__(self) -> None:
        self._values: list[float] = []

    def result(self, doc: Question, answer: str) -> Mapping[str, object]:
        said = answer if doc.golds is None else normalise_vqav2(answer)
        self._values.append(0.0 if doc.golds is None else _accuracy(said, doc.golds))
        return {"exact_match": self._values[-1], "normalised_response": said}

    def metrics(self) -> Mapping[str, float | None]:
        return {"exact_match": sum(self._values) / len(self._values)} if self._values else {}
