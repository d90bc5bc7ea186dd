"""Writing and reading multiple choice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

_OUTER_MARKS = (",", ".", "!", "?", ";", ":", "'", '"')

# How a letter may stand in an answer -> how much that says; the last place of the best shape wins.
_SHAPES = {"({})": 6, "{}.": 5, "{}:": 4, "{})": 3, "{} ": 2}
_AT_START, _AT_END, _AFTER_PHRASE, _ANYWHERE = 10, 9, 7, 0

_PHRASES = (
    *(
        f"{article}{adjective}{noun} is"
        for article, (adjective, noun) in product(
            ("the ", ""),
            (
                ("", "answer"),
                ("", "choice"),
                *product(("correct ", "best "), ("answer", "option")),
                ("correct ", "choice"),
            ),
        )
    ),
    "i choose",
    "i select",
    "i pick",
    "my answer is",
    "my choice is",
    "옵션",
    "정답은",
    "답은",
    "답:",
    "答案是",
    "答案为",
    "选",
    "答えは",
)


def letters_of(options: Sequence[object]) -> list[str]:
    """A, B, C, ... for as many options."""
    return [chr(ord("A") + index) for index in range(len(options))]


def lettered(options: Sequence[object]) -> str:
    """One option a line: `A. first`."""
    return "\n".join(
        f"{letter}. {option}" for letter, option in zip(letters_of(options), options, strict=True)
    )


def extract_letter(answer: str, letters: Iterable[str] = "ABCDEFGH") -> str:
    """The letter that a free answer means, or "" if none of `letters` stands in it.

    The rule of lmms-eval 0.7.3 for multiple choice without a judge: every place where a letter stands
    in a known shape is a candidate; the shape that says most wins (the whole answer begins with the
    letter, ends with it, a phrase such as "the answer is" comes before it, then (A), A., A:, A) and
    "A "), and of equal shapes the last place. A letter inside a word counts only when nothing else
    does. Capitals only. No letters at all means A to H, as there.
    """
    if not answer.strip():
        return ""
    letters = list(letters) or list("ABCDEFGH")
    bare = answer.strip()
    for mark in _OUTER_MARKS:
        bare = bare.strip(mark)
    text = f" {bare} "
    found = [
        (strength, text.rfind(form), letter)
        for shape, strength in _SHAPES.items()
        for letter in letters
        if (form := shape.format(letter)) in text
    ]
    found += _after_phrases(text, letters)
    core = text.strip()
    for letter in letters:
        if core.startswith(letter) and not core[1:2].isalpha():
            found.append((_AT_START, 0, letter))
        if core.endswith(letter) and not core[-2:-1].isalpha():
            found.append((_AT_END, len(text) - 1, letter))
    if not found:
        found = [(_ANYWHERE, text.rfind(one), one) for one in letters if one in text]
    return max(found, key=lambda candidate: candidate[:2], default=(0, 0, ""))[2]


def _after_phrases(text: str, letters: Sequence[str]) -> list[tuple[int, int, str]]:
    """For the first place of every phrase, the next place of every letter."""
    lowered = text.lower()
    found = []
    for phrase in _PHRASES:
        start = lowered.find(phrase)
        if start < 0:
            continue
        for letter in letters:
            place = text.find(letter, start + len(phrase))
            if place >= 0:
                found.append((_AFTER_PHRASE, place, letter))
    return found
