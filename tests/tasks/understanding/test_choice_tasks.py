"""MMBench, SEED-Bench and RealWorldQA: what counts as the letter, and as a question."""

from __future__ import annotations

from typing import Any

import pytest

from evals.api import Score, ScoreRow
from evals.recorded import Field
from tasks.understanding.mmbench import MmBench, Reading, read_letter
from tasks.understanding.realworldqa import RealWorldQa
from tasks.understanding.seedbench import SeedBench


def bench(**changes: Any) -> Field:
    record = {
        "index": 7, "question": "What?", "hint": "nan", "answer": "B", "category": "ocr",
        "A": "red cat", "B": "No. 5", "C": "blue", "D": None,
    }  # fmt: skip
    return Field({k: v for k, v in {**record, **changes}.items() if v != "absent"}, "row 0")


@pytest.mark.parametrize(
    ("answer", "by_rules", "by_last_resort"),
    [
        ("B", "B", None),
        ("(A) red cat", "A", None),
        ("A red cat sat here", "A", None),  # by its text: in four words a bare A may be an article
        ("A big one", "A", None),  # in three words it is not
        ("it is blue", "C", None),
        ("blue or red cat", None, ""),  # two texts
        ("A or B", None, "A"),  # two letters; the start counts most
        ("b", None, ""),
        ("E", "E", None),  # no option, but the rules look for five letters
        ("D)", "D", None),
        ('"C"', None, "C"),
        ("Failed to obtain answer via API", None, "A"),  # the A of API
        ("", None, ""),
    ],
)
def test_the_letter_by_rules_or_by_the_last_resort(
    answer: str, by_rules: str | None, by_last_resort: str | None
) -> None:
    doc = MmBench().read(bench())
    assert read_letter(doc, answer) == Reading(by_rules, by_last_resort)


def test_the_text_nan_is_an_option_and_an_absent_column_holds_it() -> None:
    task = MmBench()
    assert read_letter(task.read(bench()), "a banana") == Reading(None, "")
    for record in (bench(D="nan"), bench(D="absent")):
        doc = task.read(record)
        assert read_letter(doc, "a banana") == Reading("D", None)
        assert "D." not in task.prompt(doc) and "nan" not in task.prompt(doc)
    blank = task.read(bench(D=""))  # part of every answer
    assert read_letter(blank, "nothing") == Reading("D", None)


def test_the_prompt_has_hint_question_and_options_that_are_there() -> None:
    task = MmBench()
    assert task.prompt(task.read(bench(hint="Look.", E="fifth"))) == (
        "Look. What? There are several options:\nA. red cat\nB. No. 5\nC. blue\nE. fifth\n\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert task.prompt(task.read(bench(hint=None))).startswith("What? There")


def bench_row(index: int, value: float | None) -> ScoreRow:
    details = {"question": index % 10**6, "is_main": index < 10**6, "unparsed": False}
    score = Score.unscored("failed") if value is None else Score(value, details=details)
    return ScoreRow(str(index), 0, "ocr", score)


def test_a_question_counts_only_when_all_its_rows_are_right() -> None:
    rows = [
        bench_row(1, 1), bench_row(1_000_001, 1), bench_row(2_000_001, 1),
        bench_row(2, 1), bench_row(1_000_002, 0),
        bench_row(3, 0),
        bench_row(4, 1), bench_row(1_000_004, None),  # a failed row: no verdict
        bench_row(1_000_005, 1),  # no main row: no question
    ]  # fmt: skip
    accuracy = MmBench().metrics()[0].compute(rows)
    assert accuracy.value == pytest.approx(1 / 3)
    assert accuracy.n == 3 and accuracy.unscored == 1


def test_lmms_evals_figure_is_in_percent_and_needs_a_main_row() -> None:
    task = MmBench()
    scorer = task.lmms_eval()
    scorer.result(task.read(bench(index=1_000_009)), "B")
    assert scorer.metrics() == {"gpt_eval_score": None}
    scorer.result(task.read(bench(index=9)), "B")
    scorer.result(task.read(bench(index=8)), "C")
    assert scorer.metrics() == {"gpt_eval_score": 50.0}


def test_seed_bench_looks_at_the_first_character_only() -> None:
    task = SeedBench()
    record = {
        "question_id": 5, "question": "Which?", "answer": "B", "data_type": "video",
        **{f"choice_{c}": c * 2 for c in "abcd"},
    }  # fmt: skip
    doc = task.read(Field(record, "x"))
    assert task.prompt(doc).startswith("Which?\nA. aa\nB. bb\nC. cc\nD. dd\nAnswer with")
    found = {text: task.judge(doc, text) for text in ("B", "b) bb", "The answer is B", "", "Blue")}
    assert [s.value for s in found.values()] == [1.0, 1.0, 0.0, 0.0, 1.0]
    assert [s.answer for s in found.values()] == ["B", "B", None, None, "B"]
    assert [s.details["unparsed"] for s in found.values()] == [False, False, True, True, False]
    scorer = task.lmms_eval()
    assert scorer.result(doc, "C.") == {
        "metrics": ["seed_all", "seed_video"], "pred": "C", "correct": False,
    }  # fmt: skip
    assert scorer.metrics() == {"seed_video": 0.0, "seed_all": 0.0}


def test_real_world_qa_takes_a_letter_or_the_exact_words() -> None:
    task = RealWorldQa()
    letters = task.read(Field({"question": " Which?\n", "answer": " c "}, "x"))
    assert task.prompt(letters) == "Which?"
    assert task.judge(letters, "(C) the red one").value == 1.0
    assert task.judge(letters, "c").value == 0.0 and task.judge(letters, "c").details["unparsed"]
    words = task.read(Field({"question": "?", "answer": "Downhill"}, "x"))
    assert task.judge(words, "downhill.").value == 1.0
    assert task.judge(words, "It goes downhill").value == 0.0
    assert task.lmms_eval().result(words, "x") == {"exact_match": 0.0, "letter": None}
