"""RealWorldQA: questions about scenes as a car or a passer-by sees them.

Measures: spatial and practical understanding of photographs. 765 questions, most of them multiple
choice, some with a word or a number to answer.
Source: xAI, Grok-1.5 Vision preview (2024), https://x.ai/blog/grok-1.5v.
Data: hub data set lmms-lab-encoder/RealWorldQA, split test, or the same columns in a parquet file.
Scorer: task `realworldqa` of lmms-eval 0.7.3, written anew and compared with recorded scores of the
original: a letter (`tasks.choices.extract_letter`), or the exact text in lower case.

Worth: with 765 questions the 95 % interval is about 3.5 points either way. Letters are read in
capitals only, and "A" at the start of a sentence is a letter to the rule.

Version 1: the rules above.
Version 2: answers end after 16 tokens or at a blank line, as in lmms-eval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evals.api import Metric, Score
from evals.recorded import Field
from tasks.choices import extract_letter
from tasks.understanding.base import QuestionTask
from tasks.understanding.data import Source
from tasks.understanding.metrics import accuracy_by_group

LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True, slots=True)
class Question:
    question: str
    answer: str

    @property
    def is_choice(self) -> bool:
        return self.answer.upper() in LETTERS


class RealWorldQa(QuestionTask[Question]):
    """The task; see the module's card. The group is the kind of question."""

    name = "realworldqa"
    version = "2"
    max_new_tokens = 16
    stop = ("\n\n",)
    groups = ("choice", "open")
    source = Source("lmms-lab-encoder/RealWorldQA", "test", rows=765)
    card = {
        "measures": "questions about scenes as a car or a passer-by sees them",
        "paper": "xAI, Grok-1.5 Vision preview (2024), https://x.ai/blog/grok-1.5v",
        "data": "hub data set lmms-lab-encoder/RealWorldQA, split test: 765 questions",
        "licence": "CC-BY-ND-4.0",
        "scorer": "task realworldqa of lmms-eval 0.7.3: a letter, or the exact word",
        "worth": "With 765 questions the 95 % interval is about 3.5 points either way.",
    }

    def read(self, record: Field) -> Question:
        return Question(record["question"].text(), record["answer"].text().strip())

    def prompt(self, doc: Question) -> str:
        return doc.question.strip()

    def identity(self, doc: Question, number: int) -> tuple[str, str]:
        return f"{number:05d}", "choice" if doc.is_choice else "open"

    def judge(self, doc: Question, answer: str) -> Score:
        """Details: `expected`, `unparsed`."""
        value, said = judge_answer(doc, answer)
        return Score(value, answer=said, details={"expected": doc.answer, "unparsed": not said})

    def metrics(self) -> Sequence[Metric]:
        return accuracy_by_group(self.groups)

    def lmms_eval(self) -> LmmsEval:
        return LmmsEval()


def judge_answer(doc: Question, answer: str) -> tuple[float, str]:
    """1 or 0, and what was understood: a letter ("" if none), or the words."""
    if doc.is_choice:
        letter = extract_letter(answer, LETTERS)
        return float(letter == doc.answer.upper()), letter
    said = answer.lower().strip().rstrip(".")
    return float(said == doc.answer.lower()), said


class LmmsEval:
    """The scores of lmms-eval 0.7.3; `letter` is None for questions without letters."""

    def __init__(self) -> None:
        self._values: list[float] = []

    def result(self, doc: Question, answer: str) -> Mapping[str, object]:
        value, said = judge_answer(doc, answer)
        self._values.append(value)
        return {"exact_match": value, "letter": said if doc.is_choice else None}

    def metrics(self) -> Mapping[str, float | None]:
        return {"exact_match": sum(self._values) / len(self._values)} if self._values else {}
