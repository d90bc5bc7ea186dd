"""The page of a sweep: one self-contained HTML file, as those of runs (`reports.html`)."""

from __future__ import annotations

from pathlib import Path

from evals.io.files import write_atomically
from evals.sweeps.folder import REPORT
from reports.html import render


def build(root: str | Path, out: Path | None = None) -> Path:
    """Write the page of a sweep folder, finished or not, and return its path.

    Args: out: file to write; default `report.html` in the folder.
    Raises: InputError where `sweep.json` is missing or damaged; StoreError if the page cannot be written.
    """
    from reports.sweep_data import SweepData
    from reports.sweep_page import sweep_page

    root = Path(root)
    out = out or root / REPORT
    page = render("sweep.html.j2", sweep_page(SweepData(root)))
    # Prompts may hold lone surrogates, which no encoding knows; they become question marks.
    write_atomically(out, page.encode("utf-8", "replace"))
    return out
