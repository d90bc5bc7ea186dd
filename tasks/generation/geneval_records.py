"""GenEval's recorded inputs: lines of JSON -> typed values -> the rules -> JSON.

`detections`: what a detector and a colour classifier answered about a picture; `crops`: what the
classifier is shown; `results`: upstream's results.jsonl. Only the keys read here matter; recorded
answers in the same line are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.generation import geneval_rules as rules

if TYPE_CHECKING:
    from PIL import Image

    from evals.recorded import Field

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_LARGE_CROP = 2**20  # pixels; a box beyond it and four times its picture is a mistake, and takes hours to write

# Pixels of these modes can be written as numbers; P would need its palette. mode -> (dtype, bands)
_MODES: Mapping[str, tuple[Any, int]] = {
    "1": (np.uint8, 1),
    "L": (np.uint8, 1),
    "LA": (np.uint8, 2),
    "RGB": (np.uint8, 3),
    "RGBA": (np.uint8, 4),
    "CMYK": (np.uint8, 4),
    "YCbCr": (np.uint8, 3),
    "HSV": (np.uint8, 3),
    "I": (np.int32, 1),
    "I;16": (np.uint16, 1),
    "F": (np.float32, 1),
}


def score_detections(line: Field) -> dict[str, Any]:
    """Verdict on one recorded picture: `id`, `correct`, `reason`, `details`."""
    name = line["id"].text()
    size = line.get("image_size")
    if size is not None:
        size.numbers(2)
    spec = _spec(line["metadata"])
    detections = [_detection(item) for item in line["detections"].items()]
    try:
        verdict = rules.judge(detections, spec)
    except rules.SpecError as error:
        line.fail(f"cannot be judged: {error}")
    return {
        "id": name,
        "correct": verdict.correct,
        "reason": verdict.reason,
        "details": verdict.details(),
    }


def _spec(field: Field) -> dict[str, Any]:
    spec: dict[str, Any] = {"tag": field["tag"].text()}
    for part in ("include", "exclude"):
        clauses = field.get(part)
        spec[part] = [_clause(item) for item in clauses.items()] if clauses is not None else []
    return spec


def _clause(field: Field) -> dict[str, Any]:
    clause: dict[str, Any] = {"class": field["class"].text(), "count": field["count"].integer()}
    color, position = field.get("color"), field.get("position")
    if color is not None:
        clause["color"] = color.text()
    if position is not None:
        parts = position.items()
        if len(parts) != 2:
            position.fail(
                f"must be [relation, number of an earlier clause], got {position.shown}"
            )
        clause["position"] = [parts[0].text(), parts[1].integer()]
    return clause


def _detection(field: Field) -> tuple[str, rules.Found]:
    row = [*_float32(field["box"], 4), *_float32(field["score"])]
    logits = field.get("color_logits")
    found = rules.Found(
        np.array(row, dtype=np.float32),
        _float32(logits, len(rules.COLORS)) if logits is not None else None,
    )
    return field["class"].text(), found


def _float32(field: Field, count: int | None = None) -> list[float]:
    values = [field.number()] if count is None else field.numbers(count)
    if any(abs(value) > _FLOAT32_MAX for value in values):
        field.fail(f"must stay within float32 (up to {_FLOAT32_MAX:.3g}), got {field.shown}")
    return values


def score_crop(line: Field) -> dict[str, Any]:
    """The picture shown to the colour classifier: `id`, `size` [width, height], `pixels` (RGB)."""
    from PIL.Image import DecompressionBombError

    from evals.judges.color_crops import color_crop

    name = line["id"].text()
    image = _image(line["mode"], line["pixels"])
    mask = _mask(line["mask"], image)
    box = line["box"]
    x1, y1, x2, y2 = box.numbers(4)
    if max(x2 - x1, 1) * max(y2 - y1, 1) > max(_LARGE_CROP, 4 * image.width * image.height):
        box.fail(
            f"cannot be cut out of {image.width} x {image.height} pixels: {x2 - x1:.6g} x {y2 - y1:.6g} is far larger"
        )
    try:
        crop = color_crop(image, mask, (x1, y1, x2, y2))
    except (ValueError, OverflowError, MemoryError, DecompressionBombError) as error:
        box.fail(f"cannot be cut out of {image.width} x {image.height} pixels: {error}")
    return {"id": name, "size": list(crop.size), "pixels": np.asarray(crop).tolist()}


def _image(mode: Field, pixels: Field) -> Image.Image:
    from PIL import Image

    if mode.text() not in _MODES:
        mode.fail(f"must be one of {', '.join(_MODES)}, got {mode.shown}")
    dtype, bands = _MODES[mode.value]
    array = _array(pixels, dtype, 2 if bands == 1 else 3)
    if bands > 1 and array.shape[2] != bands:
        pixels.fail(f"must have {bands} numbers per pixel in mode {mode.value}")
    if mode.value == "1":
        return Image.fromarray(array.astype(bool))
    size = (array.shape[1], array.shape[0])
    return Image.frombytes(mode.value, size, array.tobytes())


def _mask(field: Field, image: Image.Image) -> np.ndarray | None:
    if field.value is None:
        return None
    array = _array(field, np.uint8, 2)
    if array.shape != (image.height, image.width) or array.max() > 1:
        field.fail(f"must be null or {image.height} rows of {image.width} zeros and ones")
    return array.astype(bool)


def _array(field: Field, dtype: Any, dimensions: int) -> np.ndarray:
    """Nested lists of numbers as an array, refused when ragged, empty or outside the type's range."""
    limits = np.finfo(dtype) if dtype is np.float32 else np.iinfo(dtype)
    try:
        array = np.array(field.value)
        kinds = "iuf" if dtype is np.float32 else "iub"
        if (
            array.ndim == dimensions
            and array.size
            and array.dtype.kind in kinds
            and array.min() >= limits.min
            and array.max() <= limits.max
        ):
            return array.astype(dtype)
    except (ValueError, OverflowError):  # ragged rows, or whole numbers beyond 64 bits
        pass
    return field.fail(
        f"must be rows of equal length of numbers from {limits.min:g} to {limits.max:g}"
        if dimensions == 2
        else f"must be rows of equal length of pixels, numbers from {limits.min} to {limits.max}"
    )


def score_results(lines: Sequence[Field]) -> dict[str, Any]:
    """Upstream's summary of a results.jsonl; see `geneval_rules.summarise`."""
    rows = [
        rules.ResultRow(
            metadata=line["metadata"].text(),
            tag=line["tag"].text(),
            correct=line["correct"].boolean(),
        )
        for line in lines
    ]
    return rules.summarise(rows)
