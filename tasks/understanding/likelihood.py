"""Editions of multiple choice and yes/no tasks that compare log-likelihoods instead of reading a written answer.

The model is asked how likely each allowed answer is as the beginning of its reply (`Choice`), and the likeliest one is
judged as if the model had written it; equal ones go to the first. Nothing can be unparsed, so such figures say what the
model knows apart from how it writes, and they are never figures of the written task: each edition has a name of its
own. Questions without allowed answers (MMMU's and RealWorldQA's open ones) are answered in writing as ever.

Letters are compared after the same prompt, so no answer is favoured for its length; what "A" is worth before any
question is not taken out.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from evals.api import Choice, Sample, Score, ScoreItem
from evals.recorded import Field
from tasks.choices import letters_of
from tasks.understanding import (
    mmbench,
    mme,
    mme_stickers,
    mmmu,
    mmmu_stickers,
    realworldqa,
    seedbench,
)

_OPTION_LINE = re.compile(r"^\s*\(?([A-D])[.):]", re.MULTILINE)


def _card(of: Any) -> dict[str, str]:
    how = "the likeliest of the allowed answers, by their log-likelihoods, is judged as written"
    return {**of.card, "scorer": f"{of.card['scorer']}; {how}"}


class ByLikelihood:
    """Stands before the written task among the bases."""

    needs_likelihoods: ClassVar[bool] = True
    recorded_kinds: ClassVar[tuple[str, ...]] = ()
    compat_modes: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def allowed(self, doc: Any) -> Sequence[str]:
        """The answers that a question allows; () for an open one."""

    def samples(self) -> Sequence[Sample]:
        written = super().samples()  # type: ignore[misc]
        return [replace(sample, choices=self._choices(sample)) for sample in written]

    def _choices(self, sample: Sample) -> tuple[Choice, ...]:
        return tuple(Choice(sample.prompt, text) for text in self._allowed(sample))

    def _allowed(self, sample: Sample) -> Sequence[str]:
        doc = self.read(Field(dict(sample.metadata), sample.id))  # type: ignore[attr-defined]
        return self.allowed(doc)

    def score(self, items: Sequence[ScoreItem], judge: Any | None) -> Sequence[Score]:
        read = [self._as_written(item) for item in items]
        return super().score(read, judge)  # type: ignore[misc]

    def _as_written(self, item: ScoreItem) -> ScoreItem:
        allowed = self._allowed(item.sample)
        if not allowed:
            return item
        values = [value for value, _ in json.loads(item.output.text or "[]")]
        if len(values) != len(allowed):
            raise ValueError(f"{len(values)} log-likelihoods for {len(allowed)} answers")
        return replace(item, output=replace(item.output, text=allowed[values.index(max(values))]))


class MmeLikelihood(ByLikelihood, mme.Mme):
    name = "mme_likelihood"
    data_of = "mme"
    version = "1"
    card = _card(mme.Mme)

    def allowed(self, doc: mme.Question) -> Sequence[str]:
        return "Yes", "No"


class MmmuLikelihood(ByLikelihood, mmmu.Mmmu):
    name = "mmmu_likelihood"
    data_of = "mmmu"
    version = "1"
    card = _card(mmmu.Mmmu)

    def allowed(self, doc: mmmu.Question) -> Sequence[str]:
        return letters_of(doc.options)  # open questions have none


class MmBenchLikelihood(ByLikelihood, mmbench.MmBench):
    name = "mmbench_likelihood"
    data_of = "mmbench"
    version = "1"
    card = _card(mmbench.MmBench)

    def allowed(self, doc: mmbench.Question) -> Sequence[str]:
        return [letter for letter, text in doc.options.items() if text not in ("", mmbench.ABSENT)]


class SeedBenchLikelihood(ByLikelihood, seedbench.SeedBench):
    name = "seedbench_likelihood"
    data_of = "seedbench"
    version = "1"
    card = _card(seedbench.SeedBench)

    def allowed(self, doc: seedbench.Question) -> Sequence[str]:
        return letters_of(doc.options)


class RealWorldQaLikelihood(ByLikelihood, realworldqa.RealWorldQa):
    name = "realworldqa_likelihood"
    data_of = "realworldqa"
    version = "1"
    card = _card(realworldqa.RealWorldQa)

    def allowed(self, doc: realworldqa.Question) -> Sequence[str]:
        """The letters of the options, which stand in the question's own text, one a line."""
        if not doc.is_choice:
            return ()
        found = dict.fromkeys(_OPTION_LINE.findall(doc.question))
        return tuple(found) if len(found) > 1 else realworldqa.LETTERS


class MmeStickersLikelihood(ByLikelihood, mme_stickers.MmeStickers):
    name = "mme_stickers_likelihood"
    version = "1"
    card = _card(mme_stickers.MmeStickers)

    def allowed(self, doc: mme.Question) -> Sequence[str]:
        # In small letters, as the world's own training answers are.
        return "yes", "no"


class MmmuStickersLikelihood(ByLikelihood, mmmu_stickers.MmmuStickers):
    name = "mmmu_stickers_likelihood"
    version = "1"
    card = _card(mmmu_stickers.MmmuStickers)

    def allowed(self, doc: mmmu.Question) -> Sequence[str]:
        return letters_of(doc.options)
