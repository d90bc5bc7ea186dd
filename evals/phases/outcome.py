"""How a run is to be carried out, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.phases import readymade
from evals.phases.beside import When
from evals.results import RunData
from evals.store import REPORT

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; none of it changes a number.

    ``sample_timeout_s``: seconds per output of a call, after which it is ended and its sample failed.
    ``verify``: read every picture against its checksum, not only its size. ``parent``: the run whose
    outputs are judged again, for the manifest. ``judge_when``: see `evals.phases.beside.WHEN`.
    """

    output: Path | None = None
    shard: tuple[int, int] = (0, 1)
    fresh: bool = False
    retry_errors: bool = False
    quiet: bool = False
    report: bool = True
    merge_only: bool = False
    sample_timeout_s: float | None = None
    verify: bool = False
    parent: Mapping[str, Any] | None = None
    judge_when: When = "auto"


@dataclass(frozen=True)
class Run:
    """A run as ``evaluate`` leaves it.

    ``problem`` is None when the run is finished and sound; else one line: too many samples failed, or
    nothing could be scored. ``pending`` counts outputs that other shards still have to make.
    """

    data: RunData
    pending: int = 0
    problem: str | None = None
    notes: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        """One line; the content of its files is behind the properties."""
        state = self.problem or (f"{self.pending} outputs pending" if self.pending else "ok")
        return f"<Run {self.root}: {state}>"

    @property
    def root(self) -> Path:
        return self.data.root

    @property
    def manifest(self) -> Mapping[str, Any]:
        return self.data.manifest

    @property
    def results(self) -> Mapping[str, Any] | None:
        """The content of ``results.json`` (schema: ``evals.results``); None while shards are missing."""
        return self.data.results

    @property
    def report_path(self) -> Path | None:
        path = self.root / REPORT
        return path if path.exists() else None

    def to_pandas(self) -> pandas.DataFrame:
        """One row per output with its score."""
        return self.data.to_pandas()


def problem_of(data: RunData, max_errors: float) -> str | None:
    """What is wrong with a finished run in one line: nothing scored, or more than this share failed."""
    assert data.results is not None
    counts = data.results["counts"]
    if not counts["scored"]:
        return (
            f"none of {counts['outputs']} outputs could be scored: see {data.root / 'scores.jsonl'}"
        )
    share = counts["failed"] / counts["outputs"]
    if share > max_errors:
        first = next(row for row in data.scores() if "failed" in row["details"])
        return (
            f"{counts['failed']} of {counts['outputs']} outputs failed ({share:.1%}, allowed are "
            f"{max_errors:.1%}); the first: {first['sample_id']}: {first['unscored']}. "
            f"{readymade.next_step(data.manifest)}"
        )
    return None
