"""Labels files: people's verdicts on pictures, one JSON object a line.

    {"task": "geneval", "domain": "stickers", "sheet": "nano.webp", "cell_px": 64, "columns": 20, "labeller": "..."}
    {"sample_id": "00012", "image_index": 0, "cell": 7, "correct": true}
    {"sample_id": "00013", "picture": "mine/cup.png", "correct": false, "unsure": true, "weight": 3.5}

The first line may be a header (it has no `sample_id`). A row needs `sample_id` (as in the task's outputs) and
`correct`: true, false, or null for a picture that cannot be judged. Optional: `image_index` (0), `unsure` (false),
`weight` (1; the inverse of the chance with which the picture was drawn), `prompt` (must be the task's), `sha256` of the
picture's RGB bytes, row by row (must be the picture's), `again` ({"correct", "unsure"}: the same labeller, later). The
picture is the file `picture` beside the labels, or the `cell` of the header's `sheet`, counted row by row, or comes
from a run folder. Other keys are the labeller's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from evals.errors import InputError
from evals.recorded import Field, read_file, read_lines

BUNDLED = "nano"


@dataclass(frozen=True)
class Label:
    """One labelled picture. `correct` None: cannot be judged."""

    sample_id: str
    image_index: int
    correct: bool | None
    unsure: bool
    weight: float
    again: tuple[bool | None, bool] | None
    where: str
    row: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, int]:
        return self.sample_id, self.image_index


@dataclass(frozen=True)
class Labels:
    """A labels file: header and rows."""

    path: Path
    header: Mapping[str, Any]
    rows: tuple[Label, ...]

    @cached_property
    def digest(self) -> str:
        """sha256 of the file, unpacked."""
        return hashlib.sha256(read_file(self.path)).hexdigest()

    @property
    def judged(self) -> list[Label]:
        """Rows with a verdict."""
        return [row for row in self.rows if row.correct is not None]

    @cached_property
    def _sheet(self) -> Any:
        from PIL import Image

        path = self.path.parent / str(self.header["sheet"])
        try:
            with Image.open(path) as image:
                return image.convert("RGB")
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path}:1: sheet {path} cannot be read ({error})") from None

    def picture(self, label: Label) -> Any:
        """The labelled picture (PIL, RGB), checked against its digest. Raises InputError naming the line."""
        from PIL import Image

        if "picture" in label.row:
            path = self.path.parent / str(label.row["picture"])
            try:
                with Image.open(path) as file:
                    image = file.convert("RGB")
            except (OSError, ValueError) as error:
                raise InputError(f"{label.where}: picture {path} cannot be read ({error})") from None
        elif "cell" in label.row and "sheet" in self.header:
            image = self._cell(label)
        else:
            raise InputError(
                f"{label.where}: no picture: give `picture`, or `cell` and a header with `sheet`, or --run DIR"
            )
        check_picture(label, image)
        return image

    def _cell(self, label: Label) -> Any:
        try:
            side, columns = int(self.header["cell_px"]), int(self.header["columns"])
            cell = int(label.row["cell"])
            y, x = divmod(cell, columns)
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            raise InputError(
                f"{self.path}:1: a header with `sheet` needs whole numbers `cell_px` and `columns`, and rows a `cell`"
            ) from None
        box = (x * side, y * side, (x + 1) * side, (y + 1) * side)
        if cell < 0 or side < 1 or box[2] > self._sheet.width or box[3] > self._sheet.height:
            raise InputError(f"{label.where}: cell {cell} lies outside the sheet")
        return self._sheet.crop(box)


def picture_digest(image: Any) -> str:
    """sha256 of a PIL picture's RGB bytes, row by row: the same for PNG, WebP or a sheet."""
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def check_picture(label: Label, image: Any) -> None:
    """Raises InputError when the label has a digest and it is not this picture's."""
    expected = label.row.get("sha256")
    if expected is not None and picture_digest(image) != expected:
        raise InputError(
            f"{label.where}: the label belongs to another picture of sample {label.sample_id} "
            f"(its sha256 is not {str(expected)[:12]}); give the run that was labelled"
        )


def bundled_path() -> Path:
    """The labels that come with the package: 300 pictures that nano made."""
    return Path(str(resources.files("evals").joinpath(f"data/labels/{BUNDLED}.jsonl.gz")))


def read_labels(path: str | Path) -> Labels:
    """Reads and checks a labels file. Raises InputError naming file and line."""
    path = Path(path)
    lines = read_lines(path)
    header: Mapping[str, Any] = {}
    if lines[0].get("sample_id") is None:
        if lines[0].get("correct") is not None:
            lines[0]["sample_id"]  # a row without its name: says so
        header = lines.pop(0).object()
    rows = [_label(line) for line in lines]
    first: dict[tuple[str, int], str] = {}
    for row in rows:
        if row.key in first:
            raise InputError(
                f"{row.where}: sample {row.sample_id}, image {row.image_index} is labelled twice "
                f"(first in {first[row.key]}); put a second reading under `again`"
            )
        first[row.key] = row.where
    if not any(row.correct is not None for row in rows):
        raise InputError(f"{path}: no row has `correct` true or false")
    return Labels(path, header, tuple(rows))


def _label(line: Field) -> Label:
    index, weight, unsure = line.get("image_index"), line.get("weight"), line.get("unsure")
    number = 0 if index is None else index.integer()
    if index is not None and number < 0:
        index.fail(f"must be at least 0, got {number}")
    size = 1.0 if weight is None else weight.number()
    if weight is not None and size <= 0:
        weight.fail(f"must be greater than 0, got {size}")
    second = line.get("again")
    again = None
    if second is not None:
        is_unsure = second.get("unsure")
        again = (
            _verdict(second["correct"]),
            False if is_unsure is None else is_unsure.boolean(),
        )
    return Label(
        sample_id=line["sample_id"].text(),
        image_index=number,
        correct=_verdict(line["correct"]),
        unsure=False if unsure is None else unsure.boolean(),
        weight=size,
        again=again,
        where=line.where,
        row=line.object(),
    )


def _verdict(field: Field) -> bool | None:
    return None if field.value is None else field.boolean()


def samples_of(labels: Labels, samples: Sequence[Any]) -> dict[str, Any]:
    """sample id -> the task's sample. Raises InputError for a label whose sample or prompt the task does not have."""
    known = {sample.id: sample for sample in samples}
    for row in labels.rows:
        sample = known.get(row.sample_id)
        if sample is None:
            raise InputError(
                f"{row.where}: sample {row.sample_id!r} is not in the task; ids look like {next(iter(known))!r}"
            )
        prompt = row.row.get("prompt")
        if prompt is not None and prompt != sample.prompt:
            raise InputError(
                f"{row.where}: prompt {str(prompt)[:60]!r} is not that of sample {row.sample_id}: {sample.prompt!r}"
            )
    return known
