"""Whether a manifest and its results have the form that reports, exports and trackers rely on.

A run folder is a thing that people send each other. What is wrong in it is named with its place, as in
recorded inputs, and not by the traceback of whoever stumbles over it first. Keys that are not named
here may be anything, so that a later version can add some.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evals.errors import InputError, shown
from evals.recorded import Field

Check = Callable[[Field], Any]


def check_manifest(data: Mapping[str, Any], path: Path) -> None:
    """Raises InputError, naming the file and the key."""
    _members(Field(data, str(path)), _MANIFEST)


def check_results(data: Mapping[str, Any], path: Path) -> None:
    """Raises InputError, naming the file and the key."""
    _members(Field(data, str(path)), _RESULTS)


def checked_outputs(rows: Iterable[dict[str, Any]], path: Path) -> Iterator[dict[str, Any]]:
    """The rows of ``outputs.jsonl``. Raises InputError, naming the line, for the first that is none.

    A picture lies below `images/` of its own folder: a page made from somebody else's run must not
    show what lies elsewhere on this machine.
    """
    for number, row in enumerate(rows, 1):
        picture, status = row.get("path"), row.get("status")
        if (
            not _has_place(row)
            or not _are(str, row.get("prompt"), row.get("group"))
            or not _are_optional(str, picture, row.get("text"), row.get("error"))
            or status not in ("ok", "error")
        ):
            raise InputError(f"{path}:{number}: is no output; the keys are described in evals.results")
        if picture is not None and (
            not picture.startswith("images/") or ".." in picture.split("/") or "\0" in picture
        ):
            raise InputError(f"{path}:{number}: path {shown(picture)} is not below images/")
        yield row


def checked_scores(rows: Iterable[dict[str, Any]], path: Path) -> Iterator[dict[str, Any]]:
    """The rows of ``scores.jsonl``. Raises InputError, naming the line, for the first that is none."""
    for number, row in enumerate(rows, 1):
        value: Any = row.get("value")
        unscored = row.get("unscored")
        is_number = type(value) in (int, float) and math.isfinite(value)
        if (
            not _has_place(row)
            or not _are_optional(str, row.get("reason"), row.get("answer"), unscored)
            or not _are_optional(dict, row.get("details"))
            or is_number is (unscored is not None)
            or (value is None) is (unscored is None)
        ):
            raise InputError(f"{path}:{number}: is no score; the keys are described in evals.results")
        yield row


def _has_place(row: Mapping[str, Any]) -> bool:
    index = row.get("image_index")
    return _are(str, row.get("sample_id")) and type(index) is int and index >= 0


def _are(kind: type, *values: Any) -> bool:
    return all(type(value) is kind for value in values)


def _are_optional(kind: type, *values: Any) -> bool:
    return all(value is None or type(value) is kind for value in values)


def _members(field: Field, shape: Mapping[str, Check]) -> None:
    for key, check in shape.items():
        check(field[key])


def _object(**shape: Check) -> Check:
    return lambda field: _members(field, shape)


def _map_of(check: Check) -> Check:
    return lambda field: [check(field[key]) for key in field.object()]


def _list_of(check: Check) -> Check:
    return lambda field: [check(item) for item in field.items()]


def _optional(check: Check) -> Check:
    return lambda field: None if field.value is None else check(field)


def _count(field: Field) -> None:
    if field.integer() < 0:
        field.fail(f"must not be negative, got {field.shown}")


def _interval(field: Field) -> None:
    field.numbers(2)


_TEXTS = _list_of(Field.text)
_IDENTITY = _object(name=Field.text, version=Field.text, weights_sha256=Field.text, domain=Field.text)
_PART = _object(
    name=Field.text,
    version=Field.text,
    weights_sha256=Field.text,
    domain=Field.text,
    is_test_double=Field.boolean,
    settings=Field.object,
    info=Field.object,
)
_METRIC = _object(
    value=_optional(Field.number),
    n=_count,
    unscored=_count,
    ci95=_optional(_interval),
    unit=Field.text,
    higher_is_better=Field.boolean,
)
_MANIFEST: Mapping[str, Check] = {
    "status": Field.text,
    "config": _object(
        task=Field.text, model=Field.object, generation=Field.object, judge=Field.object
    ),
    "fingerprint": Field.object,
    "config_sha256": Field.text,
    "auto": _map_of(Field.integer),
    "task": _object(
        name=Field.text,
        version=Field.text,
        kind=Field.text,
        prompts_sha256=Field.text,
        groups=_map_of(_count),
        card=_map_of(Field.text),
    ),
    "model": _PART,
    "judge": _optional(_PART),
    "plan": _object(samples=_count, official_samples=_count, per_sample=_count, outputs=_count),
    "partial": Field.boolean,
    "deviations": _TEXTS,
    "warnings": _TEXTS,
    "sessions": _list_of(Field.object),
    "mlflow": _optional(Field.object),
}
_RESULTS: Mapping[str, Check] = {
    "task": _object(name=Field.text, version=Field.text, prompts_sha256=Field.text),
    "model": _IDENTITY,
    "judge": _optional(_IDENTITY),
    "config_sha256": Field.text,
    "partial": Field.boolean,
    "is_test_double": Field.boolean,
    "deviations": _TEXTS,
    "warnings": _TEXTS,
    "metrics": _map_of(_METRIC),
    "groups": _map_of(Field.object),
    "counts": _object(samples=_count, outputs=_count, failed=_count, scored=_count, unscored=_count),
    "timing": Field.object,
}
