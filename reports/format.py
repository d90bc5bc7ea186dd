"""Numbers and names as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

DIGITS = {"fraction": 3, "percent": 1}


def number(value: Any, unit: str = "fraction") -> str:
    """A figure at the precision of its unit; an en dash for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "\N{EN DASH}"
    if isinstance(value, bool) or isinstance(value, int):
        return count(value)
    digits = DIGITS.get(unit)
    return f"{value:.{digits}f}" if digits is not None else f"{value:.4g}"


def as_published(value: float | None) -> str:
    """At least two decimals, more where the source gave more."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.2f}" if round(value, 2) == value else f"{value:.4g}"


def interval(bounds: Sequence[float] | None, unit: str = "fraction") -> str:
    """`0.531 to 0.569`, or an en dash."""
    if bounds is None:
        return "\N{EN DASH}"
    return f"{number(float(bounds[0]), unit)} to {number(float(bounds[1]), unit)}"


def signed(value: float | None, unit: str = "fraction") -> str:
    """A difference with its sign, at the precision of its unit."""
    if value is None or math.isnan(value):
        return "\N{EN DASH}"
    digits = DIGITS.get(unit)
    return f"{value:+.{digits}f}" if digits is not None else f"{value:+.4g}"


def signed_interval(bounds: Sequence[float] | None, unit: str = "fraction") -> str:
    """`+0.010 to +0.052`, or an en dash."""
    if bounds is None:
        return "\N{EN DASH}"
    return f"{signed(bounds[0], unit)} to {signed(bounds[1], unit)}"


def count(value: Any) -> str:
    """2212 -> `2,212`."""
    return "\N{EN DASH}" if value is None else f"{int(value):,}"


def flops(value: float | None) -> str:
    """Floating-point operations: 3.14e15 -> `3.14 PFLOP`."""
    if value is None:
        return "\N{EN DASH}"
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if value >= size:
            return f"{value / size:.3g} {prefix}FLOP"
    return f"{value:.3g} FLOP"


def words(name: Any) -> str:
    """`two_object` -> `two object`."""
    return str(name).replace("_", " ")


def seconds(value: float | None) -> str:
    """`8.6 s`, `3 min 20 s`, `2 h 5 min`."""
    if value is None:
        return "\N{EN DASH}"
    if value < 60:
        return f"{value:.1f} s"
    minutes = round(value / 60) if value >= 3600 else int(value // 60)
    if value < 3600:
        return f"{minutes} min {value % 60:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min"


def short_digest(value: Any) -> str:
    """The first 12 digits of a digest."""
    return str(value)[:12]
