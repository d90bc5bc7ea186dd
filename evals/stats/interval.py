"""A figure and its interval: what all estimates have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """`lo` and `hi` are NaN where no interval exists."""

    value: float
    lo: float
    hi: float

    @property
    def ci(self) -> tuple[float, float] | None:
        """(lo, hi), or None when there is no interval."""
        return None if math.isnan(self.lo) or math.isnan(self.hi) else (self.lo, self.hi)
