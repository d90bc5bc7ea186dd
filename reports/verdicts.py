"""What a comparison with an interval may be called: one rule, for pages and documents alike.

    one seed, or one training behind several seeds     "one training"    no claim about designs, whatever p is
    p < 0.05 after Holm's correction                   "better", "worse"
    else, the 95 % interval within +-MARGIN            "equal"           to within MARGIN, and not "no difference"
    else                                               "undecided"

MARGIN is 0.05 of a score of 0 to 1 (5 points of percents): half of what separates neighbours in published tables of
GenEval. An interval of 95 % within the margin is a test of equivalence at 2.5 % on each side (Schuirmann 1987).
Figures without such a scale, distances, are never called equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

ALPHA = 0.05
MARGIN = 0.05
SCALES = {"fraction": 1.0, "percent": 100.0}

Word = Literal["better", "worse", "equal", "undecided", "one training"]


def verdict(
    value: float | None,
    ci: Sequence[float] | None,
    p_holm: float | None,
    unit: str,
    *,
    higher_is_better: bool = True,
    trainings: int = 2,
) -> Word:
    """The word for a difference. `trainings`: the fewest that stand behind either side."""
    if value is None or trainings < 2:
        return "one training"
    if p_holm is not None and p_holm < ALPHA and value:
        return "better" if (value > 0) == higher_is_better else "worse"
    margin = MARGIN * SCALES.get(unit, 0.0)
    if ci is not None and margin and -margin < ci[0] and ci[1] < margin:
        return "equal"
    return "undecided"


def agreement(word: Word, expected: Literal["better", "worse"]) -> str:
    """How a verdict stands to a published finding that the second design is `expected`."""
    if word == expected:
        return "agrees"
    if word in ("better", "worse"):
        return "contradicts"
    if word == "equal":
        return "no difference where one was found"
    return "does not decide"
