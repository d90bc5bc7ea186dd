"""VQAv2: open questions about everyday photographs, ten human answers each.

Measures: short answers, scored by how many of ten people gave the same one. 214,354 questions (val).
Paper: Goyal et al., arXiv:1612.00837.
Data: hub data set lmms-lab-encoder/VQAv2, split validation, or the same columns in a parquet file.
Scorer: task `vqav2_val` of lmms-eval 0.7.3, written anew (`vqa`) and compared with recorded scores.

Worth: exact words decide; a right answer in other words scores nothing. "none" is the number 0 to the
scorer. Questions alone, without the picture, are answered surprisingly well.

Version 1: the rules above. Intervals resample pictures.
Version 2: answers end after 16 tokens or at a blank line, as in lmms-eval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from evals.api import Metric
from evals.recorded import Field
from tasks.understanding.annotated import PROMPT_END, AnnotatedTask, Gold, LmmsEval, Question
from tasks.understanding.data import Source
from tasks.understanding.metrics import Mean, in_group, unparsed_share
from tasks.understanding.vqa import normalise_vqav2

ANSWER_TYPES = ("yes/no", "number", "other")


class Vqav2(AnnotatedTask):
    """The task; see the module's card. The group is the kind of answer."""

    name = "vqav2"
    version = "2"
    max_new_tokens: ClassVar[int | None] = 16
    groups: ClassVar[tuple[str, ...]] = ANSWER_TYPES
    source = Source("lmms-lab-encoder/VQAv2", "validation", aliases=("vqav2_val",), rows=214_354)
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

    normalise = staticmethod(normalise_vqav2)

    def gold(self, item: Field, number: int) -> Gold:
        # The whole entry is the mark: equal entries leave together when one of them is left out.
        rest = tuple(sorted((k, v) for k, v in item.object().items() if k != "answer"))
        return Gold(normalise_vqav2(item["answer"].text()), rest)

    def answer_type(self, record: Field) -> str:
        kind = record.get("answer_type")
        return "" if kind is None else kind.text()

    def prompt(self, doc: Question) -> str:
        return doc.question + PROMPT_END

    def identity(self, doc: Question, number: int) -> tuple[str, str]:
        return doc.question_id, doc.answer_type or "other"

    def metrics(self) -> Sequence[Metric]:
        return [
            Mean("accuracy", cluster="image"),
            *(Mean(name, in_group(name), cluster="image") for name in ANSWER_TYPES),
            unparsed_share(),
        ]

    def lmms_eval(self) -> LmmsEval:
        return LmmsEval(normalise_vqav2, as_given=True)
