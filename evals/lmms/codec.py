"""What `process_results` returns, as JSON and back: its aggregations tell tuples from lists and ints from texts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_MARK = "$"


def encode(value: Any) -> Any:
    """JSON values only. Raises TypeError for what cannot be kept, such as a picture."""
    if hasattr(value, "item") and hasattr(value, "dtype") and getattr(value, "ndim", 0) == 0:
        value = value.item()  # a NumPy or torch number
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_MARK: "float", "of": repr(float(value))}
    if isinstance(value, Mapping):
        if all(isinstance(k, str) and k != _MARK for k in value):
            return {k: encode(v) for k, v in value.items()}
        return {_MARK: "items", "of": [[encode(k), encode(v)] for k, v in value.items()]}
    if isinstance(value, list):
        return [encode(v) for v in value]
    for kind in (tuple, set):
        if isinstance(value, kind):
            return {_MARK: kind.__name__, "of": [encode(v) for v in value]}
    if hasattr(value, "tolist"):
        return {_MARK: "array", "of": encode(value.tolist())}
    raise TypeError(f"a value of type {type(value).__name__} cannot be kept as JSON")


def decode(value: Any) -> Any:
    """The inverse of ``encode``; arrays come back as NumPy arrays."""
    if isinstance(value, list):
        return [decode(v) for v in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(_MARK)
    if kind is None:
        return {k: decode(v) for k, v in value.items()}
    of = value["of"]
    if kind == "float":
        return float(of)
    if kind == "items":
        return {decode(k): decode(v) for k, v in of}
    if kind == "array":
        import numpy as np

        return np.asarray(decode(of))
    return {"tuple": tuple, "set": set}[kind](decode(v) for v in of)


def number(value: Any, key: str = "score") -> float | None:
    """The one finite number in a payload: itself, or under ``key`` of a mapping or a usual name for it."""
    if isinstance(value, Mapping):
        value = next((value[k] for k in (key, "score", "is_correct", "correct") if k in value), None)
    if isinstance(value, (bool, int, float)) and math.isfinite(value):
        return float(value)
    return None
