"""Log-likelihoods of given answers after contexts that have been read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blip3o.answering.context import Context, read_text
from blip3o.answering.questions import ChoiceScores
from blip3o.backbone import Backbone

# Rows of logits that exist at once: with a vocabulary of 152,000 a row takes 0.6 MB in float32.
_LOGIT_ROWS = 64


def score_choices(
    backbone: Backbone, context: Context, states: Tensor, choices: Sequence[Sequence[Sequence[int]]]
) -> list[ChoiceScores]:
    """Scores of the choices (token ids, at least one each) of every row.

    The first token of each choice needs nothing but the question; only longer ones are read, together, each on a branch
    of its question's context. Args: states (B, D): of the questions' last tokens. The context is used up.
    """
    first = _token_scores(backbone, states, [[c[0] for c in own] for own in choices])
    long = [(row, place) for row, own in enumerate(choices) for place, c in enumerate(own) if len(c) > 1]
    rest: dict[tuple[int, int], list[tuple[float, bool]]] = {}
    if long:
        tokens = [choices[row][place] for row, place in long]
        branched = context.branch([row for row, _ in long])
        hidden, _ = read_text(backbone, branched, [ids[:-1] for ids in tokens], states.device)
        ends = [hidden[line, hidden.shape[1] - len(ids) + 1 :] for line, ids in enumerate(tokens)]
        wanted = [[token] for ids in tokens for token in ids[1:]]
        found = iter(_token_scores(backbone, torch.cat(ends), wanted))
        rest = {key: [next(found)[0] for _ in ids[1:]] for key, ids in zip(long, tokens, strict=True)}
    scores = []
    for row, own in enumerate(choices):
        parts = [[first[row][place], *rest.get((row, place), ())] for place in range(len(own))]
        scores.append(
            ChoiceScores(
                tuple(sum(value for value, _ in part) for part in parts),
                tuple(map(len, own)),
                tuple(all(is_best for _, is_best in part) for part in parts),
            )
        )
    return scores


def _token_scores(
    backbone: Backbone, states: Tensor, wanted: Sequence[Sequence[int]]
) -> list[list[tuple[float, bool]]]:
    """(ln p, whether it is the likeliest) of the wanted next tokens after each state (rows, D)."""
    found = []
    for start in range(0, len(states), _LOGIT_ROWS):
        logits = backbone.logits(states[start : start + _LOGIT_ROWS]).float()
        scores, best = logits.log_softmax(dim=-1).cpu(), logits.argmax(dim=-1).tolist()
        for line, tokens in enumerate(wanted[start : start + _LOGIT_ROWS]):
            found.append([(float(scores[line, t]), t == best[line]) for t in tokens])
    return found
