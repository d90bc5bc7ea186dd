"""Runs against a baseline: differences by hand, what is refused, what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evals import comparison, stats
from evals.api import MetricValue, ScoreRow
from evals.errors import InputError, MissingRequirementError, UsageError
from evals.metrics.accuracy import GroupMean, MeanOfGroups
from evals.results import RunData, load

GROUPS = ("cats", "dogs")
JUDGE = {"name": "stickers", "version": "1", "weights_sha256": "a" * 64, "settings": {}}


class Pets:
    """A task with two groups of unequal size, and a metric that says nothing about what it averages."""

    name, version, kind, groups, num_images = "pets", "1", "generation", GROUPS, 2
    judges: dict[str, str] = {}
    card: dict[str, str] = {}

    def metrics(self) -> list[Any]:
        return [MeanOfGroups(GROUPS), *(GroupMean(g, g) for g in GROUPS), Opaque()]


class Opaque:
    name, unit, higher_is_better = "opaque", "points", True

    def compute(self, rows: list[ScoreRow]) -> MetricValue:
        return MetricValue("opaque", 1.0, len(rows))


@pytest.fixture
def write_run(folder_of_scores) -> Callable[..., RunData]:
    def write(root: Path, values: Any, judge: Any = JUDGE, **options: Any) -> RunData:
        own = ("model", "settings", "deviations", "status")
        task = {key: value for key, value in options.items() if key not in own}
        options = {key: value for key, value in options.items() if key in own}
        return folder_of_scores(root, values, task=task, groups=GROUPS, judge=judge, **options)

    return write


def grid(change=lambda key, value: value) -> dict[tuple[str, int], float | None]:
    """20 cat prompts and 5 dog prompts, two pictures each: unequal groups, so that means of means differ."""
    names = [f"{g}-{n:02d}" for g, size in (("cats", 20), ("dogs", 5)) for n in range(size)]
    keys = [(name, i) for name in names for i in (0, 1)]
    return {k: change(k, float((int(k[0][-2:]) + k[1]) % 3 == 0)) for k in keys}


def better_dogs(key, value):
    return 1.0 if key[0].startswith("dogs") else value


def test_the_difference_is_run_minus_baseline_metric_by_metric(write_run, tmp_path):
    a = write_run(tmp_path / "a", grid())
    b = write_run(tmp_path / "b", grid(better_dogs), model="b")
    found = comparison.compare([a, b], Pets())
    overall, cats, dogs, opaque = found.against[0].rows
    by_hand = sum(v for k, v in grid().items() if k[0].startswith("dogs")) / 10
    assert dogs.baseline == pytest.approx(by_hand) and dogs.value == 1.0
    assert dogs.difference == pytest.approx(1 - by_hand)
    assert (cats.difference, cats.p_value) == (0.0, 1.0)
    # The mean of the two groups' means, whatever their sizes.
    assert overall.difference == pytest.approx((1 - by_hand) / 2)
    assert (overall.n, overall.n_clusters) == (50, 25)
    assert opaque.difference is None and "does not say what it averages" in opaque.note


def test_the_numbers_are_those_of_the_statistics_module(write_run, tmp_path):
    values, other = grid(), grid(lambda k, v: v if int(k[0][-2:]) % 3 else 0.0)
    a, b = write_run(tmp_path / "a", values), write_run(tmp_path / "b", other, model="b")
    row = comparison.compare([a, b], Pets()).against[0].rows[0]
    expected = stats.paired_difference(
        list(other.values()), list(values.values()), [k[0] for k in values],
        [k[0].split("-")[0] for k in values], bounded=True,
    )  # fmt: skip
    assert (row.difference, row.p_value) == (expected.value, expected.p_value)
    assert row.ci95 == expected.ci


def test_every_p_value_of_every_run_enters_the_correction(write_run, tmp_path):
    runs = [write_run(tmp_path / "a", grid())]
    for n in (3, 7):
        worse = grid(lambda k, v, n=n: v if int(k[0][-2:]) % n else 0.0)
        runs.append(write_run(tmp_path / str(n), worse, model=f"m{n}"))
    found = comparison.compare(runs, Pets())
    rows = [r for one in found.against for r in one.rows if r.p_value is not None]
    assert [r.p_holm for r in rows] == stats.holm(r.p_value for r in rows)
    assert found.n_tests == len(rows) == 6


def test_only_outputs_scored_in_both_runs_count_and_that_is_said(write_run, tmp_path):
    a = write_run(tmp_path / "a", grid(lambda k, v: None if k == ("cats-00", 0) else v))
    b = write_run(tmp_path / "b", grid(lambda k, v: None if k == ("dogs-01", 1) else v), model="b")
    one = comparison.compare([a, b], Pets()).against[0]
    assert {row.metric: row.n for row in one.rows[:3]} == {"overall": 48, "cats": 39, "dogs": 9}
    assert (one.shared, one.scored, one.is_partial) == (48, (49, 49), True)
    assert one.notes[0].startswith(
        "partial overlap: 48 outputs have a score in both runs, of 49 in"
    )


def test_a_group_that_is_not_shared_leaves_the_overall_without_a_difference(write_run, tmp_path):
    a = write_run(tmp_path / "a", grid())
    only_cats = {k: v for k, v in grid().items() if k[0].startswith("cats")}
    b = write_run(tmp_path / "b", only_cats, model="b")
    overall, cats, dogs, _ = comparison.compare([a, b], Pets()).against[0].rows
    assert overall.difference is None and overall.note == "not given: no scores for dogs"
    assert cats.difference == 0.0 and dogs.difference is None


def test_runs_that_share_nothing_are_refused_with_what_differs(write_run, tmp_path):
    a = write_run(tmp_path / "a", {("cats-00", 0): 1.0}, settings={"limit": 1})
    b = write_run(tmp_path / "b", {("cats-01", 0): 1.0}, settings={"limit": 2, "seed": 7})
    with pytest.raises(
        UsageError, match=r"share no scored output \(seed: 42 and 7; limit: 1 and 2\)"
    ):
        comparison.compare([a, b], Pets())
    assert comparison.paired_comparisons([a, b], Pets())[0].rows == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": "2"}, "task version: 1 and 2"),
        ({"prompts_sha256": "q" * 10}, "prompts: p and qqqqqqqqqq"),
        ({"name": "dpg"}, "task: pets and dpg"),
        ({"judge": JUDGE | {"weights_sha256": "b" * 64}}, "judge weights: aaaaaaaaaaaa and bbbbbbbbbbbb"),
        ({"judge": JUDGE | {"name": "other"}}, "judge: stickers and other"),
        ({"judge": JUDGE | {"settings": {"threshold": 0.4}}}, 'judge settings: {} and {"threshold": 0.4}'),
        ({"judge": None}, "judge: stickers and null"),
    ],
)  # fmt: skip
def test_what_does_not_compare_is_named(write_run, tmp_path, changes, said):
    a, b = write_run(tmp_path / "a", grid()), write_run(tmp_path / "b", grid(), **changes)
    with pytest.raises(UsageError) as caught:
        comparison.compare([a, b], Pets())
    assert said in str(caught.value) and str(a.root) in str(caught.value)
    assert ("blip3o-eval rescore" in str(caught.value)) == ("judge" in changes)


def test_other_seeds_and_deviations_are_said_not_refused(write_run, tmp_path):
    a = write_run(tmp_path / "a", grid())
    b = write_run(
        tmp_path / "b", grid(), settings={"seed": 7}, deviations=("1 picture per prompt",)
    )
    one = comparison.compare([a, b], Pets()).against[0]
    assert one.notes == (
        "settings differ, seed: 42 and 7",
        f"{b.root}: 1 picture per prompt",
    )


def test_chosen_metrics_are_corrected_for_themselves_alone(write_run, tmp_path):
    a = write_run(tmp_path / "a", grid())
    b = write_run(tmp_path / "b", grid(better_dogs), model="b", settings={"model.steps": 4})
    found = comparison.compare([a, b], Pets(), only=["dogs"])
    (row,) = found.against[0].rows
    assert row.metric == "dogs" and found.n_tests == 1 and row.p_holm == row.p_value
    assert found.against[0].notes == ("settings differ, model.steps: null and 4",)
    with pytest.raises(UsageError, match="Unknown metric 'dog'. Did you mean: dogs"):
        comparison.compare([a, b], Pets(), only=["dog"])


def test_unfinished_repeated_and_damaged_runs_are_refused(write_run, tmp_path):
    a, b = write_run(tmp_path / "a", grid()), write_run(tmp_path / "b", grid(), model="b")
    with pytest.raises(UsageError, match="given twice"):
        comparison.compare([a, load(tmp_path / "b" / ".." / "a")], Pets())
    with pytest.raises(UsageError, match="two or more"):
        comparison.compare([a], Pets())
    (b.root / "scores.jsonl").write_text('{"sample_id": \n')
    with pytest.raises(InputError, match="b/scores.jsonl.*damaged"):
        comparison.compare([a, b], Pets())
    (b.root / "results.json").unlink()
    with pytest.raises(UsageError, match="b is not finished"):
        comparison.compare([a, load(b.root)], Pets())


def test_without_the_task_groups_are_compared_and_the_reason_is_said(write_run, tmp_path):
    a, b = write_run(tmp_path / "a", grid()), write_run(tmp_path / "b", grid(), model="b")
    one = comparison.compare([a, b]).against[0]
    assert [row.metric for row in one.rows] == list(GROUPS)
    assert "only groups are compared" in one.notes[-1] and "Unknown task 'pets'" in one.notes[-1]
    newer = Pets()
    newer.version = "2"
    assert "installed is version 2" in comparison.compare([a, b], newer).against[0].notes[-1]


def test_a_file_that_a_metric_lacks_is_said_at_its_row(write_run, tmp_path):
    class Needs(GroupMean):
        def terms(self, rows):
            raise MissingRequirementError("questions are missing: get them")

    task = Pets()
    task.metrics = lambda: [Needs("cats", "cats")]
    a, b = write_run(tmp_path / "a", grid()), write_run(tmp_path / "b", grid(), model="b")
    (row,) = comparison.compare([a, b], task).against[0].rows
    assert row.difference is None and row.note == "questions are missing: get them"


def test_equal_names_are_told_apart(write_run, tmp_path):
    a, b = write_run(tmp_path / "a", grid()), write_run(tmp_path / "b", grid(), model="big")
    assert comparison.run_names([a, b]) == ["nano", "big"]
    assert comparison.run_names([a, a]) == ["nano nano0000", "nano nano0000 (2)"]


def test_json_holds_everything_and_no_nan(write_run, tmp_path):
    a, b = (
        write_run(tmp_path / "a", grid()),
        write_run(tmp_path / "b", grid(better_dogs), model="b"),
    )
    data = comparison.compare([a, b], Pets()).to_json()
    text = json.dumps(data, allow_nan=False)
    assert json.loads(text)["comparisons"][0]["metrics"]["dogs"]["n_clusters"] == 5
    assert data["correction"] == {"method": "holm", "tests": 3}
    assert data["baseline"] == "nano" and [r["run"] for r in data["runs"]] == [
        str(a.root),
        str(b.root),
    ]
