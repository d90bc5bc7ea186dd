"""Normalisation and soft accuracy of the VQA family."""

from __future__ import annotations

import pytest

from evals.recorded import Field
from tasks.understanding.textvqa import Textvqa
from tasks.understanding.vqa import normalise_textvqa, normalise_vqav2, soft_accuracy
from tasks.understanding.vqav2 import Vqav2


@pytest.mark.parametrize(
    ("answer", "written"),
    [
        ("The blue", "blue"),
        ("Two", "2"),
        ("none", "0"),
        ("T-Shirt.", "t shirt"),
        ("dont know", "don't know"),
        ("couldntve", "couldntve"),  # two apostrophes short: left alone
        ("couldnt've", "couldn't've"),
        ("im", "im"),
        ("somebody'd", "somebodyd"),
        ("1,995", "1995"),
        ("1,995 a-b", "1995 ab"),  # a comma in a number takes all punctuation out
        ("a - b", "b"),
        ("10.30", "10.30"),
        ("line\nbreak\tand tab", "line break and tab"),
        ("'football'", "'football'"),
        (".a" * 40, "a" * 32 + ".a" * 8),  # no more than 32 full stops
        ("", ""),
    ],
)
def test_answers_are_written_alike(answer: str, written: str) -> None:
    assert normalise_vqav2(answer) == written


def test_textvqa_sets_the_genitive_apart_and_drops_commas_first() -> None:
    assert normalise_textvqa("Women's Health.") == "women 's health"
    assert normalise_textvqa("a, b?") == "b"
    assert normalise_vqav2("Women's Health.") == "women's health"


def plain(gold: object) -> str:
    return str(gold)


def test_accuracy_leaves_each_annotator_out_once() -> None:
    golds = tuple(enumerate(["blue"] * 3 + ["navy"] * 7))
    # Each of the three sees two others (2/3), each of the seven sees three (1).
    assert soft_accuracy("blue", golds, lambda g: g[1]) == pytest.approx((3 * 2 / 3 + 7) / 10)
    assert soft_accuracy("navy", golds, lambda g: g[1]) == 1.0
    assert soft_accuracy("red", golds, lambda g: g[1]) == 0.0


def test_equal_entries_of_vqav2_leave_together_and_those_of_textvqa_do_not() -> None:
    assert soft_accuracy("a", ("a", "a", "a", "b"), plain) == pytest.approx(1 / 4)
    task = Vqav2()
    same = [{"answer": "cat", "answer_confidence": "yes", "answer_id": 1}] * 4
    doc = task.read(Field({"question_id": 1, "question": "?", "answers": same}, "x"))
    assert task.judge(doc, "cat").value == 0.0
    numbered = [{**one, "answer_id": i} for i, one in enumerate(same)]
    doc = task.read(Field({"question_id": 1, "question": "?", "answers": numbered}, "x"))
    assert task.judge(doc, "cat").value == 1.0
    text = Textvqa()
    record = {"question_id": 1, "question": "?", "answers": ["cat"] * 4}
    assert text.judge(text.read(Field(record, "x")), "cat").value == 1.0


def test_a_question_without_answers_has_no_score_and_scores_nothing_in_lmms_eval() -> None:
    record = {"question_id": 1, "question": "is THIS?", "answers": None}
    for task, written in ((Vqav2(), "A cat"), (Textvqa(), "cat")):
        doc = task.read(Field(record, "x"))
        assert task.judge(doc, "A cat").value is None
        scorer = task.lmms_eval()
        assert scorer.result(doc, "A cat") == {"exact_match": 0.0, "normalised_response": written}
        assert scorer.metrics() == {"exact_match": 0.0}
    assert Textvqa().prompt(doc).startswith("Is this?\n")
    assert Vqav2().prompt(Vqav2().read(Field(record, "x"))).startswith("is THIS?\n")


def test_an_answer_of_which_nothing_is_left_is_unparsed() -> None:
    task = Vqav2()
    golds = [{"answer": "cat", "answer_id": i} for i in range(3)]
    doc = task.read(Field({"question_id": 7, "question": "?", "answers": golds}, "x"))
    assert task.judge(doc, "the ...").details == {"expected": "cat", "image": "7", "unparsed": True}
