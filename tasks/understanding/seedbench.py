"""SEED-Bench: multiple choice about pictures and short videos.

Measures: nine kinds of understanding of pictures and three of videos (given as frames). 17,990
questions with four options.
Paper: Li et al., arXiv:2307.16125.
Data: hub data set lmms-lab-encoder/SEED-Bench, split test, or the same columns in a parquet file;
`image` is a list.
Scorer: task `seedbench` of lmms-eval 0.7.3, written anew and compared with recorded scores of the
original: the first character of the answer is the letter, in either case.

Worth: the rule reads "The answer is B" as T. An answer whose first character is no letter of an option
is wrong, and counted as unparsed here; a high share of those says that the figure measures the form of
the answers.

Version 1: the rules above.
Version 2: answers end at "ASSISTANT:", as in lmms-eval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evals.api import Metric, Score
from evals.recorded import Field
from tasks.choices import lettered
from tasks.understanding.base import QuestionTask, identifier
from tasks.understanding.data import Source
from tasks.understanding.metrics import accuracy_by_group

PROMPT_END = "\nAnswer with the option's letter from the given choices directly."
LETTERS = "abcd"


@dataclass(frozen=True, slots=True)
class Question:
    """`data_type`: "image" or "video"."""

    question_id: str
    question: str
    options: tuple[str, str, str, str]
    answer: str
    data_type: str


class SeedBench(QuestionTask[Question]):
    """The task; see the module's card. The group is the kind of picture."""

    name = "seedbench"
    version = "2"
    stop = ("ASSISTANT:",)
    groups = ("image", "video")
    source = Source("lmms-lab-encoder/SEED-Bench", "test", rows=17_990)
    card = {
        "measures": "multiple choice about pictures and frames of short videos",
        "paper": "Li et al., SEED-Bench, arXiv:2307.16125",
        "data": "hub data set lmms-lab-encoder/SEED-Bench, split test: 17,990 questions",
        "licence": "CC-BY-NC-4.0",
        "scorer": "task seedbench of lmms-eval 0.7.3: the first character is the letter",
        "worth": (
            "An answer that does not begin with its letter is wrong to the rule: look at the share of "
            "unparsed answers first."
        ),
    }

    def read(self, record: Field) -> Question:
        a, b, c, d = (record[f"choice_{letter}"].text() for letter in LETTERS)
        return Question(
            identifier(record["question_id"]),
            record["question"].text(),
            (a, b, c, d),
            record["answer"].text(),
            record["data_type"].text(),
        )

    def prompt(self, doc: Question) -> str:
        return f"{doc.question}\n{lettered(doc.options)}{PROMPT_END}"

    def identity(self, doc: Question, number: int) -> tuple[str, str]:
        return doc.question_id, doc.data_type

    def judge(self, doc: Question, answer: str) -> Score:
        """Details: `expected`, `unparsed`."""
        said = answer[:1]
        is_letter = bool(said) and said.lower() in LETTERS
        return Score(
            float(is_match(doc, said)),
            answer=said.upper() if is_letter else None,
            details={"expected": doc.answer.strip().upper(), "unparsed": not is_letter},
        )

    def metrics(self) -> Sequence[Metric]:
        return accuracy_by_group(self.groups)

    def lmms_eval(self) -> LmmsEval:
        return LmmsEval()


def is_match(doc: Question, said: str) -> bool:
    return said.lower().strip() == doc.answer.lower().strip()


class LmmsEval:
    """The scores of lmms-eval 0.7.3."""

    def __init__(self) -> None:
        self._correct: dict[str, list[bool]] = {}

    def result(self, doc: Question, answer: str) -> Mapping[str, object]:
        said = answer[:1]
        metrics = sorted((f"seed_{doc.data_type}", "seed_all"))
        is_correct = is_match(doc, said)
        for metric in metrics:
            self._correct.setdefault(metric, []).append(is_correct)
        return {"metrics": metrics, "pred": said, "correct": is_correct}

    def metrics(self) -> Mapping[str, float | None]:
        names = ("seed_image", "seed_video", "seed_all")
        found = {name: self._correct[name] for name in names if name in self._correct}
        return {name: sum(correct) / len(correct) for name, correct in found.items()}
