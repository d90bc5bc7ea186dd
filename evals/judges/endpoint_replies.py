"""What a chat completion says: its text, or the probability of its first word."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from evals.errors import shown
from evals.judges.parse import UnreadableAnswerError


def read_probability(reply: Mapping[str, Any], answer: str) -> float:
    """Summed probability of the first tokens that are ``answer``, spaces around them aside.

    Raises: UnreadableAnswerError where the reply holds no log-probabilities.
    """
    try:
        top = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        found = [(str(one["token"]), float(one["logprob"])) for one in top]
    except (KeyError, IndexError, TypeError, ValueError):
        raise UnreadableAnswerError(
            "the endpoint's reply holds no log-probabilities (logprobs, top_logprobs): choose a model that gives them"
        ) from None
    total = sum(math.exp(logprob) for token, logprob in found if token.strip() == answer)
    if not found or not 0 <= total <= 1 + 1e-3:
        raise UnreadableAnswerError(f"the endpoint's log-probabilities make no probability (sum {total:g})")
    return min(1.0, total)


def read_message(reply: Mapping[str, Any]) -> str:
    """The text of a chat completion. Raises UnreadableAnswerError for a refusal, or where there is none."""
    try:
        choice = reply["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise UnreadableAnswerError("the endpoint's reply holds no message") from None
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    if refusal and not content:
        raise UnreadableAnswerError(f"the endpoint's model refuses to answer: {shown(refusal)}")
    if not isinstance(content, str) or not content.strip():
        cut = choice.get("finish_reason") == "length"
        more = ": raise judge.args.body.max_tokens" if cut else ""
        raise UnreadableAnswerError(f"the endpoint's reply holds no text{more}")
    return content
