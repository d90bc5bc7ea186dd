"""Counts of what was asked for (rows) against what was found (columns), as a heat map in SVG.

Written by hand and not with matplotlib: the shades mix with the page's theme through opacity, every cell carries its
own words for a pointer and for a screen reader, and a dozen of them cost no drawing time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

CELL_WIDTH, CELL_HEIGHT, FONT = 26.0, 22.0, 10.5  # px
CHARACTER = 5.9  # px, the mean width of a character at that size
MAX_LABEL = 22  # characters; longer names are cut in the drawing and whole in the table


@dataclass(frozen=True)
class Matrix:
    """A table of counts. `counts[i][j]`: rows[i] was asked and columns[j] was found.

    `right[i]` is the column that is as asked for row i, or None. `key` names files, `note` says what is counted.
    """

    key: str
    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    counts: Sequence[Sequence[int]]
    right: Sequence[int | None]
    note: str
    row_name: str = "asked"

    @property
    def totals(self) -> list[int]:
        return [sum(row) for row in self.counts]

    @property
    def total(self) -> int:
        return sum(self.totals)

    @property
    def n_right(self) -> int:
        return sum(
            row[j] for row, j in zip(self.counts, self.right, strict=True) if j is not None
        )

    def describe(self) -> str:
        """The matrix in words: what each row was found as, most frequent first."""
        lines = []
        for name, row in zip(self.rows, self.counts, strict=True):
            order = sorted((j for j, n in enumerate(row) if n), key=lambda j: -row[j])
            found = ", ".join(f"{self.columns[j]} {row[j]}" for j in order)
            lines.append(f"{name}: {found or 'none'}")
        return "; ".join(lines)

    def records(self) -> list[dict[str, object]]:
        """One row per non-empty cell, for the CSV file."""
        return [
            {self.row_name: name, "found": column, "count": n, "is_as_asked": j == right}
            for name, row, right in zip(self.rows, self.counts, self.right, strict=True)
            for j, (column, n) in enumerate(zip(self.columns, row, strict=True))
            if n
        ]


def to_svg(matrix: Matrix) -> tuple[str, float]:
    """(SVG source, its natural width in px). Shades are shares of a row; numbers are counts."""
    left = CHARACTER * max((len(_cut(name)) for name in matrix.rows), default=0) + 10
    longest = max((len(_cut(name)) for name in matrix.columns), default=0)
    is_flat = longest <= 3
    top = FONT + 10 if is_flat else CHARACTER * longest + 10
    right = CHARACTER * len(f"n {max(matrix.totals, default=0):,}") + 12
    width = left + CELL_WIDTH * len(matrix.columns) + right
    height = top + CELL_HEIGHT * len(matrix.rows) + 2
    parts = [
        f'<svg viewBox="0 0 {width:.1f} {height:.1f}" role="img" font-size="{FONT}">',
        f"<title>{escape(matrix.title)}</title><desc>{escape(matrix.describe())}</desc>",
    ]
    for j, name in enumerate(matrix.columns):
        x, y = left + CELL_WIDTH * (j + 0.5), top - 6
        if is_flat:
            turned = f'x="{x:.1f}" y="{y:.1f}" text-anchor="middle"'
        else:
            x += FONT * 0.36
            turned = f'x="{x:.1f}" y="{y:.1f}" transform="rotate(-90 {x:.1f} {y:.1f})"'
        parts.append(f'<text {turned} fill="var(--muted)">{escape(_cut(name))}</text>')
    for i, (name, row) in enumerate(zip(matrix.rows, matrix.counts, strict=True)):
        y, total = top + CELL_HEIGHT * i, sum(row)
        middle = y + CELL_HEIGHT / 2 + FONT * 0.36
        parts.append(
            f'<text x="{left - 7:.1f}" y="{middle:.1f}" text-anchor="end" fill="var(--muted)">'
            f"{escape(_cut(name))}</text>"
        )
        for j, n in enumerate(row):
            x = left + CELL_WIDTH * j
            share = n / total if total else 0.0
            color = "right" if j == matrix.right[i] else "off"
            opacity = (0.08 + 0.56 * share) if color == "right" else 0.8 * share**0.8
            parts.append(
                f'<rect x="{x + 0.75:.2f}" y="{y + 0.75:.2f}" width="{CELL_WIDTH - 1.5}" height="{CELL_HEIGHT - 1.5}" '
                'fill="var(--hover)"/>'
            )
            if n or color == "right":
                said = f"{name} asked, {matrix.columns[j]} found: {n} of {total}"
                parts.append(
                    f'<rect x="{x + 0.75:.2f}" y="{y + 0.75:.2f}" width="{CELL_WIDTH - 1.5}" '
                    f'height="{CELL_HEIGHT - 1.5}" fill="var(--heat-{color})" fill-opacity="{min(opacity, 0.64):.2f}">'
                    f"<title>{escape(said)}</title></rect>"
                )
            if n:
                parts.append(
                    f'<text x="{x + CELL_WIDTH / 2:.1f}" y="{middle:.1f}" text-anchor="middle" fill="var(--ink)" '
                    f'pointer-events="none">{n}</text>'
                )
        parts.append(
            f'<text x="{left + CELL_WIDTH * len(row) + 6:.1f}" y="{middle:.1f}" fill="var(--muted)">n {total:,}</text>'
        )
    parts.append("</svg>")
    return "".join(parts), width


def _cut(name: str) -> str:
    return name if len(name) <= MAX_LABEL else name[: MAX_LABEL - 1] + "\N{HORIZONTAL ELLIPSIS}"
