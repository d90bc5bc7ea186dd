"""The table of a sweep as values: cells, rows, and what CSV, JSON and pandas make of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from evals.api import Terms
from evals.frames import spreadsheet_safe
from evals.io.files import write_atomically
from evals.sweeps.api import Compute
from evals.sweeps.folder import TABLE, SweepFolder

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Row:
    """One metric of one cell. ``seeds``: those behind ``value``; ``paired_seeds``: those behind ``difference``.

    Values are in the metric's unit; None where there is none, and ``note`` or ``difference_note`` says why.
    """

    cell: str
    metric: str
    unit: str
    higher_is_better: bool
    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    sd_seeds: float | None = None
    n: int = 0
    seeds: tuple[int, ...] = ()
    method: str | None = None
    note: str | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None
    p_holm: float | None = None
    paired_seeds: tuple[int, ...] = ()
    difference_method: str | None = None
    difference_note: str | None = None


@dataclass(frozen=True)
class Cell:
    """One combination of the axes: what was asked for, how far it is, and what it took (means over finished seeds)."""

    id: str
    values: Mapping[str, Any]
    points: tuple[str, ...]
    done: tuple[int, ...]
    failed: Mapping[str, str]
    own: Compute | None = None
    shared: Compute | None = None
    parameters: int | None = None
    evaluation_seconds: float | None = None


@dataclass(frozen=True)
class SweepTable:
    """Cells in the order of the file, and a row per cell and metric."""

    folder: SweepFolder
    name: str
    baseline: str
    metrics: tuple[str, ...]
    cells: tuple[Cell, ...]
    rows: tuple[Row, ...]
    is_test_double: bool
    notes: tuple[str, ...]
    terms: Mapping[tuple[str, str], Terms] = field(default_factory=dict, repr=False)
    """(point, metric) -> what the figure averages, output by output, where the metric says so."""
    mixed: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(point, task) -> in what its evaluation differs from those of most points; it is in no figure."""

    def is_mixed(self, point: str, metric: str) -> bool:
        """Whether a point's figure does not belong with the others."""
        return (point, metric.partition("/")[0]) in self.mixed

    def of(self, metric: str) -> list[Row]:
        """The rows of one metric, a cell each."""
        return [row for row in self.rows if row.metric == metric]

    def records(self) -> list[dict[str, Any]]:
        """Plain rows for CSV and pandas: the axes first, lists as text, compute beside every row."""
        cells = {cell.id: cell for cell in self.cells}
        found = []
        for row in self.rows:
            cell = cells[row.cell]
            total = None if cell.own is None or cell.shared is None else cell.own + cell.shared
            data = asdict(row)
            for key in ("seeds", "paired_seeds"):
                data[key] = " ".join(map(str, data[key]))
            del data["cell"]
            compute = {
                "train_steps": total and total.steps, "train_seconds": total and total.seconds,
                "shared_seconds": cell.shared and cell.shared.seconds, "train_images": total and total.images,
                "parameters": cell.parameters, "evaluation_seconds": cell.evaluation_seconds,
            }  # fmt: skip
            taken = {"cell", *data, *compute}
            axes = {f"axis {k}" if k in taken else k: v for k, v in cell.values.items()}
            found.append({"cell": row.cell, **axes, **data, **compute})
        return found

    def to_pandas(self) -> pandas.DataFrame:
        """One row per cell and metric."""
        import pandas

        return pandas.DataFrame(self.records())

    def to_json(self) -> dict[str, Any]:
        return {
            "sweep": self.name,
            "folder": str(self.folder.root),
            "baseline": self.baseline,
            "metrics": list(self.metrics),
            "is_test_double": self.is_test_double,
            "notes": list(self.notes),
            "cells": [asdict(cell) for cell in self.cells],
            "rows": [asdict(row) for row in self.rows],
            "correction": {"method": "holm", "tests": sum(r.p_value is not None for r in self.rows)},
        }


def write_csv(table: SweepTable) -> None:
    """``table.csv`` in the sweep's folder: one line per cell and metric."""
    records = table.records()
    text = io.StringIO()
    if records:
        writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
        writer.writeheader()
        for record in records:
            writer.writerow({key: spreadsheet_safe(value) for key, value in record.items()})
    write_atomically(table.folder.root / TABLE, text.getvalue().encode())
