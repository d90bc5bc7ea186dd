"""The loop that writes answers, one token per row and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from blip3o.answering.context import Context, read_text
from blip3o.answering.questions import Sampling
from blip3o.backbone import Backbone

# A batch whose rows have mostly ended is cut down to those that go on.
_SHRINK_BELOW = 0.5
# Tokens that may lie between the last stop text and the end of what is looked at: one character of several bytes can be
# spread over as many tokens.
_MARGIN_TOKENS = 8


@dataclass
class Row:
    """An answer on its way: ``limit`` tokens at most.

    ``ends``: tokens that end it, beside the end of the turn; which one did is ``ended_by``. ``barred``: tokens that it
    cannot hold.
    """

    limit: int
    stop: tuple[str, ...] = ()
    generator: torch.Generator | None = None
    ends: tuple[int, ...] = ()
    barred: tuple[int, ...] = ()
    ids: list[int] = field(default_factory=list)
    ended_by: int | None = None

    def window(self) -> int:
        """How many of the last tokens hold a stop text that has just ended: each token is at least one byte."""
        return max(len(end.encode()) for end in self.stop) + _MARGIN_TOKENS


def decode(
    backbone: Backbone,
    tokenizer: PreTrainedTokenizerBase,
    context: Context,
    states: Tensor,
    rows: Sequence[Row],
    sampling: Sampling,
) -> None:
    """Fill ``rows[i].ids`` until an end token (not kept), a stop text or the limit.

    Args: states (B, D): of the last token that was read. The context is used up.
    """
    device = states.device
    active = list(range(len(rows)))  # the row behind each line of the batch
    done = [False] * len(rows)
    while True:
        logits = backbone.logits(states)
        for line, i in enumerate(active):
            if rows[i].barred:
                logits[line, list(rows[i].barred)] = -torch.inf
        chosen = next_tokens(logits, [rows[i].generator for i in active], sampling)
        for i, token in zip(active, chosen, strict=True):
            if not done[i]:
                done[i] = _take(rows[i], token, tokenizer)
        if all(done):
            return
        going_on = [line for line, i in enumerate(active) if not done[i]]
        if len(going_on) <= _SHRINK_BELOW * len(active):
            context = context.branch(going_on)
            active, chosen = [active[j] for j in going_on], [chosen[j] for j in going_on]
        hidden, context = read_text(backbone, context, [[token] for token in chosen], device)
        states = hidden[:, -1]


def _take(row: Row, token: int, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Add a token to an answer. Returns: whether it ends there."""
    if token == tokenizer.eos_token_id or token in row.ends:
        row.ended_by = token
        return True
    row.ids.append(token)
    if len(row.ids) >= row.limit:
        return True
    if not row.stop:
        return False
    recent = tokenizer.decode(row.ids[-row.window() :], skip_special_tokens=True)
    return any(end in recent for end in row.stop)


def next_tokens(
    logits: Tensor, generators: Sequence[torch.Generator | None], sampling: Sampling
) -> list[int]:
    """One token per row of logits (B, V); a drawn one takes one number from its row's generator."""
    if sampling.is_greedy:
        return logits.argmax(dim=-1).tolist()
    logits = logits.float() / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    shares, order = logits.double().softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    before = shares.cumsum(dim=-1) - shares
    # A token stays while those before it do not reach top_p yet; the first always does.
    shares = shares.masked_fill(before >= sampling.top_p, 0.0)
    sums = shares.cumsum(dim=-1)
    drawn = [torch.rand((), generator=g, dtype=torch.float64) for g in generators]
    aims = torch.stack(drawn).to(sums.device)[:, None] * sums[:, -1:]
    places = (sums <= aims).sum(dim=-1, keepdim=True)
    return order.gather(1, places.clamp(max=order.shape[1] - 1))[:, 0].tolist()
