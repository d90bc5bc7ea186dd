"""Selections of points, ``{target: clip, seed: [0, 1]}``: what fits one, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evals.errors import shown, suggest
from evals.sweeps.folder import digest_of


def matching(
    selection: Mapping[str, Any], values: Mapping[str, Any], labels: Mapping[str, str]
) -> bool:
    """Whether a combination has the value, or one of the values, that a selection names for each of its keys."""
    for key, wanted in selection.items():
        allowed = wanted if isinstance(wanted, list) else [wanted]
        value = values[labels.get(key, key)]
        if not any(same(value, one) for one in [*allowed, wanted]):
            return False
    return True


def same(a: Any, b: Any) -> bool:
    return digest_of(a) == digest_of(b)


def selection_problems(
    selection: Mapping[str, Any],
    combinations: Sequence[Mapping[str, Any]],
    labels: Mapping[str, str],
) -> list[str]:
    """Keys that do not vary, and values that no point has."""
    problems = [] if selection else ["it names no key, so it would fit every point"]
    known = [*labels.values(), *labels]
    for key, wanted in selection.items():
        label = labels.get(key, key)
        if key not in known:
            problems.append(f"unknown axis {shown(key)}.{suggest(key, known)}")
            continue
        values = list(distinct(c[label] for c in combinations))
        for one in wanted if isinstance(wanted, list) else [wanted]:
            if not any(same(one, value) or same(wanted, value) for value in values):
                texts = [json.dumps(v) if not isinstance(v, str) else v for v in values]
                problems.append(f"{label} is never {shown(one)}.{suggest(str(one), texts)}")
    return problems


def distinct(values: Iterator[Any]) -> Iterator[Any]:
    seen = set()
    for value in values:
        digest = digest_of(value)
        if digest not in seen:
            seen.add(digest)
            yield value
