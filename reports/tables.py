"""Tables of a report: the frames of `evals.frames` with what went wrong, and CSV safe to open in a spreadsheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evals.frames import SAMPLE_COLUMNS, sample_rows, spreadsheet_safe
from evals.results import RunData
from reports.failures import RIGHT, UNSCORED, classify

if TYPE_CHECKING:
    import pandas

MAX_TEXT = 2_000


def samples_frame(run: RunData) -> pandas.DataFrame:
    """One row per output with its score, and `kinds`: what went wrong (see `reports.failures`).

    All columns are Python objects; what a row lacks is None. Outputs without a score count as not scored.
    """
    import pandas

    rows = sample_rows(run)
    frame = pandas.DataFrame(rows, columns=list(SAMPLE_COLUMNS), dtype=object)
    frame["kinds"] = classify(rows)
    return frame


def kinds_frame(samples: pandas.DataFrame) -> pandas.DataFrame:
    """Outputs per group (rows) and first kind of failure (columns); right first, not scored last."""
    import pandas

    first = samples["kinds"].map(lambda kinds: kinds[0])
    table = pandas.crosstab(samples["group"], first)
    middle = [
        c for c in table.sum().sort_values(ascending=False).index if c not in (RIGHT, UNSCORED)
    ]
    ends = [c for c in (RIGHT, UNSCORED) if c in table]
    groups = list(dict.fromkeys(samples["group"]))
    return table.loc[
        groups, [*ends[:1], *middle, *ends[1:]] if RIGHT in table else [*middle, *ends]
    ]


CSV_COLUMNS = (
    "sample_id", "image_index", "group", "prompt", "value", "reason", "unscored", "seed", "path",
    "answer", "text", "status", "sha256", "seconds",
)  # fmt: skip


def samples_csv(samples: pandas.DataFrame) -> str:
    """Outputs and scores as CSV."""
    return _csv(samples[[c for c in CSV_COLUMNS if c in samples]])


def metrics_csv(frame: pandas.DataFrame) -> str:
    """The frame of `metrics_frame` as CSV."""
    return _csv(frame)


def _csv(frame: pandas.DataFrame) -> str:
    # A spreadsheet would run a cell that starts like a formula, and prompts are other people's text.
    return frame.map(harmless).to_csv(index=False)


def harmless(value: Any) -> Any:
    """The value as a spreadsheet may open it: no cell that begins like a formula, none of endless length."""
    if not isinstance(value, str):
        return value
    return spreadsheet_safe(shortened(value))


def shortened(text: str, limit: int = MAX_TEXT) -> str:
    """The text, cut where it is longer than a page should carry."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def shared_samples(frames: Sequence[pandas.DataFrame]) -> list[tuple[str, int]]:
    """(sample id, image index) pairs that have a score in every frame, in the order of the first."""
    keys = [
        list(zip(f["sample_id"][scored], f["image_index"][scored], strict=True))
        for f in frames
        for scored in [f["value"].notna()]
    ]
    others = [set(k) for k in keys[1:]]
    return [key for key in keys[0] if all(key in other for other in others)]
