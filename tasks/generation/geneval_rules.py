"""The rules of GenEval: from detections to a verdict, from verdicts to the figures of a run.

Written to give the verdicts of `evaluation/evaluate_images.py` and `evaluation/summary_scores.py` of
djghosh13/geneval, commit af4902f (arXiv:2310.11513), bit for bit, with the detector and the colour
classifier left out: what they answered comes in as numbers. NumPy only.

Scores and boxes are compared in float32, as there: a score of 0.3 read from a file does not exceed
the threshold 0.3. Only the most confident `count` objects of a clause are ever looked at, so a red
car in second place does not help "a red car". The order of exactly equal scores is undefined
upstream (an unstable sort); here the one that stands later in the input comes first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLORS = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
)  # fmt: skip
TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")

SCORE_THRESHOLD = np.float32(0.3)
COUNTING_THRESHOLD = np.float32(0.9)
MAX_OBJECTS_PER_CLASS = 16
SHRINK = np.float32(0.1)
"""Share of the two objects' summed size that an offset must exceed before it counts as a direction."""

Float32 = NDArray[np.float32]


class SpecError(ValueError):
    """A prompt's spec, or the detections for it, cannot be judged by the rules."""


@dataclass(frozen=True, eq=False)
class Found:
    """A detection as the rules see it.

    `row`: float32 (5,), x1, y1, x2, y2, score. `color_logits`: ten numbers in the order of `COLORS`,
    or None when nobody asked the colour classifier. `source`: whatever the caller wants to keep.
    """

    row: Float32
    color_logits: Sequence[float] | None = None
    source: Any = None


@dataclass(frozen=True)
class Verdict:
    """`reason` is empty exactly when correct; `kept` are the detections that passed, best first."""

    correct: bool
    reason: str
    kept: Mapping[str, Sequence[Found]]

    def details(self) -> dict[str, list[list[float]]]:
        """Upstream's `details`: class -> rows [x1, y1, x2, y2, score], best first, absent if none."""
        return {name: [found.row.tolist() for found in rows] for name, rows in self.kept.items()}


@cache
def class_names() -> tuple[str, ...]:
    """The 80 class names in the official order; all other names are never found."""
    text = resources.files("tasks").joinpath("data/geneval/object_names.txt").read_text("utf-8")
    return tuple(line.strip() for line in text.splitlines())


def keep(detections: Iterable[tuple[str, Found]], tag: str) -> dict[str, list[Found]]:
    """Per class the detections that count: above the threshold, best first, at most 16.

    The threshold is 0.3, or 0.9 when `tag` is exactly "counting"; it must be exceeded. Overlapping
    detections are all kept, as upstream's overlap limit is off. Classes come in the official order,
    those without a detection are absent.
    """
    threshold = COUNTING_THRESHOLD if tag == "counting" else SCORE_THRESHOLD
    by_class: dict[str, list[Found]] = {name: [] for name in class_names()}
    for name, found in detections:
        if name in by_class and found.row[4] > threshold:
            by_class[name].append(found)
    kept = {}
    for name, rows in by_class.items():
        if rows:
            order = np.argsort(np.array([found.row[4] for found in rows]), kind="stable")[::-1]
            kept[name] = [rows[i] for i in order[:MAX_OBJECTS_PER_CLASS]]
    return kept


def relations(box_a: Float32, box_b: Float32) -> tuple[str, ...]:
    """Where A is, seen from B: none, one or two of left of, right of, above, below.

    Args: float32 arrays that begin with x1, y1, x2, y2 (y grows downwards). The offset of the
    centres is shrunk per axis by a tenth of the summed sizes and divided by the length of the
    *unshrunk* offset; a component beyond one half in size is a relation. Inverted boxes have a size
    too. float32 throughout, so that borderline cases fall as they do upstream.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # boxes near the limits of float32
        offset = _center(box_a) - _center(box_b)
        slack = SHRINK * (_size(box_a) + _size(box_b))
        shrunk = np.maximum(np.abs(offset) - slack, np.float32(0)) * np.sign(offset)
        if np.all(np.abs(shrunk) < np.float32(1e-3)):
            return ()
        x, y = shrunk / np.linalg.norm(offset)
    found = []
    if abs(x) > 0.5:
        found.append("left of" if x < 0 else "right of")
    if abs(y) > 0.5:
        found.append("above" if y < 0 else "below")
    return tuple(found)


def _center(box: Float32) -> Float32:
    return (box[:2] + box[2:4]) / np.float32(2)


def _size(box: Float32) -> Float32:
    return np.abs(box[2:4] - box[:2])


def color_of(found: Found) -> str:
    """The colour with the largest logit; the first of equals. Raises SpecError without logits."""
    if found.color_logits is None:
        raise SpecError("the colour of this object is asked for, but it has no color_logits")
    return COLORS[int(np.argmax(np.asarray(found.color_logits, dtype=np.float32)))]


def judge(detections: Iterable[tuple[str, Found]], spec: Mapping[str, Any]) -> Verdict:
    """The official verdict on one picture.

    Args: detections: (class name, detection) pairs in any order, before any threshold. spec: the
    prompt's line of the official file: `tag`, `include` and `exclude` (either may be absent).
    Raises: SpecError if a colour is needed that was not classified, or a position names no clause.
    """
    kept = keep(detections, spec["tag"])
    reasons: list[str] = []
    groups: list[Sequence[Found] | None] = []
    for clause in spec.get("include", ()):
        objects = kept.get(clause["class"], [])[: clause["count"]]
        failure = _include_failure(clause, objects, groups)
        groups.append(objects if failure is None else None)
        if failure is not None:
            reasons.append(failure)
    for clause in spec.get("exclude", ()):
        n = len(kept.get(clause["class"], ()))
        if n >= clause["count"]:
            reasons.append(f"expected {clause['class']}<{clause['count']}, found {n}")
    return Verdict(correct=not reasons, reason="\n".join(reasons), kept=kept)


def _include_failure(
    clause: Mapping[str, Any],
    objects: Sequence[Found],
    groups: Sequence[Sequence[Found] | None],
) -> str | None:
    """The official line for what is wrong with `objects`, or None if they fulfil the clause.

    `groups` holds, for each earlier clause, the objects that fulfilled it, or None.
    """
    name, count = clause["class"], clause["count"]
    if len(objects) < count:
        return f"expected {name}>={count}, found {len(objects)}"
    if "color" in clause:
        asked, colors = clause["color"], [color_of(found) for found in objects]
        if colors.count(asked) < count:
            seen = ", ".join(f"{colors.count(c)} {c}" for c in COLORS if c in colors)
            return (
                f"expected {asked} {name}>={count}, found {colors.count(asked)} {asked}; and {seen}"
            )
    if "position" in clause:
        relation, target_index = clause["position"]
        try:
            targets = groups[target_index]
        except IndexError:
            raise SpecError(
                f"position {clause['position']!r} of {name!r} names clause {target_index}, "
                f"but only the {len(groups)} clauses before it can be named"
            ) from None
        if targets is None:
            return f"no target for {name} to be {relation}"
        for found, target in _pairs(objects, targets):
            true_relations = relations(found.row, target.row)
            if relation not in true_relations:
                return (
                    f"expected {name} {relation} target, "
                    f"found {' and '.join(true_relations)} target"
                )
    return None


def _pairs(objects: Sequence[Found], targets: Sequence[Found]) -> Iterator[tuple[Found, Found]]:
    return ((found, target) for found in objects for target in targets)


@dataclass(frozen=True)
class ResultRow:
    """What the summary reads of one line of upstream's results.jsonl."""

    metadata: str
    tag: str
    correct: bool


def summarise(rows: Sequence[ResultRow]) -> dict[str, Any]:
    """The figures of upstream's summary, unrounded.

    Pictures belong to one prompt when their `metadata` strings are equal; a prompt is correct when
    any of its pictures is. `tags` are means over pictures, 0 to 1; `overall` is their plain mean, and
    None when one of the six official tags is missing: the mean of fewer is another quantity.
    Raises: SpecError for no rows.
    """
    if not rows:
        raise SpecError("no results to summarise")
    prompts: dict[str, bool] = {}
    by_tag: dict[str, list[bool]] = {}
    for row in rows:
        prompts[row.metadata] = prompts.get(row.metadata, False) or row.correct
        by_tag.setdefault(row.tag, []).append(row.correct)
    tags = {tag: sum(correct) / len(correct) for tag, correct in by_tag.items()}
    return {
        "total_images": len(rows),
        "total_prompts": len(prompts),
        "correct_images_percent": 100 * sum(row.correct for row in rows) / len(rows),
        "correct_prompts_percent": 100 * sum(prompts.values()) / len(prompts),
        "tags": tags,
        "tag_order": list(tags),
        "overall": sum(tags.values()) / len(tags) if tags.keys() >= set(TAGS) else None,
    }


def read_specs(text: str) -> list[dict[str, Any]]:
    """The lines of an official metadata file, in order."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]
