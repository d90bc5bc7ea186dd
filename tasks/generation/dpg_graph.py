"""What tasks with a graph of questions about each prompt share: asking, scoring, figures.

`Dpg` and `DpgStickers` say which questions there are; this says what becomes of the answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from evals.api import Metric, Sample, Score, ScoreItem
from evals.errors import JudgeError
from tasks.generation import dpg_rules as rules
from tasks.generation.dpg_metrics import Category, Figure, Subcategory

LEVEL_1 = ("global", "entity", "attribute", "relation", "other")
LEVEL_2 = (
    "entity - whole", "entity - part", "entity - state",
    "attribute - color", "attribute - size", "attribute - shape", "attribute - texture", "attribute - other",
    "relation - spatial", "relation - non-spatial", "other - count", "other - text",
)  # fmt: skip


class QuestionGraphTask:
    """Scores and figures over `rows`, with the wording from `question`; a task adds samples and its card."""

    name: str
    level_2: Sequence[str] = LEVEL_2

    @property
    def rows(self) -> Sequence[rules.Row]:
        """All questions, those of one item together."""
        raise NotImplementedError

    def question(self, item_id: str, proposition_id: int) -> str:
        """The wording of a question."""
        raise NotImplementedError

    @cached_property
    def _items(self) -> rules.Items:
        return rules.fixed_items(self.rows)

    def num_questions(self, sample: Sample) -> int:
        """How many questions a judge is asked about each picture of a prompt."""
        return len(self._items[sample.id])

    def score(self, items: Sequence[ScoreItem], judge: Any | None) -> Sequence[Score]:
        """Shares of questions that hold on each picture.

        Details: `answers`, proposition id -> text, and `questions`, proposition id -> `text`, `tuple`,
        `parents`. A picture with a question that has no answer is unscored and counts as failed.
        """
        if judge is None or not hasattr(judge, "ask"):
            raise JudgeError(
                f"task {self.name!r} needs a judge that answers questions about pictures, got "
                f"{getattr(getattr(judge, 'identity', None), 'name', judge)!r}: choose one with --judge"
            )
        questions = self._items
        asked = [(item, pid) for item in items for pid in questions[item.sample.id]]
        texts = list(
            judge.ask(
                [item.image for item, _ in asked],
                [self.question(item.sample.id, pid) for item, pid in asked],
            )
        )
        if len(texts) != len(asked):
            raise JudgeError(f"{len(asked)} questions were answered with {len(texts)} texts")
        answers: dict[tuple[str, int], dict[int, Any]] = {}
        for (item, pid), text in zip(asked, texts, strict=True):
            answers.setdefault((item.sample.id, item.output.index), {})[pid] = text
        return [
            self._score(i.sample.id, questions[i.sample.id], answers[i.sample.id, i.output.index])
            for i in items
        ]

    def _score(
        self, item_id: str, questions: Mapping[int, rules.Row], answers: Mapping[int, Any]
    ) -> Score:
        told = {pid: None if isinstance(a, Exception) else a for pid, a in answers.items()}
        details: dict[str, Any] = {
            "answers": {str(pid): text for pid, text in told.items() if text is not None},
            "questions": {
                str(pid): {
                    "text": str(self.question(item_id, pid)),
                    "tuple": row.tuple,
                    "parents": [p for p in row.parents if p != 0],
                }
                for pid, row in questions.items()
            },
        }
        for pid, answer in answers.items():
            if isinstance(answer, Exception):
                return Score.unscored(f"question {pid}: {answer}", failed="judge", **details)
        try:
            raw = rules.raw_scores(questions, told)
            value = rules.crop_score(questions, raw)
        except rules.PictureError as error:
            return Score.unscored(str(error), **details)
        return Score(value, reason=_reason(questions, raw), details=details)

    def metrics(self) -> Sequence[Metric]:
        """All in percent: `overall` (mode `fixed`), `official`, and the categories of level 1 and 2 in both modes
        (`entity`, `official_entity`, `entity_whole`, `official_entity_whole`)."""
        fixed, official = rules.score_fixed, rules.score_official
        return [
            Figure("overall", self, fixed),
            Figure("official", self, official),
            *(Category(name, self, fixed, name) for name in LEVEL_1),
            *(Category(f"official_{name}", self, official, name) for name in LEVEL_1),
            *(Subcategory(_metric_name(name), self, fixed, name) for name in self.level_2),
            *(Subcategory(f"official_{_metric_name(name)}", self, official, name) for name in self.level_2),
        ]


def _reason(questions: Mapping[int, rules.Row], raw: Mapping[int, float]) -> str:
    """ "not yes: entity, relation": level 1 categories of the questions that fail although their parents hold."""
    failed = [
        rules.level_1_of(row.category or "no category")
        for pid, row in questions.items()
        if raw[pid] == 0 and all(raw[parent] for parent in row.parents if parent != 0)
    ]
    return f"not yes: {', '.join(dict.fromkeys(failed))}" if failed else ""


def _metric_name(category: str) -> str:
    """ "relation - non-spatial" -> "relation_non_spatial"."""
    return category.replace(" - ", "_").replace("-", "_")
