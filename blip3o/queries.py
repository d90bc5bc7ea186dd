"""Learned query tokens that follow the prompt and collect what the picture needs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
