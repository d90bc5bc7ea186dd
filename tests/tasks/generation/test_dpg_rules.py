"""The rules against recorded figures of the official script, and its mistakes one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from evals.cli.main import main
from tasks.generation import dpg_rules as rules
from tasks.generation.dpg_rules import Row

Pictures = list[dict[int, str | None]]


def row(pid: int, *parents: int, item: str = "a", tuple: str | None = "entity - whole (x)") -> Row:
    return Row(item, pid, parents or (0,), tuple)


LOST = row(1, item="lost")
"""A first row, which the official script does not see."""


def pictures(*answers: dict[int, str]) -> Pictures:
    return [dict(one) for one in answers]


def yes(*pids: int, no: tuple[int, ...] = ()) -> dict[int, str]:
    return {**dict.fromkeys(pids, "yes"), **dict.fromkeys(no, "no")}


def official(rows: list[Row], answers: dict[str, Pictures], pic_num: int = 1, **more: Any) -> Any:
    images = more.get("images", [f"{item}.png" for item in answers])
    return rules.score_official(rows, pic_num, images, answers)


def fixed(rows: list[Row], answers: dict[str, Pictures], pic_num: int = 1, **more: Any) -> Any:
    images = more.get("images", [f"{item}.png" for item in answers])
    return rules.score_fixed(rows, pic_num, images, answers)


def score(path: Path) -> Result:
    return CliRunner().invoke(main, ["score", "--task", "dpg", "--answers", str(path), "--json"])


def test_every_recorded_run_gets_the_figures_of_the_official_script(golden: Path) -> None:
    path = golden / "dpg" / "scores.jsonl"
    result = score(path)
    assert result.exit_code == 0 and result.stderr == ""
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    cases = [json.loads(line) for line in path.read_text().splitlines()]
    assert [r["id"] for r in rows] == [c["id"] for c in cases] == ["plain-3", "all-yes"]
    for got, case in zip(rows, cases, strict=True):
        wanted = case["official"]
        assert list(got) == ["id", "official", "fixed"]
        assert list(got["fixed"]) == ["images", "failed", "l1", "l2", "overall"]
        assert got["official"].keys() == wanted.keys()
        assert got["official"]["failed"] == wanted["failed"]
        assert got["official"]["overall"] == pytest.approx(wanted["overall"], abs=1e-9)
        for level in ("l1", "l2"):
            assert got["official"][level] == pytest.approx(wanted[level], abs=1e-9)
        assert got["official"]["images"].keys() == wanted["images"].keys()
        for name, one in wanted["images"].items():
            mine = got["official"]["images"][name]
            assert mine["crop_scores"] == pytest.approx(one["crop_scores"], abs=1e-9)
            assert mine["score"] == pytest.approx(one["score"], abs=1e-9)


@pytest.mark.parametrize("answer", ["Yes", "yes.", " yes", "YES", "y", "no", "2", ""])
def test_only_the_exact_word_yes_scores(answer: str) -> None:
    rows = [LOST, row(1), row(2)]
    answers = {"a": pictures({1: "yes", 2: answer})}
    for mode in (official, fixed):
        assert mode(rows, answers, images=["a.png"]).overall == 50.0


def test_zeros_cascade_to_later_rows_and_a_later_parent_is_seen_as_answered() -> None:
    chain = [LOST, row(1), row(2, 1), row(3, 2)]
    assert official(chain, {"a": pictures(yes(2, 3, no=(1,)))}).overall == 0.0
    backwards = [LOST, row(3, 2), row(2, 1), row(1)]
    # 3 still sees the raw "yes" of 2, which is zeroed only afterwards.
    scores = official(backwards, {"a": pictures(yes(2, 3, no=(1,)))})
    assert scores.overall == pytest.approx(100 / 3)
    assert scores.l2 == {"entity - whole": pytest.approx(200 / 3)}  # categories know no parents


def test_the_first_row_is_lost_and_what_depends_on_it_fails_unless_a_parent_spares_it() -> None:
    rows = [row(1), row(2), row(3, 1), row(4, item="b")]
    answers = {"a": pictures(yes(1, 2, 3)), "b": pictures(yes(4))}
    scores = official(rows, answers)
    assert scores.failed == ["a.png"] and "depends on 1" in scores.reasons["a.png"]
    assert list(scores.images) == ["b.png"] and scores.overall == 100.0
    assert scores.l1 == {"entity": 100.0}
    assert fixed(rows, answers).failed == [] and fixed(rows, answers).overall == 100.0
    # The lost parent is never looked up when the parent before it has already zeroed the question.
    spared = [row(1), row(2), row(3, 2, 1)]
    assert official(spared, {"a": pictures(yes(1, 3, no=(2,)))}).overall == 0.0
    late = [row(1), row(2), row(3, 1, 2)]
    assert official(late, {"a": pictures(yes(1, 3, no=(2,)))}).failed == ["a.png"]


def test_categories_hold_the_last_picture_only_and_in_fixed_mode_all_of_them() -> None:
    rows = [
        LOST,
        row(1, tuple="attribute - color (x, red)"),
        row(2, tuple="attribute - other (x)"),
        row(3, tuple="global - (style)"),
    ]
    answers = {"a": pictures(yes(1, 2, 3), yes(1, no=(2, 3)))}
    scores = official(rows, answers, pic_num=2)
    assert scores.l1 == {"attribute": 50.0, "global": 0.0}
    assert scores.l2 == {"attribute - color": 100.0, "attribute - other": 0.0, "global -": 0.0}
    repaired = fixed(rows, answers, pic_num=2)
    assert repaired.l1 == {"attribute": 75.0, "global": 50.0}
    assert repaired.overall == scores.overall == pytest.approx(100 * (1 + 1 / 3) / 2)


def test_pic_num_takes_the_first_of_at_most_four_pictures() -> None:
    rows = [LOST, row(1)]
    answers = {"a": pictures(yes(1), yes(no=(1,)), yes(1), yes(no=(1,)))}
    found = {n: official(rows, answers, pic_num=n) for n in (1, 2, 3, 4, 9, -1, 0)}
    assert [found[n].overall for n in (1, 2, 4, 9)] == [100.0, 50.0, 50.0, 50.0]
    assert found[3].overall == found[-1].overall == pytest.approx(200 / 3)  # a slice, as there
    assert found[0].overall is None and found[0].failed == ["a.png"]


def test_what_is_no_picture_or_has_no_answers_is_named_and_left_out() -> None:
    rows = [LOST, row(1), row(1, item="b"), row(1, item="c"), row(1, item="d")]
    answers = {"a": pictures(yes(1), yes(1)), "b": pictures(yes(1)), "c": pictures(yes(1), {})}
    images = ["a.png", "b.png", "c.png", "e.png", "results.txt"]
    scores = official(rows, answers, pic_num=2, images=images)
    assert scores.failed == ["b.png", "c.png", "e.png", "results.txt"]
    assert scores.overall == 100.0 and scores.l1 == {"entity": 100.0}
    repaired = fixed(rows, answers, pic_num=2, images=images)
    # Files of no item are no pictures; items without a picture are named instead.
    assert repaired.failed == ["b.png", "c.png", "lost", "d"]
    assert repaired.reasons["b.png"] == "answers on 1 of 2 pictures"
    assert repaired.reasons["c.png"] == "question 1 has no answer"


def test_a_file_belongs_to_the_item_before_its_first_dot() -> None:
    rows = [LOST, row(1), row(2)]
    answers = {"a": pictures(yes(1, no=(2,)))}
    images = ["a.final.png", "a.jpg"]
    scores = official(rows, answers, images=images)
    assert list(scores.images) == images and scores.failed == []
    repaired = fixed(rows, answers, images=images)
    assert list(repaired.images) == ["a.final.png"] and repaired.failed == ["a.jpg", "lost"]


def test_an_item_that_comes_back_replaces_its_first_block() -> None:
    rows = [LOST, row(1), row(2), row(1, item="b"), row(3)]
    answers = {"a": pictures(yes(3, no=(1, 2))), "b": pictures(yes(1))}
    assert official(rows, answers).images["a.png"].crop_scores == (1.0,)
    assert fixed(rows, answers).images["a.png"].crop_scores == (pytest.approx(1 / 3),)


def test_a_picture_that_fails_for_want_of_a_category_has_counted_already() -> None:
    rows = [LOST, row(1), row(2, tuple=None), row(3)]
    scores = official(rows, {"a": pictures(yes(1, 2, no=(3,)))})
    assert scores.failed == ["a.png"] and scores.overall == pytest.approx(200 / 3)
    assert scores.l1 == {"entity": 100.0}


def test_nothing_scored_has_no_overall(tmp_path: Path) -> None:
    case = {"id": "x", "rows": [], "pic_num": 4, "images": ["a.png"], "answers": {}}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(case))
    result = score(path)
    assert result.exit_code == 0
    empty = {"images": {}, "l1": {}, "l2": {}, "overall": None}
    assert json.loads(result.stdout) == {
        "id": "x",
        "official": {**empty, "failed": ["a.png"]},
        "fixed": {**empty, "failed": []},
    }


def test_a_file_whose_items_are_all_numbers_names_no_picture_to_the_official_script(tmp_path: Path) -> None:
    def overall(*items: str) -> list[float | None]:
        rows = [{"item_id": i, "proposition_id": 1, "dependency": "0", "tuple": "global - (x)"} for i in items]
        case = {"rows": rows, "images": [f"{items[-1]}.png"], "answers": {items[-1]: [{"1": "yes"}]}}
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps({"id": "x", "pic_num": 1, **case}))
        [line] = score(path).stdout.splitlines()
        return [json.loads(line)[mode]["overall"] for mode in ("official", "fixed")]

    assert overall("7", "12") == [None, 100.0]
    assert overall("a", "12") == [100.0, 100.0]


def test_cells_that_the_scripts_table_reader_takes_for_empty(tmp_path: Path) -> None:
    from pandas._libs.parsers import STR_NA_VALUES

    from tasks.generation import dpg_records

    assert set(STR_NA_VALUES) == dpg_records._MISSING

    def scored(item: str, category: str) -> list[dict[str, Any]]:
        cells = {"proposition_id": 1, "dependency": "0", "tuple": category}
        rows = [{"item_id": name, **cells} for name in ("lost", "b", item)]
        case = {"rows": rows, "images": [f"{item}.png"], "answers": {item: [{"1": "yes"}]}}
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps({"id": "x", "pic_num": 1, **case}))
        [line] = score(path).stdout.splitlines()
        return [json.loads(line)[mode] for mode in ("official", "fixed")]

    script, repaired = scored("a", "NA")
    assert script["failed"] == ["a.png"] and script["l1"] == {} and script["overall"] == 100.0
    assert repaired["l1"] == {"NA": 100.0}
    script, repaired = scored("None", "global - (x)")
    assert (script["overall"], repaired["overall"]) == (None, 100.0)
    script, repaired = scored("Nan", "none")
    assert script == {**repaired, "failed": []} and script["l1"] == {"none": 100.0}


GOOD: dict[str, Any] = {
    "id": "x",
    "rows": [{"item_id": "a", "proposition_id": 1, "dependency": "0", "tuple": "global - (x)"}],
    "pic_num": 1,
    "images": ["a.png"],
    "answers": {"a": [{"1": "yes"}]},
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"id": 1}, "id must be a string, got 1"),
        ({"pic_num": "4"}, "pic_num must be a whole number"),
        ({"rows": {}}, "rows must be a list"),
        ({"rows": [{**GOOD["rows"][0], "dependency": "1,"}]}, "rows[0].dependency must hold whole"),
        ({"rows": [{**GOOD["rows"][0], "proposition_id": 1.5}]}, "rows[0].proposition_id must be"),
        ({"rows": [{"item_id": "a"}]}, "rows[0].dependency is missing"),
        ({"images": [3]}, "images[0] must be a string, got 3"),
        ({"answers": {"a": {"1": "yes"}}}, "answers.a must be a list"),
        ({"answers": {"a": [{"one": "yes"}]}}, "answers.a[0] must hold whole numbers"),
        ({"answers": {"a": [{"1": "yes", "01": "no"}]}}, "answers.a[0].01 is a second answer to question 1"),
        ({"answers": {"a": [{"1": True}]}}, "answers.a[0].1 must be a string, got true"),
    ],
)
def test_a_bad_line_is_refused_with_file_and_line(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps({**GOOD, **change}) + "\n")
    result = score(path)
    assert result.exit_code == 2 and result.stdout == ""
    assert f"{path}:2: {expected}" in result.stderr
