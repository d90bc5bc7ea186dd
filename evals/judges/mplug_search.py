"""mPLUG's beam search, with what is peculiar to it, and the probability of a given answer.

As in modelscope's `mplug/predictor.py`: scores are sums of log-probabilities over ((5 + length) / 6) ** 0.6; a
hypothesis that has ended is noted and stays among the beams all the same; the search for a question is over when its
best beam ends, and all its beams then count as ended.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ALPHA = 0.6

NextLogits = Callable[[Tensor, Tensor], Tensor]
"""(tokens so far (Q, B, L), which questions (Q,)) -> logits of the next token (Q, B, words)."""


def beam_search(
    next_logits: NextLogits,
    count: int,
    *,
    beams: int,
    start: int,
    end: int,
    min_length: int,
    max_length: int,
    device: torch.device | str = "cpu",
) -> list[list[int]]:
    """The best token sequence of each of ``count`` questions, with the marks of beginning and end in it."""
    alive = torch.full((count, beams, 1), start, device=device)
    total = torch.tensor([0.0] + [-torch.inf] * (beams - 1), device=device).repeat(count, 1)
    rows = torch.arange(count, device=device)
    ended: list[list[tuple[float, list[int]]]] = [[] for _ in range(count)]
    best: list[list[int]] = [[] for _ in range(count)]
    for step in range(max_length):
        logs = torch.log(next_logits(alive, rows).float().softmax(-1))
        if step < min_length:
            logs[..., end] = -1e20
        penalty = ((5.0 + step + 1) / 6.0) ** ALPHA
        words = logs.shape[-1]
        scores, place = ((logs + total[..., None]) / penalty).flatten(1).topk(beams)
        total = scores * penalty
        origin, token = place // words, place % words
        alive = torch.cat([alive.gather(1, origin[..., None].expand(-1, -1, alive.shape[2])), token[..., None]], 2)
        is_ended = (token == end) | (step + 1 == max_length)
        is_over = is_ended[:, 0]
        for number, beam in (is_ended | is_over[:, None]).nonzero().tolist():
            ended[int(rows[number])].append((float(scores[number, beam]), alive[number, beam].tolist()))
        for number in is_over.nonzero().flatten().tolist():
            row = int(rows[number])
            best[row] = max(ended[row], key=lambda found: found[0])[1]  # the earliest of equal ones
        going = ~is_over
        if not going.any():
            break
        alive, total, rows = alive[going], total[going], rows[going]
    return best


def likelihoods(logits: Tensor, answer: Tensor) -> Tensor:
    """Product of the probabilities of an answer's tokens (T,), each after those before it; logits (Q, T, words)."""
    wanted = answer[None, :, None].expand(len(logits), -1, 1)
    return logits.float().log_softmax(-1).gather(2, wanted).sum((1, 2)).exp()
