"""A sweep's table as lines of text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from evals.phases.progress import duration
from evals.sweeps.results import Cell, Row, SweepTable


def lines(table: SweepTable) -> list[str]:
    """One block per metric, then what each combination took, then what a reader has to know."""
    found = [f"sweep {table.name} ({table.folder.root}); baseline: {table.baseline}"]
    if table.is_test_double:
        found.append("TEST DOUBLE: these figures come from a fake model or judge and mean nothing")
    for metric in table.metrics:
        rows = table.of(metric)
        direction = "" if not rows or rows[0].higher_is_better else ", lower is better"
        unit = f" ({rows[0].unit}{direction})" if rows and rows[0].unit else ""
        header = ["", "value", "95 % interval", "difference", "95 % interval", "p", "Holm", "seeds"]
        found += ["", f"{metric}{unit}", *_aligned([header, *(_cells(row) for row in rows)])]
        found += [f"note: {cell}: {text}" for cell, text in _remarks(rows)]
    trained = [cell for cell in table.cells if cell.own is not None and cell.shared is not None]
    if any(cell.own and cell.shared and (cell.own + cell.shared).steps for cell in trained):
        header = ["training", "seconds", "of it shared", "steps", "pictures", "parameters"]
        found += ["", *_aligned([header, *map(_compute, trained)])]
    found += [f"failed: {point}: {error}" for cell in table.cells for point, error in cell.failed.items()]
    found += ["", *(f"note: {text}" for text in table.notes)] if table.notes else []
    tests = sum(row.p_value is not None for row in table.rows)
    if tests:
        found.append(
            f"p: two-sided, {tests} tests; Holm: corrected over the first metric of each task, and over all others"
        )
    return found


def _remarks(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return [(row.cell, text) for row in rows for text in (row.note, row.difference_note) if text]


def _cells(row: Row) -> list[str]:
    digits = 3 if row.unit == "fraction" else 2

    def number(value: float | None, sign: str = "") -> str:
        return "-" if value is None else f"{value:{sign}.{digits}f}"

    def interval(low: float | None, high: float | None, sign: str = "") -> str:
        return "-" if low is None or high is None else f"{number(low, sign)} to {number(high, sign)}"

    return [
        row.cell, number(row.value), interval(row.ci_low, row.ci_high),
        number(row.difference, "+"), interval(row.difference_low, row.difference_high, "+"),
        _p(row.p_value), _p(row.p_holm), str(len(row.seeds)),
    ]  # fmt: skip


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _compute(cell: Cell) -> list[str]:
    assert cell.own is not None and cell.shared is not None
    total = cell.own + cell.shared
    return [
        cell.id, duration(total.seconds), duration(cell.shared.seconds), str(total.steps), str(total.images),
        "-" if cell.parameters is None else f"{cell.parameters:,}",
    ]  # fmt: skip


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return [
        "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
    ]
