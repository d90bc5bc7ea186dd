"""Runs too large for memory: scores read from the disk give the same figures as scores held at once."""

from __future__ import annotations

import random
from array import array
from pathlib import Path

import pytest

import evals
from evals import stats
from evals.api import ScoreRow
from evals.phases import scoring
from evals.phases.plan import Locator, Plan
from evals.phases.scoring import ScoreTable
from evals.results import comparable
from evals.store import RunStore


@pytest.fixture
def made(fruit, tmp_path: Path) -> evals.Run:
    quiet = {"report": False, "tracking__enabled": False, "quiet": True}
    return evals.evaluate(fruit, "dummy", output=tmp_path / "run", num_images=2, **quiet)


def table_of(made: evals.Run, fruit) -> ScoreTable:
    plan = Plan(fruit.samples(), 2, 8, 42)
    return ScoreTable(RunStore(made.root).scan_scores(plan, 16))


def test_a_table_is_the_sequence_of_its_rows(made, fruit) -> None:
    table = table_of(made, fruit)
    rows = list(table)
    assert len(table) == len(rows) == 48 and all(isinstance(r, ScoreRow) for r in rows)
    assert [rows[0], rows[-1], rows[5:9]] == [table[0], table[-1], table[5:9]]
    with pytest.raises(IndexError):
        table[48]


def test_figures_do_not_depend_on_where_the_scores_are(
    made, fruit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "ROWS_IN_MEMORY", 0)
    quiet = {"report": False, "tracking__enabled": False, "quiet": True}
    again = evals.evaluate(fruit, "dummy", output=tmp_path / "b", num_images=2, **quiet)
    assert comparable(again.root) == comparable(made.root)


def test_numbers_in_arrays_and_in_lists_have_the_same_interval() -> None:
    rng = random.Random(4)
    values = [float(rng.random() < 0.6) for _ in range(240)]
    clusters = [n // 4 - 30 for n in range(240)]
    strata = [n // 80 for n in range(240)]
    assert stats.mean(array("d", values), array("q", clusters)) == stats.mean(values, clusters)
    compact = stats.mean_of_strata(array("d", values), array("i", strata), array("q", clusters))
    assert compact == stats.mean_of_strata(values, strata, clusters)


def test_rows_are_found_in_any_order_and_only_in_their_plan(fruit) -> None:
    plan = Plan(fruit.samples(), 2, 8, 42)
    locate = Locator(plan)
    order = list(range(len(plan)))
    for positions in (order, order[::-1], random.Random(1).sample(order, len(order))):
        for position in positions:
            sample, index = plan.place(position)
            assert locate({"sample_id": sample.id, "image_index": index}) == position
    for stranger in (
        {"sample_id": "pear", "image_index": 0},
        {"sample_id": "fruit-000", "image_index": 2},
        {"sample_id": "fruit-000", "image_index": True},
        {"sample_id": ["fruit-000"], "image_index": 0},
        {},
    ):
        assert locate(stranger) is None
