"""What kind of failure a score's reason describes.

GenEval's official reasons are read by form; other tasks' reasons are taken as they are when they are few, so that
any task can be filtered; answers without a reason are wrong, partly right, or such that no answer was read in them.
A picture can fail in several ways: kinds are listed in the order of its reason lines.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

RIGHT, UNSCORED, OTHER = "right", "not scored", "other"

MISSING, TOO_FEW, TOO_MANY, WRONG_COLOR, WRONG_PLACE = (
    "object missing",
    "too few",
    "too many",
    "wrong colour",
    "wrong place",
)
NOT_READ, WRONG_ANSWER, PARTLY = "no answer read", "wrong answer", "partly right"
MAX_KINDS = 8  # of reasons that are not GenEval's; the rest are "other"

_RELATIONS = r"(?:left of|right of|above|below)"
# The order of the patterns matters: a colour line begins like a count line.
_PATTERNS = (
    (re.compile(r"expected .+>=\d+, found \d+ \S.*; and "), WRONG_COLOR),
    (re.compile(r"expected .+>=\d+, found 0$"), MISSING),
    (re.compile(r"expected .+>=\d+, found \d+$"), TOO_FEW),
    (re.compile(r"expected .+<\d+, found \d+$"), TOO_MANY),
    (re.compile(rf"no target for .+ to be {_RELATIONS}"), MISSING),
    (re.compile(rf"expected .+ {_RELATIONS} target, found "), WRONG_PLACE),
)

_SAID = {
    "right": "right", "wrong": "wrong", "right_mark": "\u2713", "wrong_mark": "\u2715", "thing": "prompt",
    "title": "What went wrong", "failures": "failures only",
    "caption": "Outputs by the first thing that the rules found wrong; one picture can fail in several ways",
}  # fmt: skip
_SAID_OF_SETS = {
    "right": "inside", "wrong": "outside", "right_mark": "in", "wrong_mark": "out",
    "title": "Inside and outside the reference", "failures": "outside only",
    "caption": "Inside: within the reference's manifold, nearer to one of its pictures than that one's third "
    "neighbour (precision, as torch-fidelity's PRC). No verdict on what a picture shows",
}  # fmt: skip


def is_of_sets(task: str) -> bool:
    """Whether a task measures sets of pictures (FID and its like) and not what single ones show."""
    return task.partition("_")[0] == "fid"


def verdict_words(task: str, kind: str) -> dict[str, str]:
    """What pages call a score of 1 and one of 0, and what was asked: tasks on sets of pictures judge no picture.

    >>> verdict_words("fid_stickers", "generation")["right"], verdict_words("mme", "understanding")["thing"]
    ('inside', 'question')
    """
    said = _SAID | (_SAID_OF_SETS if is_of_sets(task) else {})
    return said | ({} if kind == "generation" else {"thing": "question"})


def kinds_of(reason: str) -> list[str]:
    """The kinds that GenEval's reason lines describe, each once; [] if none is recognised.

    >>> kinds_of("expected cat>=2, found 1")
    ['too few']
    """
    found = []
    for line in reason.splitlines():
        for pattern, kind in _PATTERNS:
            if pattern.match(line):
                found.append(kind)
                break
    return list(dict.fromkeys(found))


def classify(scores: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """Kinds of failure per row of scores.jsonl: ["right"], ["not scored"], or what went wrong."""
    rows = list(scores)
    common = _common_reasons(rows)
    return [_classify(row, common) for row in rows]


def _classify(row: Mapping[str, Any], common: Sequence[str]) -> list[str]:
    if row.get("value") is None:
        return [UNSCORED]
    reason = row.get("reason") or ""
    if row["value"] >= 1:
        return [RIGHT]
    if reason:
        return kinds_of(reason) or ([reason] if reason in common else [OTHER])
    details = row.get("details")
    if row["value"] > 0:
        return [PARTLY]
    if isinstance(details, Mapping) and details.get("unparsed"):
        return [NOT_READ]
    return [WRONG_ANSWER if row.get("answer") is not None else OTHER]


def _common_reasons(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    counts = Counter(
        row["reason"]
        for row in rows
        if row.get("value") is not None
        and row["value"] < 1
        and row.get("reason")
        and not kinds_of(row["reason"])
        and len(row["reason"]) <= 40
    )
    return [reason for reason, _ in counts.most_common(MAX_KINDS)]
