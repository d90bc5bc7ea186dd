"""Yes and no as words, and points over pairs."""

from __future__ import annotations

from typing import Any

import pytest

from evals.api import Output, Sample, Score, ScoreItem, ScoreRow, Task
from tasks.understanding.mme import Mme, yes_or_no, yes_or_no_lmms


def row(n: int, category: str, pair: str, value: float | None, lmms: float = 0.0) -> ScoreRow:
    if value is None:
        return ScoreRow(str(n), 0, category, Score.unscored("failed"))
    details = {"pair": pair, "unparsed": False, "lmms_eval": lmms}
    return ScoreRow(str(n), 0, category, Score(value, details=details))


def figures(rows: list[ScoreRow]) -> dict[str, Any]:
    return {metric.name: metric.compute(rows) for metric in Mme().metrics()}


@pytest.mark.parametrize(
    ("answer", "said", "lmms"),
    [
        ("Yes", "yes", "yes"),
        ("NO.", "no", "no"),
        ("y", "yes", "yes"),
        ("N.", "no", "no"),
        ("'Yes'", "yes", "yes"),
        ("No, there is not.", "no", "no"),
        ("The answer is yes.", "yes", "other"),
        ("none", None, "no"),
        ("Not really", None, "no"),
        ("I know", None, "other"),
        ("know", None, "no"),
        ("Byes", None, "yes"),
        ("Yes/No", None, "yes"),
        ("yes or no", None, "yes"),
        ("I have no idea", None, "other"),
        ("", None, "other"),
        ("Correct", None, "other"),
    ],
)
def test_yes_and_no_are_words_here_and_four_characters_there(
    answer: str, said: str | None, lmms: str
) -> None:
    assert yes_or_no(answer) == said
    assert yes_or_no_lmms(answer) == lmms


def test_a_pair_earns_its_share_and_as_much_again_when_whole() -> None:
    rows = [
        row(0, "count", "a", 1, 1), row(1, "count", "a", 1, 1),  # 200
        row(2, "count", "b", 1), row(3, "count", "b", 0),  # 50
        row(4, "OCR", "a", 0), row(5, "OCR", "a", 0),  # 0
        row(6, "code_reasoning", "a", 1), row(7, "code_reasoning", "a", 1),  # 200
    ]  # fmt: skip
    found = figures(rows)
    assert found["count"].value == 125 and found["OCR"].value == 0
    assert found["perception"].value == 125 and found["perception"].unit == "points"
    assert found["perception"].note == "2 of 10 categories"
    assert found["perception"].n == 6 and found["perception"].clusters == 3
    assert found["cognition"].value == 200
    assert found["scene"].value is None and found["scene"].note == "nothing was scored"
    assert found["perception_lmms_eval"].value == 100
    lo, hi = found["perception"].ci95
    assert 0 <= lo < 125 < hi <= 400


def test_a_picture_with_one_answer_is_left_out_and_counted() -> None:
    rows = [
        row(0, "count", "a", 1), row(1, "count", "a", 1),
        row(2, "count", "b", 0), row(3, "count", "b", None),
    ]  # fmt: skip
    found = figures(rows)["count"]
    assert found.value == 200 and found.n == 2 and found.unscored == 2


def test_pictures_of_one_name_in_two_categories_are_two() -> None:
    rows = [row(0, "OCR", "a", 1), row(1, "count", "a", 1)]
    assert figures(rows)["perception"].value is None


def test_it_is_a_task_and_scores_outputs_of_a_model() -> None:
    task = Mme()
    assert isinstance(task, Task)
    record = {"question_id": "a", "question": "Is it red?", "answer": "No", "category": "color"}
    sample = Sample("00000", 0, "color", "p", record)
    texts = ["No", "nothing", " yes\n"]
    scores = task.score([ScoreItem(sample, Output("0", 0, 1, text=t)) for t in texts], None)
    assert [s.value for s in scores] == [1.0, 0.0, 0.0]
    assert [s.answer for s in scores] == ["no", None, "yes"]
    assert scores[1].details == {"expected": "no", "pair": "a", "unparsed": True, "lmms_eval": 1.0}


def test_odd_numbers_of_answers_have_no_figure_by_lmms_evals_rules() -> None:
    task = Mme()
    scorer = task.lmms_eval()
    from evals.recorded import Field

    record = {"question_id": "a", "question": "?", "answer": "yes", "category": "count"}
    doc = task.read(Field(record, "x"))
    scorer.result(doc, "yes")
    assert scorer.metrics() == {"mme_perception_score": None}
    scorer.result(doc, "no")
    assert scorer.metrics() == {"mme_perception_score": 50.0}
