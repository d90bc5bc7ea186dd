"""WISE's rules: which prompt belongs to which group, how a judge's text becomes marks, what the marks are worth.

Written anew from the behaviour of PKU-YuanGroup/WISE at eb51174, which has no licence; nothing of it is here. Two
editions exist, with their own prompts, group boundaries, weights and marks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

NUM_PROMPTS = 1000
TRIES = 3
"""How often the judge is asked for a text that can be read."""
HIGHEST = {"consistency": 2, "realism": 2, "aesthetic_quality": 2, "score": 1}
"""Mark -> the highest that its edition allows; the lowest is 0."""

Marks = dict[str, int]

# Around the colon nothing is strict: "Realism 1", "**Realism**: 1" and "realism:1" are read, "**Realism:** 1" is not.
# The full-width colon was read by upstream's first release; at eb51174 only the ASCII one is.
_BETWEEN = r"\*{0,2}\s*[:\uff1a]?\s*"
_THREE = re.compile(rf"(consistency|realism|aesthetic quality){_BETWEEN}(\d)", re.IGNORECASE)
_ONE = re.compile(rf"score{_BETWEEN}([01])\b", re.IGNORECASE)
_THOUGHTS = re.compile(r"<think>.*?</think>\s*|</think>\s*", re.DOTALL)


@dataclass(frozen=True)
class Group:
    """Prompts ``first`` to ``last``, and what their mean weighs in the overall."""

    name: str
    first: int
    last: int
    weight: float


@dataclass(frozen=True)
class Edition:
    """One of the two protocols. ``read``: judge's text -> marks; ``value``: all marks of a picture -> 0 to 1."""

    name: str
    groups: tuple[Group, ...]
    marks: tuple[str, ...]
    max_tokens: int
    read: Callable[[str], Marks]
    value: Callable[[Mapping[str, float]], float]

    def group_of(self, prompt_id: int) -> str | None:
        """The group of a prompt, None for a number that is none."""
        return next((g.name for g in self.groups if g.first <= prompt_id <= g.last), None)

    def problem(self, marks: Mapping[str, int]) -> str | None:
        """Why marks are no verdict; None where they are one."""
        missing = [name.replace("_", " ") for name in self.marks if name not in marks]
        if missing:
            return f"no mark for {', '.join(missing)}"
        beyond = [name for name in self.marks if marks[name] > HIGHEST[name]]
        return f"{beyond[0].replace('_', ' ')} {marks[beyond[0]]} is above {HIGHEST[beyond[0]]}" if beyond else None


def without_thoughts(text: str) -> str:
    """What a model says after thinking aloud in <think> tags, as the published client of WISE_Verified cuts it."""
    return _THOUGHTS.sub("", text).strip()


def read_three(text: str) -> Marks:
    """Consistency, realism and aesthetic quality of a judge's text, as many as are named in it.

    A mark that is named twice has its later value. Where none is named, the first three lines that hold nothing but
    0, 1 or 2 stand for the three.

    >>> read_three("**Consistency**: 2, Realism 1, then: realism 0")
    {'consistency': 2, 'realism': 0}
    """
    found: Marks = {}
    for label, digit in _THREE.findall(text):
        found[label.lower().replace(" ", "_")] = int(digit)
    bare = _bare_lines(text, "012")
    if found or len(bare) < 3:
        return found
    return dict(zip(("consistency", "realism", "aesthetic_quality"), bare, strict=False))


def read_one(text: str) -> Marks:
    """The bit of a judge's text: the first that is called a score, else the only line that holds nothing but 0 or 1.

    >>> read_one("Score: 1"), read_one("0"), read_one("It shows a cat.")
    ({'score': 1}, {'score': 0}, {})
    """
    named = _ONE.search(text)
    bare = [int(named[1])] if named else _bare_lines(text, "01")
    return {"score": bare[0]} if len(bare) == 1 else {}


def _bare_lines(text: str, digits: str) -> list[int]:
    lines = (line.strip() for line in text.split("\n"))
    return [int(line) for line in lines if len(line) == 1 and line in digits]


def value_of_three(marks: Mapping[str, float]) -> float:
    """(0.7 consistency + 0.2 realism + 0.1 aesthetic quality) / 2, rounded once: full marks are 1 exactly."""
    return (7 * marks["consistency"] + 2 * marks["realism"] + marks["aesthetic_quality"]) / 20


def value_of_one(marks: Mapping[str, float]) -> float:
    return float(marks["score"])


def weighted(groups: Sequence[Group], means: Mapping[str, float]) -> float:
    """The overall: each group's mean at its weight."""
    return math.fsum(group.weight * means[group.name] for group in groups)


def _groups(*rows: tuple[str, int, float]) -> tuple[Group, ...]:
    first, found = 1, []
    for name, last, weight in rows:
        found.append(Group(name, first, last, weight))
        first = last + 1
    return tuple(found)


LEGACY = Edition(
    "wise",
    _groups(
        ("culture", 400, 0.4), ("time", 567, 0.167), ("space", 700, 0.133), ("biology", 800, 0.1),
        ("physics", 900, 0.1), ("chemistry", 1000, 0.1),
    ),
    ("consistency", "realism", "aesthetic_quality"),
    2000,
    read_three,
    value_of_three,
)  # fmt: skip
VERIFIED = Edition(
    "wise_verified",
    _groups(
        ("culture", 400, 0.4), ("time", 520, 0.12), ("space", 640, 0.12), ("biology", 760, 0.12),
        ("physics", 880, 0.12), ("chemistry", 1000, 0.12),
    ),
    ("score",),
    500,
    read_one,
    value_of_one,
)  # fmt: skip
