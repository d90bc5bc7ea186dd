"""Arguments after a name, ``name:a=1,b=0.5``, as a dataclass of numbers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, TypeVar

from evals.errors import UsageError, shown, suggest

T = TypeVar("T")


def parse_arguments(name: str, spec: str, kind: type[T]) -> T:
    """``spec`` as an instance of the dataclass ``kind``, whose fields all have a number as default.

    Raises: UsageError for an argument that ``kind`` lacks, or a value that is no number of its type.
    """
    values: dict[str, Any] = asdict(kind())  # type: ignore[call-overload]
    for part in filter(None, spec.split(",")):
        key, _, text = part.partition("=")
        if key not in values:
            raise UsageError(f"unknown argument {shown(key)} of {name!r}.{suggest(key, values)}")
        try:
            values[key] = type(values[key])(text)
        except ValueError:
            raise UsageError(f"argument {key}={shown(text)} of {name!r}: give a number") from None
    return kind(**values)
