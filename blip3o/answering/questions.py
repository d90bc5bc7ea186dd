"""What a user asks, and what comes back. No tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from blip3o.errors import ConfigError, DataError
from blip3o.settings import check_count

MAX_NEW_TOKENS = 128


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is taken: the likeliest (``temperature`` 0), or drawn.

    ``temperature`` divides the logits; of what is left, ``top_k`` keeps the k likeliest tokens and then ``top_p`` the
    fewest whose probabilities sum to p. Names and meanings are those of transformers' ``generate``.
    Raises: ConfigError.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        if not _is_number(self.temperature) or self.temperature < 0:
            raise ConfigError(
                f"temperature must be a finite number of at least 0 (0: the likeliest token), got {self.temperature!r}"
            )
        if not _is_number(self.top_p) or not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be above 0 and at most 1, got {self.top_p!r}")
        if self.top_k is not None:
            check_count("top_k", self.top_k)

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0


@dataclass(frozen=True, eq=False)
class Question:
    """``generator``: where a drawn answer's random numbers come from, one per token; on the CPU."""

    text: str
    pictures: Sequence[Image.Image] = ()
    max_new_tokens: int = MAX_NEW_TOKENS
    stop: tuple[str, ...] = ()
    generator: torch.Generator | None = None


@dataclass(frozen=True)
class ChoiceScores:
    """Of one question, one entry per choice, in their order.

    ``log_likelihoods``: ln p(choice | question), summed over its tokens. ``num_tokens``: how many those are.
    ``is_greedy``: whether each of its tokens is the likeliest one at its place.
    """

    log_likelihoods: tuple[float, ...]
    num_tokens: tuple[int, ...]
    is_greedy: tuple[bool, ...]

    @property
    def best(self) -> int:
        """Place of the likeliest choice; the first of equals."""
        return max(range(len(self.log_likelihoods)), key=lambda i: (self.log_likelihoods[i], -i))

    @property
    def best_per_token(self) -> int:
        """Place of the choice with the highest mean log-likelihood per token."""
        means = [v / n for v, n in zip(self.log_likelihoods, self.num_tokens, strict=True)]
        return max(range(len(means)), key=lambda i: (means[i], -i))


def stops_of(stop: Any, count: int) -> list[tuple[str, ...]]:
    """Stop texts of ``count`` questions: a list of texts for all, or a list of such lists, one per question.

    Raises: ConfigError.
    """
    if not isinstance(stop, str) and isinstance(stop, Sequence):
        if all(_is_stop(one) for one in stop):
            return [tuple(stop)] * count
        are_lists = all(not isinstance(own, str) and isinstance(own, Sequence) for own in stop)
        if are_lists and len(stop) == count and all(_is_stop(one) for own in stop for one in own):
            return [tuple(own) for own in stop]
    raise ConfigError(
        f"stop must be a list of texts, none of them empty, or one such list per question; got {stop!r}"
    )


def limits_of(limit: Any, count: int) -> list[int]:
    """Longest answers of ``count`` questions: one number for all, one per question, or None for the default."""
    limits = list(limit) if isinstance(limit, Sequence) else [limit] * count
    if len(limits) != count:
        raise ConfigError(f"{count} questions need one max_new_tokens or {count}, got {len(limits)}")
    limits = [MAX_NEW_TOKENS if one is None else one for one in limits]
    for one in limits:
        check_count("max_new_tokens", one)
    return limits


def checked_choices(choices: Any, count: int) -> list[tuple[str, ...]]:
    """Choices of ``count`` questions: a list of texts for all, or one such list per question. Raises: DataError."""
    if not isinstance(choices, str) and isinstance(choices, Sequence) and choices:
        is_shared = isinstance(choices[0], str)
        found = [choices] * count if is_shared else list(choices)
        if len(found) == count and all(map(_are_choices, found)):
            return [tuple(own) for own in found]
    raise DataError(
        "choices must be a list of texts, none of them empty, for all questions, or one such list per question; "
        f"got {choices!r}"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_stop(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _are_choices(own: Any) -> bool:
    return not isinstance(own, str) and isinstance(own, Sequence) and bool(own) and all(map(_is_stop, own))
