"""Discrete image tokens as condition, the scheme of BLIP3o-NEXT (arXiv:2510.15857), in place of latent queries.

The language model first writes a picture as codebook entries, one word after another; a second forward over what it
wrote gives the hidden states that condition the generator. The codebook itself, a ``VisualTokenizer`` such as TA-Tok,
is needed in training only, to turn pictures into the words to learn.
Dimension letters: B batch, L prompt tokens, N image tokens, H hidden size, K codebook entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from blip3o.errors import ConfigError, ShapeError


class VisualTokenizer(Protocol):
    """Pictures -> codebook entries."""

    codebook_size: int
    num_tokens: int

    def encode(self, images: Tensor) -> Tensor:
        """Prepared pictures (B, 3, S, S) -> entries (B, N), long."""
        ...


@dataclass(frozen=True, kw_only=True)
class DiscreteTokens:
    """How a picture is spelled in the vocabulary, and how it is sampled.

    Entry k is the word ``first_id + k``; ``scale_id`` opens a picture and its hidden state is part of the condition.
    The sampling defaults are those of BLIP3o-NEXT.
    """

    first_id: int
    codebook_size: int
    num_tokens: int
    scale_id: int
    top_k: int = 1200
    top_p: float = 0.95
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if min(self.codebook_size, self.num_tokens, self.top_k) < 1:
            raise ConfigError(
                "discrete.codebook_size, num_tokens and top_k must be at least 1, got "
                f"{self.codebook_size}, {self.num_tokens}, {self.top_k}"
            )
        if not 0 < self.top_p <= 1 or not self.temperature > 0:
            raise ConfigError(
                "discrete.top_p must be above 0 and at most 1, temperature above 0, got "
                f"{self.top_p} and {self.temperature}"
            )


class DiscreteScheme:
    """Samples image tokens and turns them into a condition, over any ``Backbone``."""

    def __init__(self, backbone: Any, config: DiscreteTokens) -> None:
        self.backbone, self.config = backbone, config

    def _open(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prompts closed by the scale token: ids, mask (B, L + 1), and positions counted per sample."""
        if attention_mask.shape != input_ids.shape or input_ids.ndim != 2:
            raise ShapeError(
                "input_ids and attention_mask must be (batch, tokens), got "
                f"{tuple(input_ids.shape)} and {tuple(attention_mask.shape)}"
            )
        ids = F.pad(input_ids, (0, 1), value=self.config.scale_id)
        mask = F.pad(attention_mask.long(), (0, 1), value=1)
        return ids, mask, (mask.cumsum(dim=1) - 1).clamp(min=0)

    @torch.no_grad()
    def sample(
        self, input_ids: Tensor, attention_mask: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """Entries (B, N) for prompts (B, L), one CPU generator per picture.

        Only the rows of the codebook are scored, so nothing but image tokens can be written. Raises: ShapeError.
        """
        if len(generators) != len(input_ids):
            raise ShapeError(f"{len(input_ids)} prompts need as many generators, got {len(generators)}")
        config, words = self.config, []
        ids, mask, positions = self._open(input_ids, attention_mask)
        output = self.backbone(self.backbone.embed(ids), mask, positions, use_cache=True)
        for _ in range(config.num_tokens):
            logits = self.backbone.logits(output.hidden_states[:, -1])
            logits = logits[:, config.first_id : config.first_id + config.codebook_size].float()
            entry = self._draw(logits, generators)
            words.append(entry)
            if len(words) == config.num_tokens:
                break
            mask = F.pad(mask, (0, 1), value=1)
            positions = positions[:, -1:] + 1
            next_ids = (entry + config.first_id)[:, None]
            output = self.backbone(
                self.backbone.embed(next_ids), mask, positions, cache=output.cache, use_cache=True
            )
        return torch.stack(words, dim=1)

    def _draw(self, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """One entry per row of logits (B, K), by temperature, top-k and nucleus."""
        config = self.config
        values, order = (logits / config.temperature).topk(min(config.top_k, logits.shape[-1]))
        shares = values.softmax(dim=-1)
        # An entry stays while the mass before it is below top_p; the first always does.
        shares = shares.masked_fill(shares.cumsum(dim=-1) - shares >= config.top_p, 0).cpu()
        choices = [
            torch.multinomial(row, 1, generator=generator)
            for row, generator in zip(shares, generators, strict=True)
        ]
        return order.gather(1, torch.stack(choices).to(order.device))[:, 0]

    def condition(self, input_ids: Tensor, attention_mask: Tensor, entries: Tensor) -> Tensor:
        """Hidden states (B, N + 1, H) of the scale token and the entries (B, N), by a forward of its own."""
        count = self.config.num_tokens
        if entries.shape != (len(input_ids), count):
            raise ShapeError(
                f"entries must be ({len(input_ids)}, {count}), got {tuple(entries.shape)}"
            )
        ids, mask, _ = self._open(input_ids, attention_mask)
        ids = torch.cat([ids, entries + self.config.first_id], dim=1)
        mask = F.pad(mask, (0, count), value=1)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        hidden = self.backbone(self.backbone.embed(ids), mask, positions).hidden_states
        return hidden[:, -count - 1 :]

    def loss(self, input_ids: Tensor, attention_mask: Tensor, entries: Tensor) -> Tensor:
        """Cross-entropy of the entries, over the codebook."""
        config, hidden = self.config, self.condition(input_ids, attention_mask, entries)
        logits = self.backbone.logits(hidden[:, :-1])
        logits = logits[..., config.first_id : config.first_id + config.codebook_size].float()
        return F.cross_entropy(logits.flatten(0, 1), entries.flatten())
