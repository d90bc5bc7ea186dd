"""What VQAv2 and TextVQA share: open questions with the answers of ten people, scored by soft accuracy."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from evals.api import Score
from evals.recorded import Field
from tasks.understanding.base import QuestionTask, identifier, optional_identifier
from tasks.understanding.vqa import soft_accuracy

PROMPT_END = "\nAnswer the question using a single word or phrase."


@dataclass(frozen=True, slots=True)
class Gold:
    """One annotator's answer, normalised. Entries that are equal, `mark` included, are one to the scorer."""

    answer: str
    mark: Hashable


@dataclass(frozen=True, slots=True)
class Question:
    """`golds`: one per annotator; None if the split has no answers. `answer_type`: "" if it has none."""

    question_id: str
    image_id: int | str | None
    question: str
    answer_type: str
    golds: tuple[Gold, ...] | None


class AnnotatedTask(QuestionTask[Question]):
    """A task whose documents have `question_id`, `question`, `answers` and, most of them, `image_id`."""

    stop: ClassVar[tuple[str, ...]] = ("\n\n",)

    @staticmethod
    @abstractmethod
    def normalise(answer: str) -> str:
        """An answer as the task's scorer compares it."""

    @abstractmethod
    def gold(self, item: Field, number: int) -> Gold:
        """The entry of annotator `number`."""

    def answer_type(self, record: Field) -> str:
        """What kind of answer is asked for, in data that say so."""
        return ""

    def read(self, record: Field) -> Question:
        answers, golds = record.get("answers"), None
        if answers is not None and answers.value is not None:
            golds = tuple(self.gold(item, number) for number, item in enumerate(answers.items()))
            if not golds:
                answers.fail("must hold the annotators' answers, got []")
        return Question(
            identifier(record["question_id"]),
            optional_identifier(record, "image_id"),
            record["question"].text(),
            self.answer_type(record),
            golds,
        )

    def judge(self, doc: Question, answer: str) -> Score:
        """Details: `expected` (what most annotators said), `image`, `unparsed` (nothing is left of the answer)."""
        if doc.golds is None:
            return Score.unscored("the question has no answers to compare with")
        said = self.normalise(answer)
        return Score(
            value=accuracy(said, doc.golds),
            answer=said,
            details={
                "expected": most_said(doc.golds),
                "image": doc.image_id or doc.question_id,
                "unparsed": not said,
            },
        )


def most_said(golds: Sequence[Gold]) -> str:
    """The answer of most annotators, the first of those that equally many gave."""
    return Counter(gold.answer for gold in golds).most_common(1)[0][0]


def accuracy(said: str, golds: Sequence[Gold]) -> float:
    """Soft accuracy of a normalised answer."""
    return soft_accuracy(said, golds, lambda gold: gold.answer)


class LmmsEval:
    """The scores of lmms-eval 0.7.3; a question without answers scores 0 there.

    `as_given`: whether it leaves answers to such questions as they are.
    """

    def __init__(self, normalise: Callable[[str], str], as_given: bool) -> None:
        self._normalise, self._as_given = normalise, as_given
        self._values: list[float] = []

    def result(self, doc: Question, answer: str) -> Mapping[str, Any]:
        said = answer if doc.golds is None and self._as_given else self._normalise(answer)
        self._values.append(0.0 if doc.golds is None else accuracy(said, doc.golds))
        return {"exact_match": self._values[-1], "normalised_response": said}

    def metrics(self) -> Mapping[str, float | None]:
        return {"exact_match": sum(self._values) / len(self._values)} if self._values else {}
