"""TextVQA: questions whose answers have to be read in the picture.

Measures: reading text in photographs. 5,000 questions (validation), ten human answers each.
Paper: Singh et al., arXiv:1904.08920.
Data: hub data set lmms-lab-encoder/textvqa, split validation, or the same columns in a parquet file.
Scorer: task `textvqa_val` of lmms-eval 0.7.3, written anew (`vqa`) and compared with recorded scores.
No OCR tokens are given. The question is capitalised, which lowers every other letter of it.

Worth: exact words decide, and spellings of the same sign differ between annotators; people do not
agree with each other beyond about 0.85.

Version 1: the rules above.
Version 2: answers end at "ASSISTANT:", as in lmms-eval.
"""

from __future__ import annotations

from collections.abc import Sequence

from evals.api import Metric
from evals.recorded import Field
from tasks.understanding.annotated import PROMPT_END, AnnotatedTask, Gold, LmmsEval, Question
from tasks.understanding.data import Source
from tasks.understanding.metrics import Mean, unparsed_share
from tasks.understanding.vqa import normalise_textvqa


class Textvqa(AnnotatedTask):
    """The task; see the module's card."""

    name = "textvqa"
    version = "2"
    stop = ("ASSISTANT:",)
    groups = ("all",)
    source = Source("lmms-lab-encoder/textvqa", "validation", aliases=("textvqa_val",), rows=5000)
    card = {
        "measures": "questions whose answers have to be read in the picture",
        "paper": "Singh et al., TextVQA, arXiv:1904.08920",
        "data": "hub data set lmms-lab-encoder/textvqa, split validation: 5,000 questions",
        "licence": "CC-BY-4.0",
        "scorer": "task textvqa_val of lmms-eval 0.7.3: soft accuracy over ten annotators",
        "worth": "Exact words decide; people agree with each other to about 0.85.",
    }

    normalise = staticmethod(normalise_textvqa)

    def gold(self, item: Field, number: int) -> Gold:
        return Gold(normalise_textvqa(item.text()), number)  # equal answers of two annotators stay two

    def prompt(self, doc: Question) -> str:
        return doc.question.capitalize() + PROMPT_END

    def identity(self, doc: Question, number: int) -> tuple[str, str]:
        return doc.question_id, "all"

    def metrics(self) -> Sequence[Metric]:
        return [Mean("accuracy", cluster="image"), unparsed_share()]

    def lmms_eval(self) -> LmmsEval:
        return LmmsEval(normalise_textvqa, as_given=False)
