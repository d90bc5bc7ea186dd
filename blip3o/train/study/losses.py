"""What the study's phases learn: understanding alone, pictures alone on a frozen backbone, or both at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from blip3o.train.frozen_opening import FrozenOpening
from blip3o.train.nano_parts import vlm_of
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
        backbone_share: float = 1.0,
    ) -> None:
        self.modules: Mapping[str, nn.Module] = {"model": model}
        self.model, self.captions, self.draws = model, captions, draws
        self.opening, self.backbone_share = opening, backbone_share
        self.texts, self.patches_of, self.text_weight = texts, patches_of, text_weight

    def rate_share(self, name: str) -> float:
        """Of the learning rate: a pretrained backbone learns more slowly than what is new."""
        return self.backbone_share if name.startswith("model.backbone.") else 1.0

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
                assert self.patches_of is not None
                own, log = text_terms(
                    vlm_of(self.model), tuple(texts), self.patches_of, self.text_weight
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
