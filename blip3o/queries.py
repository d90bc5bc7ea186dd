"""Learned query tokens that follow the prompt and collect what the picture needs.

Dimension letters: B batch, L tokens, Q queries, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from blip3o.config import TokenConfig
from blip3o.errors import ConfigError


class LatentQueries(nn.Module):
    """``num_queries`` input embeddings shared by all prompts: (1, Q, H), drawn from N(0, 1)."""

    def __init__(self, num_queries: int, hidden_size: int) -> None:
        super().__init__()
        self.latent_queries = nn.Parameter(torch.empty(1, num_queries, hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.latent_queries)

    def forward(self, batch: int) -> Tensor:
        """(batch, Q, H)."""
        return self.latent_queries.expand(batch, -1, -1)


class QueryBatch(NamedTuple):
    """Training sequences with query placeholders, padded on the right.

    input_ids, labels, attention_mask (B, L); query_start (B,): index of each first placeholder.
    """

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor
    query_start: Tensor


def collate_with_queries(
    input_ids: Sequence[Tensor],
    labels: Sequence[Tensor],
    *,
    tokens: TokenConfig,
    num_queries: int,
    max_length: int,
    pad_token_id: int,
) -> QueryBatch:
    """Close each sequence with the image start token and the placeholders of the queries, and pad.

    A sequence longer than ``max_length`` allows loses its last tokens, never the picture's. Labels are -100
    on padding; at the picture's tokens they equal the ids. Raises: ConfigError if no prompt token fits.
    """
    room = max_length - num_queries - 1
    if room < 1:
        raise ConfigError(
            f"max_length {max_length} leaves no room for a prompt beside {num_queries} queries; "
            f"use at least {num_queries + 2}"
        )
    tail = torch.tensor([tokens.image_start, *[tokens.query] * num_queries])
    rows = [torch.cat([ids[:room], tail]) for ids in input_ids]
    wanted = [torch.cat([label[:room], tail]) for label in labels]
    ids = pad_sequence(rows, batch_first=True, padding_value=pad_token_id)
    return QueryBatch(
        ids,
        pad_sequence(wanted, batch_first=True, padding_value=-100),
        (ids != pad_token_id).long(),
        torch.tensor([len(row) - num_queries for row in rows]),
    )
