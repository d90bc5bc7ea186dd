"""Query states of prompts whose first tokens are all the same, behind a backbone that does not learn."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from blip3o.unified import Blip3oModel


class FrozenOpening:
    """Query states of a frozen backbone, whose prompts all begin with the same tokens (the chat template up to the
    caption): these are read once, not with every caption. The same numbers as ``encode_condition``.

    Args: opening (P,): the tokens that every prompt begins with.
    """

    def __init__(self, model: Blip3oModel, opening: Tensor) -> None:
        self.model, self.opening = model, opening
        self._read: list[tuple[Tensor, Tensor]] | None = None

    def condition(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Prompts (B, L), padded on the right, with the opening -> (B, Q, H)."""
        model, skipped = self.model, len(self.opening)
        lengths = attention_mask.sum(dim=1, keepdim=True)
        # the image start token follows each prompt's last one
        ids = F.pad(input_ids, (0, 1)).scatter(1, lengths, model.config.tokens.image_start)
        mask = torch.arange(ids.shape[1], device=ids.device) <= lengths
        positions = torch.arange(ids.shape[1], device=ids.device).expand(len(ids), -1)
        with torch.no_grad():
            cache = self._cache(len(ids))
            rest = model.backbone.embed(ids[:, skipped:])
            model.backbone(rest, mask.long(), positions[:, skipped:], cache=cache)
        queries = model.queries(len(ids)).to(rest.dtype)
        count = queries.shape[1]
        seen = torch.cat([mask, mask.new_ones(len(ids), count)], dim=1).long()
        places = lengths + 1 + torch.arange(count, device=ids.device)
        states: Tensor = model.backbone(queries, seen, places, cache=cache).hidden_states
        return states

    def _cache(self, batch: int) -> DynamicCache:
        backbone, device = self.model.backbone, self.model.queries.latent_queries.device
        if self._read is None:
            ids = self.opening[None].to(device)
            places = torch.arange(ids.shape[1], device=device)[None]
            read = backbone(backbone.embed(ids), torch.ones_like(ids), places, use_cache=True).cache
            self._read = [(layer.keys, layer.values) for layer in read.layers]
        cache = DynamicCache(config=backbone.text_config)
        for number, (keys, values) in enumerate(self._read):
            cache.update(
                keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1), number
            )
        return cache
