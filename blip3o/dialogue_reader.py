"""A conversation as the backbone reads it: a context that grows, and what was read of it so far.

Dimension letters: L tokens of the conversation, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from blip3o.answering.context import Context, Piece, read
from blip3o.answering.decode import Row, decode
from blip3o.answering.questions import Sampling
from blip3o.unified import Blip3oModel


@dataclass(frozen=True)
class TokenContext:
    """The conversation as the backbone reads it: ids, input embeddings (1, L, H), and the pictures' grids."""

    ids: tuple[int, ...] = ()
    embeddings: Tensor | None = None
    grids: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def extended(
        self, ids: Sequence[int], embeddings: Tensor, grids: tuple[Tensor, ...] = ()
    ) -> TokenContext:
        before = [] if self.embeddings is None else [self.embeddings]
        return TokenContext(
            (*self.ids, *ids), torch.cat([*before, embeddings], dim=1), (*self.grids, *grids)
        )


class Reader:
    """What the backbone has read of a growing context, under one rule of positions.

    Drawing counts tokens plainly and answering spreads pictures over M-RoPE's axes, as the released models do; keys
    carry their positions, so each rule has a cache of its own.
    """

    def __init__(self, model: Blip3oModel, has_own_positions: bool) -> None:
        self.model, self.has_own_positions = model, has_own_positions
        self.past: Context | None = None

    @property
    def length(self) -> int:
        return 0 if self.past is None else self.past.mask.shape[1]

    def read(self, context: TokenContext) -> Tensor:
        """Bring the cache up to the end of the context: the last token's state (1, H)."""
        # The state of a token is not kept: where nothing is new, the last one is read again.
        self.crop(len(context) - 1)
        assert context.embeddings is not None
        new = context.embeddings[:, self.length :]
        mask = torch.ones(new.shape[:2], dtype=torch.long, device=new.device)
        piece = Piece(new, mask, self.positions(context)[..., self.length :])
        hidden, self.past = read(self.model.backbone, piece, self.past)
        return hidden[:, -1]

    def positions(self, context: TokenContext) -> Tensor:
        """(1, L) plain, or the backbone's own (..., 1, L)."""
        assert context.embeddings is not None
        device = context.embeddings.device
        if not self.has_own_positions:
            return torch.arange(len(context), device=device)[None]
        ids = torch.tensor([context.ids], device=device)
        grid = torch.cat(context.grids).to(device) if context.grids else None
        return self.model.backbone.own_positions(ids, torch.ones_like(ids), grid)

    def forward_and_forget(self, embeddings: Tensor) -> Tensor:
        """Hidden states (1, n, H) of tokens after the context, at plain positions, that no later turn sees."""
        assert self.past is not None
        start, length = self.length, embeddings.shape[1]
        positions = torch.arange(start, start + length, device=embeddings.device)[None]
        states, _ = read(self.model.backbone, Piece(embeddings, torch.ones_like(positions), positions), self.past)
        self.crop(start)
        return states

    def answer_and_forget(self, context: TokenContext, row: Row, tokenizer: PreTrainedTokenizerBase) -> None:
        """Fill ``row`` with the likeliest answer after the context, which no later turn sees as it was written."""
        state = self.read(context)
        assert self.past is not None
        decode(self.model.backbone, tokenizer, self.past, state, [row], Sampling())
        self.crop(len(context))

    def crop(self, length: int) -> None:
        """Forget what was read after the first ``length`` tokens."""
        if self.past is None:
            return
        if (excess := self.past.cache.get_seq_length() - length) > 0:
            self.past.cache.crop(-excess)
        if length < self.length:
            # the next position is counted from what is read next, which always comes after all that is left
            self.past = Context(
                self.past.cache, self.past.mask[:, :length], torch.zeros_like(self.past.next_position)
            )
