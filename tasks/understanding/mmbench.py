"""MMBench (English, dev): multiple choice, each question asked with its options in several orders.

Measures: twenty abilities of perception and reasoning. 4,329 rows for 1,164 questions: rows whose index
is 1,000,000 k + i are question i with its options moved round, and a question counts only if all its
rows are right (circular evaluation).
Paper: Liu et al., arXiv:2307.06281.
Data: hub data set lmms-lab-encoder/MMBench, subset en, split dev, or the same columns in a parquet file.
Scorer: task `mmbench_en_dev_static` of lmms-eval 0.7.3, written anew and compared with recorded scores
of the original. It asks no language model: rules find the letter or the text of one option, and where
they find nothing, `tasks.choices.extract_letter` does.

Worth: official figures use a language model for answers the rules cannot read, so these are a little
lower for models that talk. An answer that any option's text is part of counts for that option.

Version 1: the rules above. Intervals resample questions.
Version 2: answers end after 1,024 tokens or at "ASSISTANT:", as in lmms-eval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evals.api import Metric, MetricValue, Score, ScoreRow, Terms
from evals.recorded import Field
from tasks.choices import extract_letter
from tasks.understanding.base import QuestionTask, optional_text
from tasks.understanding.data import Source
from tasks.understanding.metrics import to_value, unparsed_share

PROMPT_LETTERS = ("A", "B", "C", "D", "E")
LETTERS = ("A", "B", "C", "D")
COPIES_FROM = 1_000_000

_INTRO = "There are several options:"
_PROMPT_END = "\n\nAnswer with the option's letter from the given choices directly."
ABSENT = "nan"  # how the data writes an empty cell of text
_API_FAILURE = "Failed to obtain answer via API"

# What stands around a letter, in the order in which the shapes are tried.
_SHAPES = (
    "{}", "{}.", "{},", "{}:", "{})", "{}).", "({})", "({}).", ":{}", ":{},", ":{}.", ":{})", ":{}).",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """A row. `options`: letter -> text of every cell that is not empty, "nan" among them."""

    index: int
    question: str
    hint: str | None
    options: Mapping[str, str]
    answer: str | None
    category: str

    @property
    def main_index(self) -> int:
        return self.index % COPIES_FROM


@dataclass(frozen=True, slots=True)
class Reading:
    """The letter in an answer by the rules (None: none), else by the last resort ("": none)."""

    by_rules: str | None
    by_last_resort: str | None

    @property
    def letter(self) -> str:
        return self.by_rules or self.by_last_resort or ""


class MmBench(QuestionTask[Question]):
    """The task; see the module's card. The group is the ability."""

    name = "mmbench"
    version = "2"
    max_new_tokens = 1024
    stop = ("ASSISTANT:",)
    groups = ()
    source = Source(
        "lmms-lab-encoder/MMBench",
        "dev",
        subset="en",
        aliases=("mmbench_en_dev_static", "mmbench_en_dev"),
        rows=4329,
    )
    card = {
        "measures": "multiple choice, each question with its options in several orders",
        "paper": "Liu et al., MMBench, arXiv:2307.06281",
        "data": "hub data set lmms-lab-encoder/MMBench, en, split dev: 4,329 rows, 1,164 questions",
        "licence": "Apache-2.0",
        "scorer": "task mmbench_en_dev_static of lmms-eval 0.7.3: rules only, no language model",
        "worth": (
            "Official figures ask a language model about answers that rules cannot read, so these are a "
            "little lower for models that talk."
        ),
    }

    def read(self, record: Field) -> Question:
        # To the scorer, a table without a column is one with "nan" in it, and an empty cell is no option.
        cells = {c: record.get(c) for c in PROMPT_LETTERS}
        options = {
            c: ABSENT if cell is None else optional_text(record, c) for c, cell in cells.items()
        }
        index = record["index"]
        if index.integer() < 0:  # it would belong to no main row
            index.fail(f"must be 0 or more, got {index.shown}")
        return Question(
            index=index.value,
            question=record["question"].text(),
            hint=optional_text(record, "hint"),
            options={c: text for c, text in options.items() if text is not None},
            answer=optional_text(record, "answer"),
            category=record["category"].text(),
        )

    def unit(self, doc: Question) -> str:
        return str(doc.main_index)  # a question counts when it is right in every order of its options

    def prompt(self, doc: Question) -> str:
        shown = [f"{c}. {t}" for c, t in doc.options.items() if t not in ("", ABSENT)]
        options = "\n".join([_INTRO, *shown]).rstrip("\n")
        hint = "" if doc.hint is None or doc.hint == ABSENT else f"{doc.hint} "
        return f"{hint}{doc.question} {options}{_PROMPT_END}"

    def identity(self, doc: Question, number: int) -> tuple[str, str]:
        return str(doc.index), doc.category

    def judge(self, doc: Question, answer: str) -> Score:
        """Of one row. Details: `expected`, `question` (the index of the main row), `is_main`, `unparsed`."""
        if doc.answer is None:
            return Score.unscored("the question has no answer to compare with")
        letter = read_letter(doc, answer).letter
        return Score(
            float(letter == doc.answer),
            answer=letter or None,
            details={
                "expected": doc.answer,
                "question": doc.main_index,
                "is_main": doc.index < COPIES_FROM,
                "unparsed": not letter,
            },
        )

    def metrics(self) -> Sequence[Metric]:
        return [CircularAccuracy(), unparsed_share()]

    def lmms_eval(self) -> LmmsEval:
        return LmmsEval()


def read_letter(doc: Question, answer: str) -> Reading:
    """The letter of an answer; the last resort is tried only when the rules find nothing."""
    options = {c: doc.options[c] for c in LETTERS if c in doc.options}
    letter = _letter_as_word(answer) or _letter_of_text(answer, options)
    if letter:
        return Reading(letter, None)
    return Reading(None, extract_letter(answer, options))


def _letter_as_word(answer: str) -> str | None:
    """The one letter (A to E) that is a word of the answer, or that is one with punctuation."""
    if _API_FAILURE in answer:
        return None
    words = answer.split()
    for shape in _SHAPES:
        found = [letter for letter in PROMPT_LETTERS if shape.format(letter) in words]
        # In more than three words a bare A may be an article.
        if len(found) == 1 and not (shape == "{}" and "A" in words and len(words) > 3):
            return found[0]
    return None


def _letter_of_text(answer: str, options: Mapping[str, str]) -> str | None:
    lowered = answer.lower()
    found = [letter for letter, text in options.items() if text.lower() in lowered]
    return found[0] if len(found) == 1 else None


@dataclass(frozen=True)
class CircularAccuracy:
    """The share of questions all of whose rows are right; those with a row without score are left out.

    Copies whose main row is not there are no question.
    """

    name: str = "accuracy"
    unit: str = "fraction"
    higher_is_better: bool = True

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        from evals import stats

        terms = self.terms(rows)
        estimate = stats.mean(terms.values, bounded=True)
        return to_value(self.name, estimate, len(self._questions(rows)) - len(terms.values))

    def terms(self, rows: Sequence[ScoreRow]) -> Terms:
        """One term per question all of whose rows have a score."""
        whole = {
            index: values for index, values in self._questions(rows).items() if None not in values
        }
        numbers = tuple(whole)
        return Terms(numbers, tuple(float(all(v)) for v in whole.values()), numbers)

    @staticmethod
    def _questions(rows: Sequence[ScoreRow]) -> dict[int, list[float | None]]:
        """Number of the main row -> the values of all its rows."""
        questions: dict[int, list[float | None]] = {}
        mains = set()
        for row in rows:
            number = int(row.sample_id)
            questions.setdefault(number % COPIES_FROM, []).append(row.score.value)
            if number < COPIES_FROM:
                mains.add(number)
        return {index: values for index, values in questions.items() if index in mains}


class LmmsEval:
    """The scores of lmms-eval 0.7.3; the figure is in percent there."""

    def __init__(self) -> None:
        self._rows: list[tuple[Question, str]] = []

    def result(self, doc: Question, answer: str) -> Mapping[str, object]:
        reading = read_letter(doc, answer)
        self._rows.append((doc, reading.letter))
        return {
            "prediction": answer,
            "rule_letter": reading.by_rules,
            "static_letter": reading.by_last_resort,
            "hit_alone": int(bool(reading.letter) and reading.letter == doc.answer),
        }

    def metrics(self) -> Mapping[str, float | None]:
        golds = {doc.index: doc.answer for doc, _ in self._rows}
        hits: dict[int, bool] = {}
        for doc, letter in self._rows:
            is_hit = bool(letter) and letter == golds[doc.index]
            hits[doc.main_index] = hits.get(doc.main_index, True) and is_hit
        mains = [doc.index for doc, _ in self._rows if doc.index < COPIES_FROM]
        if not mains:
            return {"gpt_eval_score": None} if self._rows else {}
        return {"gpt_eval_score": 100 * sum(hits[index] for index in mains) / len(mains)}
