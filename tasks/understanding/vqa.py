"""Answers of the VQA family: how they are written before comparison, and soft accuracy.

The normalisation of the VQA evaluation (arXiv:1505.00468; EvalAI) as lmms-eval 0.7.3 carries it, with
its oddities, since published figures rest on them: "none" becomes 0, at most 32 full stops are taken
out, and apostrophes are put into words such as "dont", but not into "im". The official evaluator normalises
nothing when all ten gold answers are equal; lmms-eval, followed here, always does.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
ARTICLES = ("a", "an", "the")
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'

_COMMA_IN_NUMBER = re.compile(r"(?<=\d),+(?=\d)")
_FULL_STOP = re.compile(r"\.(?!\d)")
_MAX_FULL_STOPS = 32  # upstream hands a flag of that value to the argument that limits replacements

# Written without one of its apostrophes, each of these gets it back.
_WITH_APOSTROPHES = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't
    mightn't've must've mustn't needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're
    you've
""".split()


def _contractions() -> dict[str, str]:
    table = {
        word[:place] + word[place + 1 :]: word
        for word in _WITH_APOSTROPHES
        for place, character in enumerate(word)
        if character == "'"
    }
    return table | {"somebody'd": "somebodyd"}  # the one that goes the other way


CONTRACTIONS = _contractions()


def strip_punctuation(text: str) -> str:
    """Takes punctuation out, or makes it a space where it stands inside a word.

    It is taken out when a space stands on either side of it anywhere in the text, and all of it when
    the text has a comma between two digits.
    """
    has_number = _COMMA_IN_NUMBER.search(text) is not None
    result = text
    for mark in PUNCTUATION:
        if mark in text:
            is_loose = has_number or f"{mark} " in text or f" {mark}" in text
            result = result.replace(mark, "" if is_loose else " ")
    return _FULL_STOP.sub("", result, count=_MAX_FULL_STOPS)


def plain_words(text: str) -> str:
    """Lower case, number words as digits, no articles, contractions with their apostrophe."""
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


@lru_cache(maxsize=65_536)
def normalise_vqav2(answer: str) -> str:
    """An answer as VQAv2's scorer compares it."""
    return plain_words(strip_punctuation(_one_line(answer)))


@lru_cache(maxsize=65_536)
def normalise_textvqa(answer: str) -> str:
    """An answer as TextVQA's scorer compares it: first lower case, commas and question marks out, and
    "'s" set apart."""
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return plain_words(strip_punctuation(_one_line(text.strip())))


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def soft_accuracy(answer: str, golds: Sequence[Any], text_of: Callable[[Any], str]) -> float:
    """Mean over annotators of min(1, n / 3), n being how many of the *others* gave this answer.

    Args: answer: normalised. golds: one entry per annotator; entries that are equal leave together
    when one of them is left out. text_of: the normalised answer of an entry.
    Returns: 0 to 1. Source: arXiv:1505.00468, section 3.
    """
    is_match = [text_of(gold) == answer for gold in golds]
    if not any(is_match):
        return 0.0
    shares = []
    for gold in golds:
        n = sum(one for one, other in zip(is_match, golds, strict=True) if other != gold)
        shares.append(min(3, n))
    return _mean_of_thirds(tuple(shares))


@lru_cache(maxsize=4096)
def _mean_of_thirds(thirds: tuple[int, ...]) -> float:
    # The exact mean of the rounded thirds, as upstream has it.
    return float(statistics.mean(min(1, third / 3) for third in thirds))
