"""Verdicts on edits of sticker scenes: from detections to "followed" and "kept". Standard library and NumPy only.

An object counts as found where the judge reports its class with more than GenEval's 0.3; it has its place when the
centres are at most 0.15 of the picture's side apart (the places that a move names lie 0.35 apart), and its colour when
the judge's colour is the named one. Objects as drawn, without a named colour, may have any.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.api import Detection
from tasks.generation.geneval_rules import COLORS, COUNTING_THRESHOLD, SCORE_THRESHOLD

MAX_DISTANCE = 0.15
"""Of the picture's side, between where an object is and where it should be."""


class EditSpecError(ValueError):
    """The judge's answer lacks what an edit needs."""


@dataclass(frozen=True)
class EditVerdict:
    """``followed``: the asked change is there. ``kept``: everything else is as it was. ``reason``: what is not, in the
    form of GenEval's reasons."""

    followed: bool
    kept: bool
    reason: str
    detections: list[list[Any]]

    @property
    def is_right(self) -> bool:
        return self.followed and self.kept


def color_classes(record: Mapping[str, Any]) -> list[str]:
    """Classes whose colour decides."""
    objects = [*record["source"], *record["target"]]
    return list(dict.fromkeys(o["class"] for o in objects if o["color"] is not None))


def judge(
    detections: Sequence[Detection], size: tuple[int, int], record: Mapping[str, Any]
) -> EditVerdict:
    """The verdict on one picture.

    Args: size: (width, height) of the judged picture. record: kind, source and target objects, each with class, color
        (or None) and box as fractions. Raises: EditSpecError if a colour that decides was not classified.
    """
    seen = [d for d in detections if d.score > SCORE_THRESHOLD]
    free = list(seen)
    source, target = record["source"], record["target"]
    changed = [o for o in target if o not in source]
    wrong_change: list[str] = []
    wrong_rest: list[str] = []
    for wanted in target:
        problems = wrong_change if wanted in changed else wrong_rest
        # Where a new object goes is told by its relation to another, if at all: any place is taken here.
        is_placed = not (record["kind"] == "add" and wanted in changed)
        found = _nearest(free, wanted, size)
        if found is None:
            problems.append(f"expected {_name(wanted)}>=1, found 0")
            continue
        free.remove(found)
        if wanted["color"] is not None and _color(found) != wanted["color"]:
            asked, other = wanted["color"], _color(found)
            problems.append(f"expected {_name(wanted)}>=1, found 0 {asked}; and 1 {other}")
        distance = _distance(found, wanted, size)
        if is_placed and distance > MAX_DISTANCE:
            problems.append(f"{_name(wanted)} is {distance:.2f} of the side away from its place")
    if record["kind"] == "add":
        wrong_change += _relation_problems(seen, record, size)
    for gone in (o for o in source if o not in target and record["kind"] == "remove"):
        left = sum(d.class_name == gone["class"] for d in free)
        if left:
            wrong_change.append(f"expected {gone['class']}<1, found {left}")
            free = [d for d in free if d.class_name != gone["class"]]
    # More than asked for: only what the judge is sure of, as in GenEval's counting.
    for extra in (d for d in free if d.score > COUNTING_THRESHOLD):
        count = 1 + sum(o["class"] == extra.class_name for o in target)
        wrong_rest.append(f"expected {extra.class_name}<{count}, found {count}")
    return EditVerdict(
        followed=not wrong_change,
        kept=not wrong_rest,
        reason="\n".join([*wrong_change, *wrong_rest]),
        detections=[[d.class_name, *map(float, d.box), float(d.score)] for d in seen],
    )


def _relation_problems(
    seen: Sequence[Detection], record: Mapping[str, Any], size: tuple[int, int]
) -> list[str]:
    """Whether an added object stands on the side of the other where the target has it."""
    new = next(o for o in record["target"] if o not in record["source"])
    old = record["source"][0]
    placed, other = _nearest(seen, new, size), _nearest(seen, old, size)
    if placed is None or other is None or placed is other:
        return []  # said already
    wanted = [a - b for a, b in zip(_center(new["box"]), _center(old["box"]), strict=True)]
    actual = [a - b for a, b in zip(_found_center(placed, size), _found_center(other, size), strict=True)]
    axis = 0 if abs(wanted[0]) > abs(wanted[1]) else 1
    if wanted[axis] * actual[axis] > 0:
        return []
    sides = [("left of", "right of"), ("above", "below")][axis]
    asked, found = sides if wanted[axis] < 0 else sides[::-1]
    return [f"expected {_name(new)} {asked} target, found {found} target"]


def _nearest(
    detections: Sequence[Detection], wanted: Mapping[str, Any], size: tuple[int, int]
) -> Detection | None:
    """The detection of the class that has the colour, then that is nearest to the place; None without any."""
    mine = [d for d in detections if d.class_name == wanted["class"]]
    if not mine:
        return None
    return min(
        mine,
        key=lambda d: (
            wanted["color"] is not None and _color(d) != wanted["color"],
            _distance(d, wanted, size),
        ),
    )


def _distance(found: Detection, wanted: Mapping[str, Any], size: tuple[int, int]) -> float:
    return math.dist(_found_center(found, size), _center(wanted["box"]))


def _found_center(found: Detection, size: tuple[int, int]) -> tuple[float, float]:
    x, y = _center(found.box)
    return x / size[0], y / size[1]


def _center(box: Sequence[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _color(found: Detection) -> str:
    if found.color_logits is None:
        raise EditSpecError(f"the colour of a {found.class_name} decides, but it was not classified")
    return COLORS[max(range(len(COLORS)), key=lambda i: found.color_logits[i])]  # type: ignore[index]


def _name(wanted: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (wanted["color"], wanted["class"])))
