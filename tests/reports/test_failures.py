import json

import pytest

from reports.failures import classify, kinds_of


@pytest.mark.parametrize(
    ("reason", "kinds"),
    [
        ("expected cat>=1, found 0", ["object missing"]),
        ("expected cat>=3, found 2", ["too few"]),
        ("expected cat<4, found 5", ["too many"]),
        ("expected red car>=1, found 0 red; and 1 blue", ["wrong colour"]),
        ("expected dog right of target, found above and left of target", ["wrong place"]),
        ("expected dog above target, found  target", ["wrong place"]),
        ("expected tv>=1, found 0\nno target for dog to be right of", ["object missing"]),
        (
            "expected hot dog>=1, found 0\nexpected red cup>=1, found 0 red; and 1 pink",
            ["object missing", "wrong colour"],
        ),
        ("", []),
        ("something else", []),
    ],
)
def test_official_reasons_are_read(reason, kinds):
    assert kinds_of(reason) == kinds


def test_every_recorded_official_reason_is_read(golden):
    """All reasons of the recorded official verdicts belong to a kind."""
    lines = (golden / "geneval" / "verdicts.jsonl").read_text().splitlines()
    reasons = [json.loads(line)["official"]["reason"] for line in lines]
    wrong = [reason for reason in reasons if reason]
    assert len(wrong) >= 20
    for reason in wrong:
        assert len(kinds_of(reason)) >= 1, reason


def test_rows_without_a_score_are_not_failures():
    rows = [
        {"value": None, "reason": ""},
        {"value": 1.0, "reason": ""},
        {"value": 0.0, "reason": "never heard of it"},
        {"value": 0.0, "reason": "y" * 500},
    ]
    assert classify(rows) == [["not scored"], ["right"], ["never heard of it"], ["other"]]


def test_only_the_commonest_foreign_reasons_become_kinds():
    rows = [{"value": 0.0, "reason": f"reason {i % 20}"} for i in range(205)]
    kinds = {kind for row in classify(rows) for kind in row}
    assert len(kinds) == 9 and "other" in kinds


def test_answers_without_a_reason_are_told_apart():
    rows = [
        {"value": 0.0, "answer": "no", "details": {"unparsed": False}},
        {"value": 0.0, "answer": None, "details": {"unparsed": True}},
        {"value": 0.3, "answer": "two", "details": {}},
        {"value": 0.0, "answer": None, "details": {}},
    ]
    kinds = [["wrong answer"], ["no answer read"], ["partly right"], ["other"]]
    assert classify(rows) == kinds
