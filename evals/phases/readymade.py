"""Outputs that were made before: pictures of others in a folder, or those of an earlier run.

A model that hands out such outputs is *readymade*: it is set against the samples of the run before anything
is written, one missing output does not speak against the others, and no time of drawing is known. Where
pictures were made elsewhere no seed is known either, and a set with gaps gives no headline figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from evals.api import MetricValue, Model, Sample, ScoreRow, Task
from evals.errors import UsageError

MADE_ELSEWHERE = "made_elsewhere"  # key of a model's info
_SHOWN = 3


@dataclass(frozen=True)
class Findings:
    """Sentences for the manifest about outputs that lie ready."""

    deviations: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@runtime_checkable
class Readymade(Model, Protocol):
    """A model whose outputs lie ready."""

    def match(
        self, task: Task, official: Sequence[Sample], samples: Sequence[Sample], per_sample: int
    ) -> Findings:
        """Set the outputs against the samples of a run; called before anything is written.

        Args: official: all samples of the task. samples: those of the run. Raises: UsageError and its
        children when they do not belong together.
        """

    def check_output(self, root: Path) -> None:
        """Refuse a run folder that would write among the outputs. Raises UsageError."""


@dataclass(frozen=True)
class EncodedPicture:
    """A PNG file of an RGB picture; a copy keeps its bytes. ``link``: a file that may be hard-linked instead."""

    png_bytes: bytes
    link: Path | None = None

    def convert(self, mode: str) -> Any:
        """The picture itself, as `PIL.Image.Image.convert`."""
        import io

        from PIL import Image

        with Image.open(io.BytesIO(self.png_bytes), formats=("PNG",)) as image:
            return image.convert(mode)


def match(
    model: Model,
    task: Task,
    official: Sequence[Sample],
    samples: Sequence[Sample],
    per_sample: int,
) -> Findings:
    """What a readymade model finds; nothing for models that draw or answer."""
    if not isinstance(model, Readymade):
        return Findings()
    return model.match(task, official, samples, per_sample)


def check_apart(root: Path, source: Path, what: str) -> None:
    """Refuse folders that are one another or lie in one another. Raises UsageError."""
    here, there = root.expanduser().resolve(), source.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise UsageError(
            f"the run folder {root} and {what} {source} lie in one another, and nothing may be written there: "
            "give another --output"
        )


def is_made_elsewhere(manifest: Mapping[str, Any]) -> bool:
    """Whether the pictures of a run were made by others."""
    return bool(manifest["model"].get("info", {}).get(MADE_ELSEWHERE))


def needs_all_outputs(manifest: Mapping[str, Any]) -> bool:
    """Whether a gap in the outputs forbids a headline figure: nobody drew them by a plan that can be resumed here."""
    return is_made_elsewhere(manifest) or bool((manifest.get("parent") or {}).get("missing"))


def next_step(manifest: Mapping[str, Any]) -> str:
    """What to do about outputs that failed."""
    if is_made_elsewhere(manifest):
        return "Complete the folder and score it again; its old run folder stays as it is"
    if (manifest.get("parent") or {}).get("missing"):
        return "Finish the parent run, then rescore again: what is new is taken over"
    return "Make them again with --retry-errors"


def without_headline(
    metrics: Sequence[MetricValue], rows: Sequence[ScoreRow]
) -> Sequence[MetricValue]:
    """The metrics, the first without its value when outputs are missing or unreadable; its note names some."""
    missing = [row for row in rows if row.score.details.get("failed") == "output"]
    if not missing or not metrics or metrics[0].value is None:
        return metrics
    files = list(dict.fromkeys(_name(row) for row in missing))  # a grid holds several pictures
    names = ", ".join(files[:_SHOWN])
    more = f" and {len(files) - _SHOWN:,} more" if len(files) > _SHOWN else ""
    note = f"not given: {len(missing):,} of {len(rows):,} outputs are missing or unreadable ({names}{more})"
    first = replace(metrics[0], value=None, ci95=None, clusters=None, method=None, note=note)
    return [first, *metrics[1:]]


def _name(row: ScoreRow) -> str:
    """The file that a reason names (``output failed: PictureError: 00000/samples/00001.png: ...``)."""
    parts = (row.score.unscored_reason or "").split(": ")
    return parts[2] if len(parts) > 3 else f"{row.sample_id}, {row.index}"
