"""Letters in free answers: which shape wins, and what is no letter at all."""

from __future__ import annotations

import pytest

from tasks.choices import extract_letter, lettered, letters_of


def test_options_are_written_one_a_line() -> None:
    assert lettered(["red", "blue", 3]) == "A. red\nB. blue\nC. 3"
    assert letters_of(range(8)) == list("ABCDEFGH")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        (" b ", ""),
        ("(C)", "C"),
        ("D.", "D"),
        ("'A'", "A"),
        ("", ""),
        (" ... ", ""),
        ("Answer: C", "C"),
        ("A car", "A"),  # at the start, and no letter follows it
        ("Apple", "A"),  # inside a word, when nothing else is found
        ("the cat", ""),
        ("ABC", "C"),  # the last letter that stands free on one side ends the answer
        ("I looked at (A) but the answer is B because it fits", "B"),  # the phrase beats brackets
        ("Maybe (A), maybe (C), who knows", "C"),  # the last of one shape
        ("Of A. and B: the first", "A"),  # a full stop beats a colon
        ("after some thought I would say D", "D"),  # the end beats phrases
        ("(B) then. the answer is A or so", "A"),
        ("答案是C吧", "C"),
        ("Z", ""),
        ("G", ""),
    ],
)
def test_the_letter_that_an_answer_means(answer: str, letter: str) -> None:
    assert extract_letter(answer, "ABCD") == letter


def test_only_the_letters_that_are_asked_for_count_and_none_means_a_to_h() -> None:
    assert extract_letter("G", "ABCDEFG") == "G"
    assert extract_letter("(D) or (B)", "AB") == "B"
    assert extract_letter("H", []) == "H"
