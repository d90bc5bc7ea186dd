"""Files that a page carries inside itself: the data behind its figures.

They are text in one JSON block, saved by the page's script through a Blob. `data:` links would do without a script,
but browsers cut links beyond 2 MB, which ten thousand outputs exceed.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reports.format import count
from reports.tables import harmless

CSV, JSON = "text/csv", "application/json"


@dataclass(frozen=True)
class File:
    """`text` describes it to a reader; files without one belong to a figure and are not listed."""

    name: str
    content: str
    media_type: str
    text: str = ""

    @property
    def size(self) -> str:
        n = len(self.content.encode("utf-8", "replace"))
        return f"{count(max(1, n // 1000))} kB"


def as_json(files: Iterable[File]) -> dict[str, dict[str, str]]:
    """What the page's script reads: name -> type and content."""
    return {file.name: {"type": file.media_type, "text": file.content} for file in files}


def json_file(name: str, value: Any, text: str = "") -> File:
    """The value as indented JSON."""
    return File(name, json.dumps(value, indent=2, ensure_ascii=False), JSON, text)


def csv_file(name: str, rows: Iterable[Mapping[str, Any]], text: str = "") -> File:
    """Rows with equal keys as CSV that is safe to open in a spreadsheet."""
    rows = list(rows)
    file = io.StringIO()
    if rows:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: harmless(v) for k, v in row.items()} for row in rows)
    return File(name, file.getvalue(), CSV, text)


def stem_of(*names: str) -> str:
    """The names as one harmless file name."""
    stem = "-".join(names)
    return "".join(c if c.isalnum() or c in "-._" else "-" for c in stem)[:80]
