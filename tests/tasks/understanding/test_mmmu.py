"""Letters, candidates, gold answers written as lists, and draws that never happen."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from evals.api import Score, ScoreRow
from evals.recorded import Field
from tasks.understanding import mmmu_answers
from tasks.understanding.mmmu import CHOICE, Mmmu
from tasks.understanding.mmmu_answers import candidates_of, choice_of, is_open_match, normalise

OPTIONS = ["a red cat", "blue", "green", "O(n)"]


def record(**changes: Any) -> Field:
    base = {
        "id": "validation_Art_Theory_12",
        "question": "What is <image 2> beside <image 1>?",
        "question_type": CHOICE,
        "options": str(OPTIONS),
        "answer": "B",
    }
    return Field({**base, **changes}, "row 0")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(C).", "C"),
        ("The answer is D.", "D"),
        ("A. red B. blue", "A"),  # neither is a word of its own: the first one
        ("(A) no, (B)", "B"),
        ("(A) is not B", "A"),
        ("A or B or A", "A"),
        ("I am fairly sure that it is blue", "B"),
        ("I am sure that it is blue, and never green at all", "C"),
        ("it is blue", None),
        ("b", None),
        ("", None),
        ('{"answer": "A"}', None),
        ("XB or YA or so", "A"),  # the same, in the order of the options
        ("XB or A or so", "A"),
    ],
)
def test_the_letter_of_an_answer(answer: str, letter: str | None) -> None:
    assert choice_of(answer, OPTIONS) == letter


def test_candidates_are_tails_of_lines_and_their_numbers() -> None:
    assert candidates_of("x = -3") == [-3.0]
    assert candidates_of("The area is 36.") == [36.0]
    assert candidates_of("It is a Maple leaf") == ["a maple leaf"]
    # A comma in a number with decimals is read as the original's patterns read it.
    assert candidates_of("so it is 5 cm\nthe result is 1,234.5 m") == [
        "5 cm", "1,234.5 m", 5.0, 1234.0, 234.5,
    ]  # fmt: skip
    assert candidates_of("") == [""]
    assert candidates_of("is 7\nso 7\n7 is 7") == [7.0]
    assert normalise("Q") == [" q", "q "]
    assert normalise("2,500") == [2500.0]
    assert normalise("nan") != normalise("nan")


def test_an_open_answer_matches_as_part_of_a_text_or_as_a_number() -> None:
    assert is_open_match(candidates_of("It is a maple leaf"), ["Leaf"])
    assert is_open_match(candidates_of("about 2500"), ["2,500"])
    assert is_open_match(["the answer is b here"], ["B"])
    assert not is_open_match(["cab"], ["B"])  # a single character does not match inside words
    assert not is_open_match(candidates_of("25"), ["2,500"])
    assert is_open_match(candidates_of("three"), ["3", "three"])


# The patterns without the look-behind that keeps long runs of digits from costing their square.
PLAIN = (
    r"-?\b\d{1,3}(?:,\d{3})+\b",
    r"-?\d+(?:\.\d+)?[eE][+-]?\d+",
    r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])",
)


def test_numbers_are_found_as_by_the_plain_patterns() -> None:
    rng = random.Random(0)
    found = 0
    for _ in range(20_000):
        text = "".join(rng.choice("0123455,,..eE+-- x") for _ in range(rng.randint(1, 16)))
        wanted = [number for pattern in PLAIN for number in re.findall(pattern, text)]
        assert list(mmmu_answers._numbers_in(text)) == wanted, text
        found += len(wanted)
    assert found > 20_000


def test_prompts_name_options_by_letter_and_pictures_come_in_order_of_their_names() -> None:
    task = Mmmu()
    doc = task.read(record())
    assert task.prompt(doc) == (
        "What is <image 2> beside <image 1>?\nA. a red cat\nB. blue\nC. green\nD. O(n)\n\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert task.picture_columns(doc) == ["image_1", "image_2"]
    shown = task.read(record(question="Which?", options="['<image 3>', '<image 1>', '<image 3>']"))
    assert task.picture_columns(shown) == ["image_1", "image_3"]
    open_doc = task.read(record(question_type="open", options="[]", question="How many?"))
    assert task.prompt(open_doc) == (
        "How many?\n\nAnswer the question using a single word or phrase."
    )
    assert task.identity(doc, 0) == ("validation_Art_Theory_12", "Art_Theory")


def test_an_answer_without_a_letter_is_wrong_and_counted_and_nothing_is_drawn() -> None:
    task = Mmmu()
    doc = task.read(record())
    state = random.getstate()
    score = task.judge(doc, "no idea")
    assert random.getstate() == state
    assert score.value == 0.0 and score.answer is None
    assert score.details == {
        "expected": "B", "question_type": CHOICE, "unparsed": True, "lmms_eval": None, "choices": 4, "golds": ["B"],
    }  # fmt: skip
    assert task.judge(doc, "B").value == 1.0


def test_a_gold_answer_written_as_a_list_counts_by_its_members() -> None:
    task = Mmmu()
    doc = task.read(record(question_type="open", options="[]", answer="['3', 'three']"))
    for answer in ("3", "three", "it is three"):
        score = task.judge(doc, answer)
        assert score.value == 1.0
        assert score.details["lmms_eval"] == 0.0  # lmms-eval takes the list for one text
    assert task.judge(doc, "4").value == 0.0
    real_list = task.read(record(question_type="open", options="[]", answer=["3", "three"]))
    assert task.judge(real_list, "three").details["lmms_eval"] == 1.0


def test_lmms_evals_figure_draws_as_the_seeded_original_does() -> None:
    task = Mmmu()
    docs = [task.read(record(id=f"validation_Art_{i}", answer="ABCD"[i % 4])) for i in range(40)]
    answers = ["no idea" if i % 3 else "B" for i in range(40)]
    scorer = task.lmms_eval()
    results = [scorer.result(doc, answer) for doc, answer in zip(docs, answers, strict=True)]
    random.seed(0)
    drawn = [random.choice(list("ABCD")) if a != "B" else "B" for a in answers]
    assert [r["parsed_pred"] for r in results] == drawn
    wanted = sum(r["correct"] for r in results) / 40
    assert scorer.metrics() == {"mmmu_acc": pytest.approx(wanted)}
    rows = [
        ScoreRow(doc.id, 0, "Art", task.judge(doc, answer))
        for doc, answer in zip(docs, answers, strict=True)
    ]
    rows.insert(3, ScoreRow("x", 0, "Art", Score.unscored("failed")))  # draws nothing
    figures = {metric.name: metric.compute(rows) for metric in task.metrics()}
    assert figures["accuracy_lmms_eval"].value == pytest.approx(wanted)
    assert figures["accuracy_lmms_eval"].unscored == 1
    assert figures["accuracy"].value == pytest.approx(3 / 40)  # "B" and right at 9, 21, 33
    assert figures["unparsed"].value == pytest.approx(26 / 40)
    assert figures["Art"].n == 40 and figures["Music"].value is None


def test_candidates_that_json_does_not_know_are_marked() -> None:
    task = Mmmu()
    doc = task.read(record(question_type="open", options="[]", answer="5"))
    scorer = task.lmms_eval()
    assert scorer.result(doc, "-inf")["parsed_pred"] == [{"non_finite": "-inf"}]
    assert scorer.result(doc, "nan")["parsed_pred"] == [{"non_finite": "nan"}]
    assert scorer.result(doc, "so b\nis 7")["parsed_pred"] == [" b", "b ", 7.0]


def test_a_letter_that_only_ends_a_word_counts_as_in_lmms_eval() -> None:
    """MMMU's own rule wants a space on both sides and finds none here."""
    assert choice_of("DNA", ["a", "b", "c", "d"]) == "A"
    assert choice_of("it is in RNA.", ["a", "b", "c", "d"]) == "A"
