"""Figures that others published, from the bundled compilation; always shown apart from measured ones."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

BENCHMARKS = {
    "geneval": "geneval", "geneval_long": "geneval", "dpg": "dpg_bench", "wise": "wise_legacy",
    "wise_verified": "wise_verified",
}  # fmt: skip
"""Task name -> benchmark of the compilation."""
REWRITTEN = {"geneval_long"}
"""Tasks whose prompts are rewritten: only rows of rewritten prompts stand beside them."""


@dataclass(frozen=True)
class PublishedRow:
    """One published result. Units as published: fractions for GenEval and WISE, percent for DPG-Bench."""

    model: str
    overall: float
    scores: dict[str, float]
    source: str
    is_rewritten: bool
    measured_by: str
    note: str = ""


@lru_cache(maxsize=1)
def _compilation() -> dict[str, Any]:
    file = resources.files("tasks").joinpath("data/leaderboard/published_scores.json")
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return data


def collected() -> str:
    """The day the compilation was made, ISO 8601."""
    return str(_compilation()["collected"])


def date_of(source: str) -> str:
    """When the source appeared, as far as its text says: the day it names, or the month of its arXiv number.

    >>> date_of("Janus-Pro paper, arXiv 2501.17811, tables 4 and 5")
    '2025-01'
    """
    if day := re.search(r"\b20\d\d-\d\d-\d\d\b", source):
        return day[0]
    if number := re.search(r"arXiv[ :](\d\d)(\d\d)\.\d{4,5}", source):
        return f"20{number[1]}-{number[2]}"
    return ""


def disagreements(rows: Sequence[PublishedRow]) -> list[tuple[str, float, float]]:
    """(model, lowest, highest overall) of the models for which sources give different figures, widest gap first."""
    by_model: dict[str, list[float]] = {}
    for row in rows:
        by_model.setdefault(row.model, []).append(row.overall)
    found = [(model, min(v), max(v)) for model, v in by_model.items() if len(set(v)) > 1]
    return sorted(found, key=lambda entry: entry[1] - entry[2])


def rows_for(task: str) -> list[PublishedRow]:
    """Published rows with an overall figure, best first; [] for a task without any."""
    benchmark = BENCHMARKS.get(task)
    sources = _compilation()["sources"]
    entries = [
        e
        for e in _compilation()["entries"]
        if e["benchmark"] == benchmark
        and e["scores"].get("overall") is not None
        and (e["prompt_rewriting"] or task not in REWRITTEN)
    ]
    rows = [
        PublishedRow(
            model=e["model"],
            overall=e["scores"]["overall"],
            scores={k: v for k, v in e["scores"].items() if v is not None},
            source=sources.get(e["source"], e["source"]),
            is_rewritten=bool(e["prompt_rewriting"]),
            measured_by=e.get("measured_by", ""),
            note=e.get("note", ""),
        )
        for e in entries
    ]
    return sorted(rows, key=lambda row: -row.overall)
