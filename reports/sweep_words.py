"""What the page of a sweep says about a difference: words of `reports.verdicts`, and whole sentences."""

from __future__ import annotations

from typing import Any

from evals.sweeps.results import Row
from reports.format import signed, signed_interval, words
from reports.sweep_data import SweepData
from reports.sweep_sources import is_one_training, unreplicated
from reports.sweep_stats import Effect
from reports.verdicts import Word, verdict


def reading(value: float | None, word: Word, p_holm: float | None) -> tuple[str, str]:
    """(class, words) of a difference in a table."""
    if word in ("better", "worse"):
        return word, "higher" if (value or 0) > 0 else "lower"
    texts = {"equal": "equal to within 0.05", "one training": "one training: no verdict"}
    return "tie", texts.get(word, "no difference shown" if p_holm is not None else "not tested")


def row_word(data: SweepData, row: Row) -> Word:
    """The verdict on a cell against the baseline."""
    cells = [c for c in data.cells if c.id in (row.cell, data.table.baseline)]
    alone = any(is_one_training(data, cell, row.metric) for cell in cells)
    return verdict(
        row.difference, difference_ci(row), row.p_holm, row.unit, higher_is_better=row.higher_is_better,
        trainings=data.trainings(len(row.paired_seeds), alone),
    )  # fmt: skip


def effect_word(data: SweepData, e: Effect) -> Word:
    """The verdict on an axis."""
    return verdict(
        e.value, e.ci, e.p_holm, e.unit, higher_is_better=e.higher_is_better,
        trainings=data.trainings(len(e.seeds), bool(unreplicated(data, e))),
    )  # fmt: skip


def answer(data: SweepData, e: Effect) -> dict[str, str]:
    """One sentence: what an axis does to a headline, over all other axes."""
    name, before, after = data.metric_name(e.metric), value_text(e.before), value_text(e.after)
    text = {
        "better": f"{after} is better than {before} in {name}",
        "worse": f"{after} is worse than {before} in {name}",
        "equal": f"{after} and {before} are equal to within 0.05 in {name}",
        "undecided": f"No difference between {after} and {before} is shown in {name}",
        "one training": f"No verdict between {after} and {before} in {name}, which rests on one training",
    }[effect_word(data, e)]
    text += f": {signed(e.value, e.unit)}"
    if e.ci:
        text += f", 95 % interval {signed_interval(e.ci, e.unit)}"
    if e.p_holm is not None:
        text += f", p {_p(e.p_holm)} after Holm’s correction"
    of = f" of {e.asked_pairs}" if e.pairs < e.asked_pairs else ""
    pairs = f"{e.pairs}{of} pair{'s' * (e.asked_pairs != 1)} of cells, {len(e.seeds)} seed{'s' * (len(e.seeds) != 1)}"
    return {"axis": words(e.axis), "text": f"{text} ({pairs})."}


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def value_text(value: Any) -> str:
    """A value of an axis as YAML writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def difference_ci(row: Row) -> tuple[float, float] | None:
    """The interval of a row's difference."""
    if row.difference_low is None or row.difference_high is None:
        return None
    return row.difference_low, row.difference_high
