"""TextVQA: questions whose answers have to be read in the picture.

Measures: reading text in photographs. 5,000 questions (validation), ten human answers each.
Paper: Singh et al., arXiv:1904.08920.
Data: hub data set lmms-lab-encoder/textvqa, split validation, or the same columns in a parquet file.
Scorer: task `textvqa_val` of lmms-eval 0.7.3, written anew (`vqa`) and compared with recorded scores.
No OCR tokens are given. The question is capitalised, which lowers every other letter of it.

Worth: exact words decide, and spellings of the same sign differ between annotators; people do not
agree with each other beyond about 0.85.

Version 1: the rules above.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evals.api import Metric, Score
from evals.recorded import Field
from tasks.understanding.base import QuestionTask, identifier, optional_identifier
from tasks.understanding.data import Source
from tasks.understanding.metrics import Mean, unparsed_share
from tasks.understanding.vqa import normalise_textvqa, soft_accuracy

PROMPT_END = "\nAnswer the question using a single word or phrase."


@dataclass(frozen=True, slots=True)
class Question:
    """`golds`: the annotators' answers, normalised; None if the split has none."""

    question_id: str
    image_id: str | None
    question: str
    golds: tuple[str, ...] | None


class Textvqa(QuestionTask[Question]):
    """The task; see the module's card."""

    name = "textvqa"
    groups = ("all",)
    source = Source("lmms-lab-encoder/textvqa", "validation", aliases=("textvqa_val",))
    card = {
        "measures": "questions whose answers have to be read in the picture",
        "paper": "Singh et al., TextVQA, arXiv:1904.08920",
        "data": "hub data set lmms-lab-encoder/textvqa, split validation: 5,000 questions",
        "licence": "CC-BY-4.0",
        "scorer": "task textvqa_val of lmms-eval 0.7.3: soft accuracy over ten annotators",
        "worth": "Exact words decide; people agree with each other to about 0.85.",
    }

    def read(self, record: Field) -> Question:
        answers = record.get("answers")
        golds = None
        if answers is not None and answers.value is not None:
            golds = tuple(normalise_textvqa(item.text()) for item in answers.items())
            if not golds:
                answers.fail("must hold the annotators' answers, got []")
        return Question(
            identifier(record["question_id"]),
            optional_identifier(record, "image_id"),
            record["question"].text(),
            golds,
        )

    def prompt(self, doc: Question) -> str:
        return doc.question.capitalize() + PROMPT_END

    def identity(self, doc: Question, number: int) -> tuple[str, str]:
        return doc.question_id, "all"

    def judge(self, doc: Question, answer: str) -> Score:
        """Details: `image`, `unparsed` (nothing is left of the answer)."""
        if doc.golds is None:
            return Score.unscored("the question has no answers to compare with")
        said = normalise_textvqa(answer)
        return Score(
            value=_accuracy(said, doc.golds),
            answer=said,
            details={"image": doc.image_id or doc.question_id, "unparsed": not said},
        )

    def metrics(self) -> Sequence[Metric]:
        return [Mean("accuracy", cluster="image"), unparsed_share()]

    def lmms_eval(self) -> LmmsEval:
        return LmmsEval()


def _accuracy(said: str, golds: Sequence[str]) -> float:
    # Numbered, so that equal answers of two annotators stay two.
    return soft_accuracy(said, tuple(enumerate(golds)), lambda gold: gold[1])


class LmmsEval:
    """The scores of lmms-eval 0.7.3; a question without answers scores 0 there."""

    def __init__(self) -> None:
        self._values: list[float] = []

    def result(self, doc: Question, answer: str) -> Mapping[str, object]:
        said = normalise_textvqa(answer)
        self._values.append(0.0 if doc.golds is None else _accuracy(said, doc.golds))
        return {"exact_match": self._values[-1], "normalised_response": said}

    def metrics(self) -> Mapping[str, float | None]:
        return {"exact_match": sum(self._values) / len(self._values)} if self._values else {}
