"""How MMMU's free answers are read: a letter for multiple choice, candidates for open questions.

The rules of MMMU's own evaluation (MMMU-Benchmark/MMMU, eval/eval_utils.py, commit 51ce7f3) as
lmms-eval 0.7.3 carries them, without its draw of a random letter when none is found. They differ in the
shapes of a letter: MMMU asks for a space on both sides (" A "), lmms-eval takes "A " and "A." wherever
they stand, so that "DNA" reads as A. Figures here follow lmms-eval.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tasks.choices import letters_of

Candidate = str | float

_OUTER_MARKS = (",", ".", "!", "?", ";", ":", "'")
_MIN_WORDS_FOR_TEXT = 6

_LEAD_INS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_LAST_LINE_LEAD_INS = (*_LEAD_INS, "=")
_TRIVIAL = (":", ",", ".", "!", "?", ";", "'")

# A number is looked for from its first digit on only: a run of digits that fails there fails from
# every later digit too, and trying them all would cost the square of its length.
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?(?<!\d)\d++(?:\.\d++)?[eE][+-]?\d+"),
    re.compile(r"-?(?:(?<!\d)\d+\.\d+|\.\d+|(?<!\d)\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)


def choice_of(answer: str, options: Sequence[str]) -> str | None:
    """The letter that an answer means, or None.

    Looked for in this order: `(B)`, `B` before a space, `B.`, and in answers of more than five words
    the text of an option. The last of several wins.
    """
    for mark in _OUTER_MARKS:
        answer = answer.strip(mark)
    text = f" {answer} "
    letters = letters_of(options)
    for shape in ("({})", "{} ", "{}."):
        found = [letter for letter in letters if shape.format(letter) in text]
        if found:
            # A letter that only ends a longer word has no place of its own; the first of those wins.
            own = "({})" if shape == "({})" else " {} "
            return max(found, key=lambda letter: text.rfind(own.format(letter)))
    if len(text.split()) < _MIN_WORDS_FOR_TEXT:
        return None
    lowered = text.lower()
    places = {
        letter: lowered.rfind(option.lower())
        for letter, option in zip(letters, options, strict=True)
    }
    found = [letter for letter, place in places.items() if place >= 0]
    return max(found, key=places.__getitem__, default=None)


def candidates_of(answer: str) -> list[Candidate]:
    """What an open answer may mean: parts of its lines after words such as "is", and the numbers in
    them; strings in lower case, numbers rounded to two places. No two are equal."""
    parts = _key_parts(answer)
    texts = [*parts, *(number for part in parts for number in _numbers_in(part))]
    return list(dict.fromkeys(one for text in texts for one in normalise(text)))


def _key_parts(answer: str) -> list[str]:
    whole = answer.strip().strip(".").lower()
    lines = whole.split("\n")
    parts = []
    for index, line in enumerate(lines):
        lead_ins = _LAST_LINE_LEAD_INS if index == len(lines) - 1 else _LEAD_INS
        shortest = ""
        for lead_in in lead_ins:
            if lead_in in line:
                tail = line.rpartition(lead_in)[2].strip()
                if not shortest or len(tail) < len(shortest):
                    shortest = tail
        if shortest and shortest not in _TRIVIAL:
            parts.append(shortest)
    return parts or [whole]


def _numbers_in(text: str) -> Iterable[str]:
    return (number for pattern in _NUMBERS for number in pattern.findall(text))


def normalise(text: str) -> list[Candidate]:
    """A number rounded to two places, or the text in lower case; a single character as two texts with
    a space on one side, so that it does not match inside words."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def is_open_match(candidates: Iterable[Candidate], golds: Iterable[str]) -> bool:
    """Whether a candidate contains one of the gold texts or equals one of the gold numbers."""
    wanted = [one for gold in golds for one in normalise(gold)]
    texts = [one for one in wanted if isinstance(one, str)]
    return any(
        any(text in one for text in texts) if isinstance(one, str) else one in wanted
        for one in candidates
    )
