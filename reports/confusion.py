"""What was asked for against what was found: classes, counts, colours, relations, answers.

Read from the scores alone, so that a matrix can never disagree with the verdicts beside it: `details.detections` and
`details.colors` say what the judge kept, the reason's lines say which relation it saw. What was asked for comes from
GenEval's record beside the pictures (`images/NNNNN/metadata.jsonl`); without it only colours are known.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals import stats
from reports.heatmap import Matrix

if TYPE_CHECKING:
    import pandas

COLORS = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
)  # fmt: skip
RELATIONS = ("left of", "right of", "above", "below")
NO_OBJECT, NO_RELATION, NOTHING, COPY, OTHER = (
    "object missing",
    "none of these",
    "nothing else",
    "other object twice",
    "other",
)
AS_ASKED = "as asked"
MAX_CLASS_ROWS = 14
MAX_CLASS_COLUMNS = 7
MAX_COUNT = 8  # found counts from here on share a column
MAX_ANSWERS = 12  # letters and yes or no; of free answers a table would say nothing
_PLACE = re.compile(r"expected .+ (?:left of|right of|above|below) target, found (.*) ?target$")


@dataclass(frozen=True)
class ClassRow:
    """How often one class was found where it was asked for, with what stood there instead."""

    name: str
    found: int
    estimate: stats.Estimate
    instead: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Asked:
    """A scored picture: its record (None if unknown), the verdict's reason and details."""

    sample_id: str
    group: str
    value: float
    reason: str
    details: Mapping[str, Any]
    record: Mapping[str, Any] | None


def asked_pictures(root: Path, samples: pandas.DataFrame) -> list[Asked]:
    """The scored outputs of a run with what their prompts asked for; the record is read once a prompt."""
    records: dict[str, Mapping[str, Any] | None] = {}
    found = []
    columns = ("sample_id", "group", "value", "reason", "details", "path")
    for sample_id, group, value, reason, details, path in zip(
        *(samples[c] for c in columns), strict=True
    ):
        if value is None or not isinstance(details, dict):
            continue
        if path and records.get(sample_id) is None:
            records[sample_id] = _record(root / path)
        found.append(
            Asked(sample_id, group, value, reason or "", details, records.get(sample_id))
        )
    return found


def _record(picture: Path) -> Mapping[str, Any] | None:
    try:
        lines = (picture.parent.parent / "metadata.jsonl").read_text("utf-8").splitlines()
        record = json.loads(lines[0])
    except (OSError, ValueError, IndexError):
        return None
    clauses = record.get("include") if isinstance(record, dict) else None
    is_usable = isinstance(clauses, list) and all(
        isinstance(c, dict) and isinstance(c.get("class"), str) and isinstance(c.get("count"), int)
        for c in clauses
    )
    return record if is_usable else None


def matrices(pictures: Sequence[Asked], answers: pandas.DataFrame | None = None) -> list[Matrix]:
    """Every matrix that the run has data for, in reading order."""
    found = (
        class_matrix(pictures),
        count_matrix(pictures),
        relation_matrix(pictures),
        color_matrix(pictures, "color"),
        color_matrix(pictures, "pixel_color"),
        None if answers is None else answer_matrix(answers),
    )
    return [matrix for matrix in found if matrix is not None]


# --- classes -----------------------------------------------------------------------------------------------------


def class_pairs(pictures: Iterable[Asked]) -> list[tuple[str, str, str]]:
    """(sample id, class asked, what was found) for each kind of object that a prompt asks for.

    Found is the class itself when at least one object of it was found; else another asked class of which there are
    more than asked, then the most confident class that nobody asked for, then nothing else.
    """
    pairs = []
    for picture in pictures:
        detections = picture.details.get("detections")
        if picture.record is None or not isinstance(detections, dict):
            continue
        wanted: Counter[str] = Counter()
        for clause in picture.record["include"]:
            wanted[clause["class"]] += clause["count"]
        extra = [(rows[0][4], name) for name, rows in detections.items() if rows and name not in wanted]  # fmt: skip
        is_copied = any(len(detections.get(name) or ()) > n for name, n in wanted.items())
        for name in wanted:
            if detections.get(name):
                instead = name
            elif is_copied:
                instead = COPY
            else:
                instead = max(extra)[1] if extra else NOTHING
            pairs.append((picture.sample_id, name, instead))
    return pairs


def class_table(pictures: Iterable[Asked]) -> list[ClassRow]:
    """One row per class that was asked for, least often found first."""
    by_class: dict[str, list[tuple[str, str]]] = {}
    for sample_id, name, found in class_pairs(pictures):
        by_class.setdefault(name, []).append((sample_id, found))
    rows = []
    for name, entries in by_class.items():
        hits = [float(found == name) for _, found in entries]
        estimate = stats.mean(hits, [sample_id for sample_id, _ in entries], bounded=True)
        instead = Counter(found for _, found in entries if found != name)
        rows.append(ClassRow(name, int(sum(hits)), estimate, tuple(instead.most_common(3))))
    return sorted(rows, key=lambda row: (row.estimate.value, row.name))


def class_matrix(pictures: Iterable[Asked]) -> Matrix | None:
    """The classes that were missed most often, against what stood in their place."""
    pairs = [(name, found) for _, name, found in class_pairs(pictures)]
    missed = Counter(name for name, found in pairs if found != name)
    if not missed:
        return None
    rows = [name for name, _ in missed.most_common(MAX_CLASS_ROWS)]
    counts = Counter((name, found) for name, found in pairs)
    special = (COPY, NOTHING)
    stand_ins = Counter(
        found for name, found in pairs if name in rows and found != name and found not in special
    )
    named = [name for name, _ in stand_ins.most_common(MAX_CLASS_COLUMNS)]
    columns = [AS_ASKED, *named, OTHER, *special]
    table = []
    for name in rows:
        row = [counts[name, name], *(0 if c == name else counts[name, c] for c in named)]
        rest = sum(n for (asked, _), n in counts.items() if asked == name)
        last = [counts[name, c] for c in special]
        table.append([*row, rest - sum(row) - sum(last), *last])
    return Matrix(
        "classes",
        f"Classes: the {len(rows)} missed most often" if len(missed) > len(rows) else "Classes",
        rows,
        columns,
        table,
        [0] * len(rows),
        "Each kind of object that a prompt asks for. If it was not found: the surest other class in the picture, or "
        "one of the prompt's other objects drawn too often. Counts are kinds of objects, not pictures.",
    )


# --- counts, colours, relations ------------------------------------------------------------------------------------


def count_matrix(pictures: Iterable[Asked]) -> Matrix | None:
    """How many objects of the class were asked for and found, in counting prompts."""
    pairs = []
    for picture in pictures:
        detections = picture.details.get("detections")
        if picture.group != "counting" or picture.record is None or not isinstance(detections, dict):
            continue
        for clause in picture.record["include"]:
            pairs.append((clause["count"], len(detections.get(clause["class"]) or ())))
    if not pairs:
        return None
    rows = sorted({asked for asked, _ in pairs})
    last = min(MAX_COUNT, max(max(found for _, found in pairs), *rows))
    columns = [str(n) for n in range(last + 1)]
    if any(found > last for _, found in pairs):
        columns[-1] += "+"
    counts = Counter((asked, min(found, last)) for asked, found in pairs)
    return Matrix(
        "counts",
        "Counts",
        [str(n) for n in rows],
        columns,
        [[counts[n, m] for m in range(last + 1)] for n in rows],
        [n if n <= last else None for n in rows],
        "Pictures of the group counting: how many objects of the class were asked for and how many the judge found "
        "above the rules' threshold of 0.9.",
    )


def color_matrix(pictures: Sequence[Asked], key: str) -> Matrix | None:
    """Asked colour against the colour seen; `key` is "color" (the judge's) or "pixel_color" (inside its masks)."""
    pairs: list[tuple[str, str]] = []
    is_any = False
    for picture in pictures:
        entries = [e for e in picture.details.get("colors") or () if isinstance(e, dict)]
        seen = [(str(e["asked"]), str(e[key])) for e in entries if e.get("asked") and e.get(key)]
        is_any |= bool(seen)
        pairs += seen
        if picture.record is None:
            continue
        decided = Counter(str(e.get("class")) for e in entries)
        for clause in picture.record["include"]:
            if "color" in clause and not decided[clause["class"]]:
                pairs += [(str(clause["color"]), NO_OBJECT)] * clause["count"]
    if not is_any:
        return None
    rows = _ordered(COLORS, (asked for asked, _ in pairs))
    columns = _ordered((*COLORS, *rows), (found for _, found in pairs))
    columns = [*(c for c in columns if c != NO_OBJECT), *[NO_OBJECT] * (NO_OBJECT in columns)]
    who = "the judge's classifier names" if key == "color" else "the pixels inside its masks have"
    return _square(
        "colours" if key == "color" else "colours-by-pixels",
        "Colours, by the judge" if key == "color" else "Colours, by the pixels",
        rows,
        columns,
        pairs,
        f"The colour asked for against the colour that {who}, for the objects that decided the verdict.",
    )


def relation_matrix(pictures: Iterable[Asked]) -> Matrix | None:
    """Asked relation against the relation of the surest objects, as the rules' reasons say it."""
    pairs = []
    for picture in pictures:
        if picture.record is None:
            continue
        asked = [c["position"][0] for c in picture.record["include"] if c.get("position")]
        if len(asked) != 1:
            continue
        place = [m[1].strip() for m in map(_PLACE.match, picture.reason.splitlines()) if m]
        if picture.value >= 1:
            found = asked[0]
        elif place:
            found = place[0].split(" and ")[0] or NO_RELATION
        else:
            found = NO_OBJECT
        pairs.append((str(asked[0]), found))
    if not pairs:
        return None
    rows = _ordered(RELATIONS, (asked for asked, _ in pairs))
    columns = [*_ordered((*RELATIONS, *rows), ()), NO_RELATION, NO_OBJECT]
    return _square(
        "relations",
        "Relations",
        rows,
        columns,
        pairs,
        "The place asked for against the place found, by the surest box of each object. None of these: too close, or "
        "on top of each other. Of two places at once, the first.",
    )


def answer_matrix(samples: pandas.DataFrame) -> Matrix | None:
    """Expected against given answer, where scores say both.

    The expected answer is `details.expected`; in tasks whose answers are only yes and no it follows from the verdict.
    """
    scored = samples[samples["value"].notna()]
    said = set(scored["answer"].dropna())
    is_yes_no = bool(said) and said <= {"yes", "no"}
    pairs = []
    for value, answer, details in zip(
        scored["value"], scored["answer"], scored["details"], strict=True
    ):
        expected = details.get("expected") if isinstance(details, dict) else None
        if expected is None and is_yes_no and answer is not None:
            expected = answer if value >= 1 else {"yes": "no", "no": "yes"}[answer]
        if isinstance(expected, (str, int)):
            pairs.append((str(expected), "not readable" if answer is None else str(answer)))
    if not pairs or len({expected for expected, _ in pairs}) > MAX_ANSWERS:
        return None
    rows = sorted({expected for expected, _ in pairs}, reverse=is_yes_no)
    columns = _ordered(rows, (answer for _, answer in pairs))
    return _square(
        "answers",
        "Answers",
        rows,
        columns[:30],
        pairs,
        "The right answer against the answer that was given, where both are known.",
    )


def _square(
    key: str,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    pairs: Iterable[tuple[str, str]],
    note: str,
) -> Matrix:
    counts = Counter(pairs)
    return Matrix(
        key,
        title,
        list(rows),
        list(columns),
        [[counts[row, column] for column in columns] for row in rows],
        [list(columns).index(row) if row in columns else None for row in rows],
        note,
    )


def _ordered(known: Sequence[str], names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*known, *names]))
