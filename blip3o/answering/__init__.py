"""Questions, with or without pictures -> answers in text, or log-likelihoods of given answers.

    questions  what a user asks, and how answers end
    prompts    questions as the backbone reads them: token ids, and how many of them another question may share
    batches    which questions go through together: of similar length, those about one picture side by side, within a
               budget of tokens that shrinks when memory runs out
    context    what has been read so far: a key/value cache that rows branch off from
    decode     the loop that writes answers, greedy or drawn
    choices    the same contexts, continued by given answers
    engine     all of it put together

Dimension letters, in all of these: B rows, L tokens, S tokens in the cache, D width, V vocabulary.
"""

from __future__ import annotations

from blip3o.answering.batches import Batching
from blip3o.answering.engine import Answers
from blip3o.answering.questions import (
    MAX_NEW_TOKENS,
    ChoiceScores,
    Question,
    Sampling,
)

__all__ = ["MAX_NEW_TOKENS", "Answers", "Batching", "ChoiceScores", "Question", "Sampling"]
