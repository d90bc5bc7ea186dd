"""MME: yes/no questions in pairs about perception and cognition.

Measures: whether a model says yes to what a picture shows and no to what it does not. 2,374 questions,
two a picture, in ten categories of perception (2,000 points) and four of cognition (800 points).
Paper: Fu et al., arXiv:2306.13394.
Data: hub data set lmms-lab-encoder/MME, split test, or the same columns in a parquet file.
Scorer: task `mme` of lmms-eval 0.7.3, written anew and compared with recorded scores of the original.

A category's points are the mean over its pictures of the share of right answers (100) and of whether
both were right (100). lmms-eval looks for "yes" and "no" in the first four characters, so "none",
"nothing" and "know" are a no to it; here the first or the last word has to be yes or no, and an answer
with neither, or with both, is unparsed. The `..._lmms_eval` figures are by its rule.

Worth: always saying yes, or always no, earns 50 of 200 points in every category. Near the top of the
range a few pictures decide.

Version 1: the rules above.
Version 2: answers end after 16 tokens or at a blank line, as in lmms-eval.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from evals.api import Metric, MetricValue, Score, ScoreRow, Terms
from evals.recorded import Field
from tasks.understanding.base import QuestionTask
from tasks.understanding.data import Source
from tasks.understanding.metrics import to_value, unparsed_share

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark",
    "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
PAIR_POINTS = 200.0

_REQUEST = " Please answer yes or no."
_PROMPT_END = "\nAnswer the question using a single word or phrase."
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Question:
    question_id: str
    question: str
    answer: str
    category: str


def yes_or_no(answer: str) -> str | None:
    """ "yes" or "no" if the first or the last word says so and the other does not contradict.

    A lone "y" or "n" will do.
    """
    words = _WORD.findall(answer.lower())
    if len(words) == 1 and words[0] in ("y", "n"):
        return "yes" if words[0] == "y" else "no"
    said = {word for word in (*words[:1], *words[-1:]) if word in ("yes", "no")}
    return said.pop() if len(said) == 1 else None


def yes_or_no_lmms(answer: str) -> str:
    """lmms-eval's reading: "yes", "no" or "other"."""
    text = answer.lower().strip().replace(".", "")
    if len(text) == 1:
        return {"y": "yes", "n": "no"}.get(text, "other")
    return next((word for word in ("yes", "no") if word in text[:4]), "other")


def half_of(category: str) -> str:
    """Which half a category counts for; unknown ones count for cognition, as in lmms-eval."""
    return "perception" if category in PERCEPTION else "cognition"


class Mme(QuestionTask[Question]):
    """The task; see the module's card. The group is the category."""

    name = "mme"
    version = "2"
    max_new_tokens: ClassVar[int | None] = 16
    stop: ClassVar[tuple[str, ...]] = ("\n\n",)
    groups: ClassVar[tuple[str, ...]] = (*PERCEPTION, *COGNITION)
    source = Source("lmms-lab-encoder/MME", "test", rows=2374)
    card = {
        "measures": "yes/no questions in pairs about perception and cognition",
        "paper": "Fu et al., MME, arXiv:2306.13394",
        "data": "hub data set lmms-lab-encoder/MME, split test: 2,374 questions, two a picture",
        "licence": "for academic research; some pictures are not redistributable",
        "scorer": "task mme of lmms-eval 0.7.3, yes and no as words; its own reading beside it",
        "worth": (
            "Always saying yes, or always no, earns 50 of 200 points in every category; near the top "
            "a few pictures decide."
        ),
    }

    def read(self, record: Field) -> Question:
        answer = record["answer"]
        gold = answer.text().lower().strip().replace(".", "")
        if gold not in ("yes", "no"):
            answer.fail(f"must be yes or no, got {answer.shown}")
        return Question(
            record["question_id"].text(), record["question"].text(), gold, record["category"].text()
        )

    def unit(self, doc: Question) -> str:
        return f"{doc.category}/{doc.question_id}"  # a picture counts with both of its questions

    def prompt(self, doc: Question) -> str:
        return doc.question.strip().replace(_REQUEST, "") + _PROMPT_END

    def identity(self, doc: Question, number: int) -> tuple[str, str]:
        # Both questions about a picture carry its id; a row's place tells them apart.
        return f"{number:05d}", doc.category

    def judge(self, doc: Question, answer: str) -> Score:
        """Details: `expected`, `pair`, `unparsed`, `lmms_eval` (1 or 0 by its reading)."""
        said = yes_or_no(answer)
        return Score(
            value=float(said == doc.answer),
            answer=said,
            details={
                "expected": doc.answer,
                "pair": doc.question_id,
                "unparsed": said is None,
                "lmms_eval": float(yes_or_no_lmms(answer) == doc.answer),
            },
        )

    def metrics(self) -> Sequence[Metric]:
        halves = (("perception", PERCEPTION), ("cognition", COGNITION))
        return [
            *(Points(half, names) for half, names in halves),
            *(Points(name, (name,)) for name in self.groups),
            unparsed_share(),
            *(Points(f"{half}_lmms_eval", names, "lmms_eval") for half, names in halves),
        ]

    def notes_on_recorded(self, kind: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Repeats, and the first picture whose answers are no pair."""
        results = [row["result"] for row in rows[:-1]]
        pictures = Counter(r.get("question_id", r.get("pair")) for r in results if "unscored" not in r)
        odd = [name for name, count in pictures.items() if count != 2]
        notes = super().notes_on_recorded(kind, rows)
        if odd:
            notes.append(
                f"picture {odd[0]!r} has {pictures[odd[0]]} instead of two scored answers ({len(odd)} such pictures in "
                "all): no points for it"
            )
        return notes

    def lmms_eval(self) -> LmmsEval:
        return LmmsEval()


@dataclass(frozen=True)
class Points:
    """The sum of the points of `categories`, those without a pair of scored answers left out.

    A picture counts when both of its questions have a score. `detail` takes the answers' values from
    there. Intervals resample pictures within their category.
    """

    name: str
    categories: tuple[str, ...]
    detail: str | None = None
    unit: str = "points"
    higher_is_better: bool = True

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        from evals import stats

        terms = self.terms(rows)
        categories = terms.strata or ()
        estimate = stats.mean_of_strata(terms.values, categories, terms.clusters, bounded=True)
        found, n = len(set(categories)), 2 * len(terms.values)
        unscored = sum(row.group in self.categories for row in rows) - n
        value = to_value(self.name, estimate, unscored, self.unit, scale=terms.scale)
        if not found:
            return value
        is_whole = found == len(self.categories)
        note = None if is_whole else f"{found} of {len(self.categories)} categories"
        return replace(value, n=n, note=note)

    def terms(self, rows: Sequence[ScoreRow]) -> Terms:
        """One term per picture with both questions scored; its category is the stratum."""
        pairs: dict[tuple[str, str], list[float]] = {}
        for row in rows:
            if row.group in self.categories and row.score.value is not None:
                details = row.score.details
                value = details[self.detail] if self.detail else row.score.value
                pairs.setdefault((row.group, str(details["pair"])), []).append(value)
        whole = {key: values for key, values in pairs.items() if len(values) == 2}
        categories = tuple(category for category, _ in whole)
        return Terms(
            keys=tuple(whole),
            values=tuple(_pair_points(values) / PAIR_POINTS for values in whole.values()),
            clusters=tuple(whole),
            strata=categories,
            scale=PAIR_POINTS * len(set(categories)),
        )


def _pair_points(values: Sequence[float]) -> float:
    return 100.0 * sum(values) / 2 + 100.0 * (sum(values) == 2)


class LmmsEval:
    """The scores of lmms-eval 0.7.3.

    Where it would stop because a picture has not exactly two answers, the figure is None.
    """

    def __init__(self) -> None:
        self._scores: dict[str, dict[str, dict[str, list[float]]]] = {}

    def result(self, doc: Question, answer: str) -> Mapping[str, object]:
        parsed = yes_or_no_lmms(answer)
        score = float(parsed == doc.answer)
        metric = f"mme_{half_of(doc.category)}_score"
        categories = self._scores.setdefault(metric, {})
        categories.setdefault(doc.category, {}).setdefault(doc.question_id, []).append(score)
        return {
            "metric": metric,
            "question_id": doc.question_id,
            "category": doc.category,
            "score": score,
            "parsed": parsed,
        }

    def metrics(self) -> Mapping[str, float | None]:
        return {metric: _total(categories) for metric, categories in self._scores.items()}


def _total(categories: Mapping[str, Mapping[str, Sequence[float]]]) -> float | None:
    total = 0.0
    for pairs in categories.values():
        if any(len(values) != 2 for values in pairs.values()):
            return None
        total += sum(map(_pair_points, pairs.values())) / len(pairs)
    return total
