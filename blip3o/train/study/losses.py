"""What the study's phases learn: understanding alone, pictures alone on a frozen backbone, or both at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache

from blip3o.train.packed_chats import PackedBatch, packed_loss
from blip3o.train.phases import phase
from blip3o.train.study.data import CaptionBatch
from blip3o.unified import Blip3oModel

Patches = Callable[[Tensor], tuple[Tensor, Tensor]]
TextBatches = Callable[[int], tuple[PackedBatch | None, PackedBatch | None]]
SHORT_TOKENS = 50  # captions up to this length are read together, longer ones apart
TERMS = ("seen", "told")  # rows with a picture, rows of text


def text_terms(
    backbone: nn.Module,
    batch: tuple[PackedBatch | None, PackedBatch | None],
    patches_of: Patches,
    weight: float = 1.0,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Next-token losses of both kinds of rows, times ``weight``, and the log's numbers."""
    terms, numbers = {}, {}
    for name, part in zip(TERMS, batch, strict=True):
        if part is None:
            continue
        loss, own = packed_loss(backbone, part, patches_of)
        terms[name], numbers[name] = weight * loss, loss.item()
        numbers |= {f"{name}_{key}": value for key, value in own.items()}
    return terms, numbers


class UnderstandingPhase:
    """The backbone on packed conversations, before the generator is there."""

    name = "understanding"

    def __init__(self, backbone: nn.Module, batches: TextBatches, patches_of: Patches) -> None:
        self.modules: Mapping[str, nn.Module] = {"backbone": backbone}
        self.backbone, self.batch, self.patches_of = backbone, batches, patches_of

    def loss(
        self, batch: tuple[PackedBatch | None, PackedBatch | None], generator: torch.Generator
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        return text_terms(self.backbone, batch, self.patches_of)

    def counts(self, batch: tuple[PackedBatch | None, PackedBatch | None]) -> dict[str, float]:
        return {name: 1.0 for name, part in zip(TERMS, batch, strict=True) if part is not None}


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


class GeneratorPhase:
    """Queries and generator on pictures; with ``texts`` the backbone learns from both, joint training.

    What is drawn does not depend on the cell: noise levels and dropped conditions come first in the stream, then the
    noise, whose size is the target's.
    """

    name = "generator"

    def __init__(
        self,
        model: Blip3oModel,
        captions: Callable[[int], CaptionBatch],
        draws: int = 1,
        texts: TextBatches | None = None,
        patches_of: Patches | None = None,
        text_weight: float = 1.0,
        opening: FrozenOpening | None = None,
    ) -> None:
        self.modules: Mapping[str, nn.Module] = {"model": model}
        self.model, self.captions, self.draws = model, captions, draws
        self.opening = opening
        self.texts, self.patches_of, self.text_weight = texts, patches_of, text_weight

    def batch(self, index: int) -> tuple[Any, ...]:
        pictures = self.captions(index)
        return (pictures,) if self.texts is None else (pictures, *self.texts(index))

    def loss(
        self, batch: tuple[Any, ...], generator: torch.Generator
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        pictures, *texts = batch
        with phase("backbone"):
            condition = self.condition(pictures)
        with phase("generator"):
            loss = self.image_loss(condition, pictures.features, generator)
        terms, numbers = {"image": loss}, {"image": loss.item()}
        if texts:
            with phase("text"):
                own, log = text_terms(
                    self.model.backbone.vlm, tuple(texts), self.patches_of, self.text_weight
                )
            terms |= own
            numbers |= log
        return terms, numbers

    def counts(self, batch: tuple[Any, ...]) -> dict[str, float]:
        names = ("image", *TERMS)
        return {name: 1.0 for name, part in zip(names, batch, strict=False) if part is not None}

    def condition(self, batch: CaptionBatch) -> Tensor:
        """Query states (B, Q, H): short captions, which stand first, and long ones apart."""
        lengths = batch.attention_mask.sum(dim=1)
        n = int((lengths <= SHORT_TOKENS).sum())
        encode = self.model.encode_condition if self.opening is None else self.opening.condition
        found = []
        for part in (slice(0, n), slice(n, len(lengths))):
            if part.stop > part.start:
                length = int(lengths[part].max())
                ids, mask = batch.input_ids[part, :length], batch.attention_mask[part, :length]
                found.append(encode(ids, mask))
        return torch.cat(found)

    def image_loss(self, condition: Tensor, clean: Tensor, generator: torch.Generator) -> Tensor:
        """The objective of the model, on ``draws`` noises of every picture."""
        if self.model.config.objective == "mse":
            return self.model(target=clean, condition=condition).loss
        count, flow = self.draws * len(clean), self.model.config.flow
        u = torch.rand(count, generator=generator)
        drop = torch.rand(count, generator=generator) < flow.condition_dropout
        clean = clean.repeat(self.draws, 1, 1, 1)
        noise = torch.randn(clean.shape, generator=generator)
        condition = condition.repeat(self.draws, 1, 1)
        return self.model(target=clean, condition=condition, u=u, noise=noise, drop=drop).loss
