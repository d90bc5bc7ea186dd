"""Names of points: readable, safe as folders, and a function of the point's own values alone."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_MAX_VALUE, _MAX_ID = 40, 150  # characters; file systems end at 255 bytes
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")



def labels_of(keys: Sequence[str]) -> dict[str, str]:
    """Dotted key -> the shortest end of it that no other key has: ``train.target`` -> ``target``."""
    found = {}
    for key in keys:
        parts = key.split(".")
        for n in range(1, len(parts) + 1):
            label = ".".join(parts[-n:])
            if label != "seed" and sum(f".{k}".endswith(f".{label}") for k in keys) == 1:
                break
        found[key] = label
    return found


def id_of(values: Mapping[str, Any]) -> str:
    """``target=clip,objective=flow``; other characters than letters, digits and ``._+-`` become ``-``."""
    text = ",".join(f"{label}={_value_text(value)}" for label, value in values.items()) or "base"
    if len(text) <= _MAX_ID:
        return text
    return f"{text[:_MAX_ID - 9]}~{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _value_text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), sort_keys=True)
    safe = _UNSAFE.sub("-", text)
    if isinstance(value, (dict, list)):
        safe = safe.strip("-")  # braces; the sign of a number stays
    if len(safe) <= _MAX_VALUE:
        return safe
    return f"{safe[:_MAX_VALUE - 9]}~{hashlib.sha256(text.encode()).hexdigest()[:8]}"
