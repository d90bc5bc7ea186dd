"""What has been read so far: a key/value cache whose rows branch off into others.

Rows have holes where padding was; a mask leaves them out and positions do not count them, so what a row attends to is
the same in any batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from blip3o.backbone import Backbone


@dataclass
class Context:
    """``mask`` (B, S): 1 where a token was read, 0 at padding. ``next_position`` (B,): of the token to come."""

    cache: Any
    mask: Tensor
    next_position: Tensor

    def __len__(self) -> int:
        return len(self.mask)

    def branch(self, rows: Sequence[int]) -> Context:
        """Rows to go on from, repeated or left out as ``rows`` says. The cache is taken over: use the result alone."""
        if list(rows) != list(range(len(self))):
            index = torch.tensor(rows, device=self.mask.device)
            self.cache.batch_select_indices(index)
            self.mask, self.next_position = self.mask[index], self.next_position[index]
        return self


@dataclass(frozen=True)
class Piece:
    """Tokens to read next, padded on the left: ``embeddings`` (B, L, D), ``mask`` (B, L), ``positions`` (..., B, L)."""

    embeddings: Tensor
    mask: Tensor
    positions: Tensor


def read(
    backbone: Backbone, piece: Piece, context: Context | None = None
) -> tuple[Tensor, Context]:
    """Read a piece after a context (None: as the first): its hidden states (B, L, D) and the context with it."""
    mask = piece.mask if context is None else torch.cat([context.mask, piece.mask], dim=1)
    output = backbone(
        piece.embeddings,
        mask,
        piece.positions,
        cache=None if context is None else context.cache,
        use_cache=True,
    )
    highest = piece.positions if piece.positions.dim() == 2 else piece.positions.amax(dim=0)
    # Padding may carry any position: only tokens count.
    following = highest.masked_fill(piece.mask == 0, -1).amax(dim=1) + 1
    if context is not None:
        following = torch.maximum(following, context.next_position)
    return output.hidden_states, Context(output.cache, mask, following)


def read_text(
    backbone: Backbone, context: Context, rows: Sequence[Sequence[int]], device: torch.device
) -> tuple[Tensor, Context]:
    """Read token ids, any number per row, at plain positions after the context."""
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :], mask[i, longest - len(row) :] = torch.tensor(row), 1
    ids, mask = ids.to(device), mask.to(device)
    steps = (mask.cumsum(dim=1) - 1).clamp(min=0)
    piece = Piece(backbone.embed(ids), mask, context.next_position[:, None] + steps)
    return read(backbone, piece, context)
