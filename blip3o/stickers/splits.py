"""What training never sees: (class, colour) pairs, pairs of classes, and exact specs of GenEval prompts.

The lists stand in ``assets/held_out.json``; ``held_out_lists`` is the deterministic function that made them.
``is_held_out`` works on GenEval metadata lines, so results can be reported for the seen and unseen half apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

from .names import CLASSES, COLORS
from .rng import Stream

HELD_OUT_FILE = Path(__file__).parent / "assets" / "held_out.json"
SPEC_TAGS = ("two_object", "position", "color_attr")
_OPPOSITE = {"left of": "right of", "below": "above"}

#: split -> which combinations its scenes may show
SPLITS: dict[str, str] = {
    "train": "seen",
    "val": "seen",
    "judge": "any",  # the judge is no model under test: it has to know every combination
    "test_seen": "seen",
    "test_unseen": "unseen",
    "unseen_style": "seen",
    "test": "any",
}


@dataclass(frozen=True)
class HeldOut:
    """The committed lists as sets: (class, colour), frozenset of two classes, and spec keys."""

    class_colors: frozenset[tuple[str, str]]
    class_pairs: frozenset[frozenset[str]]
    specs: frozenset[str]


@lru_cache(maxsize=1)
def held_out() -> HeldOut:
    data = json.loads(HELD_OUT_FILE.read_text())
    return HeldOut(
        frozenset((c, k) for c, k in data["class_colors"]),
        frozenset(frozenset(pair) for pair in data["class_pairs"]),
        frozenset(data["specs"]),
    )


def spec_key(spec: Mapping[str, Any]) -> str:
    """What a spec shows, whatever its wording: "a cat left of a dog" and "a dog right of a cat" are the same.

    >>> spec_key({"include": [{"class": "dog", "count": 1}, {"class": "cat", "count": 1}]})
    '1 cat + 1 dog'
    """
    include = spec.get("include") or []
    words = [
        " ".join(str(v) for v in (e["count"], e.get("color"), e["class"]) if v) for e in include
    ]
    placed = [(i, e["position"]) for i, e in enumerate(include) if e.get("position")]
    if not placed:
        return " + ".join(sorted(words))
    parts = []
    for i, (relation, target) in placed:
        first, second = words[i], words[target]
        if relation in _OPPOSITE:
            first, relation, second = second, _OPPOSITE[relation], first
        parts.append(f"{first} {relation} {second}")
    return " + ".join(sorted(parts))


def pair_facts(
    objects: Sequence[tuple[str, str | None]], relations: Iterable[tuple[int, str, int]] = ()
) -> set[str]:
    """Keys of all two-object specs that are true of these (class, colour) objects and relations.

    A red cat left of a dog also shows "1 cat + 1 dog"; so a picture is judged by what it shows, not by its
    caption.
    """
    facts = set()
    for (name, color), (other, second) in combinations(objects, 2):
        if name != other:
            facts.add(spec_key({"include": [_entry(name), _entry(other)]}))
            if color and second:
                facts.add(spec_key({"include": [_entry(name, color), _entry(other, second)]}))
    for i, relation, j in relations:
        placed = {**_entry(objects[i][0]), "position": (relation, 0)}
        facts.add(spec_key({"include": [_entry(objects[j][0]), placed]}))
    return facts


def _entry(name: str, color: str | None = None) -> dict[str, Any]:
    return {"class": name, "count": 1, **({"color": color} if color else {})}


def shows_held_out(
    objects: Sequence[tuple[str, str | None]],
    relations: Iterable[tuple[int, str, int]] = (),
    lists: HeldOut | None = None,
) -> bool:
    """True when (class, colour) objects with relations (i, relation, j) show anything that is held out."""
    lists = lists or held_out()
    if any((name, color) in lists.class_colors for name, color in objects):
        return True
    names = sorted({name for name, _ in objects})
    if any(frozenset(pair) in lists.class_pairs for pair in combinations(names, 2)):
        return True
    return not lists.specs.isdisjoint(pair_facts(objects, relations))


def is_held_out(spec: Mapping[str, Any]) -> bool:
    """True when no training picture shows what this GenEval-style spec asks for.

    That is so when it names a held-out (class, colour) or pair of classes, or is (or implies) one of the
    held-out specs.
    """
    return _line_held_out(spec, held_out())


def _line_held_out(spec: Mapping[str, Any], lists: HeldOut) -> bool:
    include = spec.get("include") or []
    objects = [(entry["class"], entry.get("color")) for entry in include]
    placed = [(i, *entry["position"]) for i, entry in enumerate(include) if entry.get("position")]
    # Foreign specs may point at a clause that is not there; that names no second object.
    relations = [(i, relation, j) for i, relation, j in placed if 0 <= j < len(include)]
    return shows_held_out(objects, relations, lists)


def held_out_lists(prompts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of ``held_out.json``, from GenEval's metadata lines; the same every time.

    Every class loses one colour, every colour eight classes (80 of 800 pairs). Every class loses eight
    partners (320 of 3,160 pairs). Of each tag with two objects exactly half the prompts are held out: first
    those that the other lists cover anyway, then others drawn at random.
    """
    classes = Stream("held-out", "class colours").shuffled(CLASSES)
    colors = sorted((c, COLORS[i % len(COLORS)]) for i, c in enumerate(classes))
    ring = Stream("held-out", "class pairs").shuffled(CLASSES)
    n = len(ring)
    pairs = sorted(
        sorted((ring[i], ring[(i + step) % n])) for i in range(n) for step in (1, 7, 18, 31)
    )
    by_tag: dict[str, list[Mapping[str, Any]]] = {tag: [] for tag in SPEC_TAGS}
    for prompt in prompts:
        if prompt["tag"] in by_tag:
            by_tag[prompt["tag"]].append(prompt)
    specs: set[str] = set()
    for tag, lines in by_tag.items():
        lists = HeldOut(frozenset(colors), frozenset(map(frozenset, pairs)), frozenset(specs))
        order = Stream("held-out", "specs", tag).shuffled(lines)
        order.sort(key=lambda line, lists=lists: not _line_held_out(line, lists))  # type: ignore[misc]
        specs.update(spec_key(line) for line in order[: (len(order) + 1) // 2])
    return {
        "format": 1,
        "class_colors": [list(c) for c in colors],
        "class_pairs": pairs,
        "specs": sorted(specs),
    }


def write_held_out(metadata: Path, out: Path = HELD_OUT_FILE) -> None:
    """Write the lists from GenEval's ``evaluation_metadata.jsonl``."""
    lines = [json.loads(line) for line in metadata.read_text().splitlines() if line.strip()]
    out.write_text(json.dumps(held_out_lists(lines), indent=0) + "\n")
