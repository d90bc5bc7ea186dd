"""From what a judge said to an answer, or to the reason why there is none."""

from __future__ import annotations

from evals.errors import shown

_AROUND = " \t\r\n.,;:!?\"'`*_()[]"


class UnreadableAnswerError(ValueError):
    """A judge's text that is no answer of the asked form. The picture is then unscored, with this as its reason."""


def yes_or_no(text: str) -> str:
    """ "yes" or "no", if that is all a text says: case, punctuation and markup around the word do not matter.

    Strict on purpose: "Yes, but it is blue" means no, and nobody should guess.
    Raises: UnreadableAnswerError for anything else.

    >>> yes_or_no("**Yes.**")
    'yes'
    """
    word = text.strip(_AROUND).casefold()
    if word not in ("yes", "no"):
        raise UnreadableAnswerError(f"the judge's answer {shown(text)} is neither yes nor no")
    return word


def read_or_error(text: str) -> str | UnreadableAnswerError:
    """`yes_or_no`, with the error in place of the answer."""
    try:
        return yes_or_no(text)
    except UnreadableAnswerError as error:
        return error
