"""WISE's recorded inputs: a judge's texts (`--answers`), and the score files of upstream's scripts (`--results`).

`--answers`: a line has `id` or `prompt_id`, and `response` (upstream's key `evaluation` is read, too). What a run would
refuse is repeated here as upstream has it: a digit above the scale counts.
`--results`: upstream's lines of `prompt_id` with `consistency`, `realism`, `aesthetic_quality`, or with `score`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.generation.wise_rules import HIGHEST, NUM_PROMPTS, Edition, weighted

if TYPE_CHECKING:
    from evals.recorded import Field

_SHOWN = 5


def score_answer(line: Field, edition: Edition) -> dict[str, Any]:
    """`id`, the marks that were read as `scores`, and `value`; null with a `reason` where a mark is missing."""
    key = "id" if line.get("id") is not None else "prompt_id"
    name = line[key].value
    if type(name) not in (str, int):
        line[key].fail(f"must be a text or a whole number, got {line[key].shown}")
    text = line["evaluation" if line.get("response") is None and line.get("evaluation") is not None else "response"]
    marks = edition.read(text.text())
    missing = [mark for mark in edition.marks if mark not in marks]
    row: dict[str, Any] = {"id": name, "scores": {mark: marks[mark] for mark in edition.marks if mark in marks}}
    if missing:
        return {**row, "value": None, "reason": edition.problem(marks)}
    return {**row, "value": edition.value(marks)}


def summary(lines: Sequence[Field], edition: Edition) -> dict[str, Any]:
    """The figures of a score file: `groups` (mean and n), `overall`, and why there is none."""
    ids, values = [], []
    for line in lines:
        number = line["prompt_id"].integer()
        if edition.group_of(number) is None:
            line["prompt_id"].fail(f"must be from 1 to {NUM_PROMPTS}, got {number}")
        marks = {name: line[name].number() for name in edition.marks}
        for name, mark in marks.items():
            if not 0 <= mark <= HIGHEST[name] or not mark.is_integer():
                allowed = ", ".join(map(str, range(HIGHEST[name] + 1)))
                line[name].fail(f"must be one of {allowed}, got {line[name].shown}")
        ids.append(number)
        values.append(edition.value(marks))
    return figures(ids, values, edition)


def figures(ids: Sequence[int], values: Sequence[float], edition: Edition) -> dict[str, Any]:
    """Means by group and the overall of all prompts; without the overall, and with a reason, where one is missing."""
    groups: dict[str, dict[str, Any]] = {}
    for group in edition.groups:
        mine = [value for number, value in zip(ids, values, strict=True) if group.first <= number <= group.last]
        groups[group.name] = {"mean": math.fsum(mine) / len(mine) if mine else None, "n": len(mine)}
    missing = sorted(set(range(1, NUM_PROMPTS + 1)) - set(ids))
    if missing:
        names = ", ".join(map(str, missing[:_SHOWN])) + (" ..." if len(missing) > _SHOWN else "")
        reason = f"{len(missing):,} of the {NUM_PROMPTS:,} prompts have no score: {names}"
        return {"overall": None, "groups": groups, "reason": reason}
    means = {name: group["mean"] for name, group in groups.items()}
    return {"overall": weighted(edition.groups, means), "groups": groups}


def notes(kind: str, rows: Sequence[Mapping[str, Any]], edition: Edition) -> list[str]:
    """What a reader of the rows has to know: prompts that stand twice, and what the answers make together."""
    from evals.recorded import notes_on_repeats

    if kind == "results":
        return [f"no overall: {row['reason']}" for row in rows if "reason" in row]
    found = notes_on_repeats(rows, "id")
    scored = [(_number(row["id"]), row["value"]) for row in rows if row["value"] is not None]
    known = [(number, value) for number, value in scored if number is not None and edition.group_of(number)]
    made = figures([number for number, _ in known], [value for _, value in known], edition)
    parts = [f"{name} {g['mean']:.4f} (n {g['n']})" for name, g in made["groups"].items() if g["n"]]
    if parts:
        found.append(", ".join(parts))
        found.append(
            f"no overall: {made['reason']}" if made["overall"] is None else f"overall {made['overall']:.4f}"
        )
    return found


def _number(name: Any) -> int | None:
    if type(name) is int:
        return name
    return int(name) if name.isascii() and name.isdecimal() and len(name) < 5 else None
