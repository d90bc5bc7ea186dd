"""WISE: does the picture show what one has to know to understand the prompt?

Measures: world knowledge in text-to-image models. 1,000 prompts that hint at what has to be seen, one picture each; a
vision-language model that is told the answer marks the picture. Groups: culture, time, space, biology, physics,
chemistry. Paper: Niu et al., arXiv:2503.07265.
Data: the user's copy of PKU-YuanGroup/WISE, commit eb51174, which has no licence; nothing of it is bundled.
Scorer: its rules, written anew in `wise_rules`. `wise` is the protocol of the paper (legacy upstream: three marks from
0 to 2, judge GPT-4o-2024-05-13), `wise_verified` the one that followed (about 200 prompts replaced, other group
boundaries, one bit, judge Qwen3.5-35B-A3B). The judge's instruction is our own wording (`wise_wording`), or the
user's with `judge.args.instruction`; every score carries the sha256 of it.

Worth: a figure is one judge's opinion. Another snapshot of GPT-4o moved a published model from 0.62 to 0.54, and the
two editions differ more than models do. Compare runs of one judge, one wording and one edition.

Version 1.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.api import InstructedJudge, Metric, Sample, Score, ScoreItem, ScoreRow, TaskKind
from evals.errors import JudgeError, MissingRequirementError, shown
from tasks.generation import wise_rules as rules
from tasks.generation import wise_wording
from tasks.generation.caption_task import DATA_VARIABLE

if TYPE_CHECKING:
    from evals.recorded import Field
    from tasks.generation.wise_data import WiseData

_OWN, _USERS = "blip3o-eval", "user"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


_CARD = {
    "measures": "knowledge about culture, time, space and science that a prompt takes for granted",
    "paper": "Niu et al., WISE, arXiv:2503.07265",
    "licence": "none: the files are the user's",
    "worth": "One judge's opinion: another snapshot of GPT-4o moved a published model from 0.62 to 0.54. Compare runs "
    "of one judge, one instruction and one edition.",
}


class Wise:
    """The protocol of the paper; see the module's card."""

    name = "wise"
    version = "1"
    kind: TaskKind = "generation"
    num_images = 1
    edition = rules.LEGACY
    wording = wise_wording.LEGACY
    judges: Mapping[str, str] = {"photos": "openai-vlm"}
    judge_methods = ("reply",)
    picture_layouts = ("numbered", "grids")
    recorded_kinds = ("answers", "results")
    card: Mapping[str, str] = {
        **_CARD,
        "data": "PKU-YuanGroup/WISE, commit eb51174, WISE_legacy: 1,000 prompts, 1 picture each",
        "scorer": "(0.7 consistency + 0.2 realism + 0.1 aesthetic quality) / 2 of a judge's marks from 0 to 2",
        "default instruction": f"our own wording, sha256 {_sha256(wording)}",
        "judge's text": f"free, at temperature 0, at most {edition.max_tokens:,} tokens",
    }

    def __init__(self, data: str | Path | None = None) -> None:
        """``data``: the folder with upstream's files, or one file."""
        self._given = data

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(group.name for group in self.edition.groups)

    @cached_property
    def _data(self) -> WiseData:
        from tasks.generation.wise_data import FOLDERS, read

        root = os.environ.get(DATA_VARIABLE)
        place = self._given or (root and Path(root) / self.name)
        if not place:
            raise MissingRequirementError(
                f"task {self.name!r} needs its prompts: `git clone https://github.com/PKU-YuanGroup/WISE`, then give "
                f"--data WISE/{FOLDERS[self.name]}, or put the files into {DATA_VARIABLE}/{self.name}"
            )
        return read(Path(place).expanduser(), self.edition)

    def samples(self) -> Sequence[Sample]:
        return self._data.samples

    def digest(self) -> str:
        return self._data.digest()

    def score(self, items: Sequence[ScoreItem], judge: Any | None) -> Sequence[Score]:
        """The judge's marks as one value. Details: `scores` (the marks), each mark as a share of its highest,
        `response`, `tries`, `expected` (the explanation), whose `instruction` it was, and its `instruction_sha256`.

        A text that cannot be read is asked for again, three times in all; then the picture is unscored.
        """
        if not isinstance(judge, InstructedJudge):
            raise JudgeError(f"task {self.name!r} needs a judge that follows an instruction: choose one with --judge")
        from evals.judges.instruction import filled

        wording = judge.instruction or self.wording
        about = {
            "instruction": _USERS if judge.instruction else _OWN,
            "instruction_sha256": _sha256(wording),
        }
        texts = [filled(wording, i.sample.prompt, str(i.sample.metadata["Explanation"])) for i in items]
        scores: dict[int, Score] = {}
        left = list(range(len(items)))
        for tries in range(1, rules.TRIES + 1):
            replies = judge.reply([items[n].image for n in left], [texts[n] for n in left], self.edition.max_tokens)
            unread = []
            for n, reply in zip(left, replies, strict=True):
                explanation = items[n].sample.metadata["Explanation"]
                details = {**about, "tries": tries, "expected": explanation}
                scores[n], is_final = self._verdict(reply, details)
                unread += [] if is_final else [n]
            left = unread
            if not left:
                break
        return [scores[n] for n in range(len(items))]

    def _verdict(self, reply: Any, details: dict[str, Any]) -> tuple[Score, bool]:
        """A score, and whether the judge is not to be asked again."""
        from evals.judges.parse import UnreadableAnswerError

        if isinstance(reply, Exception):
            return Score.unscored(str(reply), failed="judge", **details), not isinstance(reply, UnreadableAnswerError)
        text = rules.without_thoughts(str(reply))
        details = {**details, "response": text}
        marks = self.edition.read(text)
        if problem := self.edition.problem(marks):
            reason = f"the judge's text cannot be read: {problem} in {shown(text)}"
            return Score.unscored(reason, failed="judge", **details), False
        marks = {name: marks[name] for name in self.edition.marks}
        shares = {name: mark / rules.HIGHEST[name] for name, mark in marks.items()}
        details = {**details, "scores": marks, **shares}
        return Score(self.edition.value(marks), answer=text, reason=_reason(marks), details=details), True

    def metrics(self) -> Sequence[Metric]:
        """`overall` (all prompts or none), the groups, the three marks as shares of 2, and the overall of what has a
        score."""
        from evals.metrics.accuracy import GroupMean
        from tasks.generation.wise_metrics import Overall, WeightedMean

        marks = self.edition.marks if len(self.edition.marks) > 1 else ()
        return [
            Overall("overall", self.edition.groups, missing=lambda: self._data.missing),
            *(GroupMean(name, name) for name in self.groups),
            *(GroupMean(None, name, detail=name) for name in marks),
            WeightedMean("overall_of_scored", self.edition.groups),
        ]

    def warnings(self, rows: Sequence[ScoreRow]) -> list[str]:
        """Whose wording the judge was given, and how often its text could not be read at first."""
        rows = [row for row in rows if "instruction_sha256" in row.score.details]
        wordings = {(str(r.score.details["instruction"]), str(r.score.details["instruction_sha256"])) for r in rows}
        found = []
        for whose, digest in sorted(wordings):
            words = "blip3o-eval's own wording of the instruction" if whose == _OWN else "the user's instruction"
            found.append(
                f"the judge was given {words} (sha256 {digest[:12]}); published figures rest on upstream's own and on "
                "another judge"
            )
        repeated = sum(row.score.details["tries"] > 1 for row in rows)
        if repeated:
            found.append(f"{repeated:,} of {len(rows):,} pictures needed more than one try for a text that can be read")
        return found

    def score_recorded(self, kind: str, lines: Sequence[Field]) -> Sequence[Mapping[str, Any]]:
        """Score recorded texts or score files; `wise_records` says what a line holds."""
        from tasks.generation.wise_records import score_answer, summary

        if kind == "results":
            return [summary(lines, self.edition)]
        return [score_answer(line, self.edition) for line in lines]

    def notes_on_recorded(self, kind: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """What a reader of the scored rows has to know."""
        from tasks.generation.wise_records import notes

        return notes(kind, rows, self.edition)


class WiseVerified(Wise):
    """The edition of April 2026; see the module's card."""

    name = "wise_verified"
    edition = rules.VERIFIED
    wording = wise_wording.VERIFIED
    card: Mapping[str, str] = {
        **_CARD,
        "data": "PKU-YuanGroup/WISE, commit eb51174, WISE_Verified: 1,000 prompts, 1 picture each",
        "scorer": "a judge's verdict, 1 or 0",
        "default instruction": f"our own wording, sha256 {_sha256(wording)}",
        "judge's text": f"free, at temperature 0, at most {edition.max_tokens:,} tokens",
    }


def _reason(marks: Mapping[str, int]) -> str:
    """ "consistency 1 of 2": the heaviest mark that is not full; "" for full marks."""
    for name, mark in marks.items():
        if mark < rules.HIGHEST[name]:
            return "rejected by the judge" if name == "score" else f"{name.replace('_', ' ')} {mark} of 2"
    return ""
