"""Edits of sticker scenes as training batches: a picture and an instruction in, the changed picture out.

The prompt is the one that ``Blip3oPipeline.edit`` makes. Every batch is a function of its step, so a run resumes by
counting on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from blip3o.prompts import IMAGE_PAD, RECONSTRUCT, Prompts
from blip3o.stickers import Scene, SceneConfig, render
from blip3o.stickers.edits import EDIT_KINDS, EditPair, make_edit
from blip3o.train.world_data import PROMPTS, to_pixels
from blip3o.unified import Blip3oModel

PatchesOf = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass
class PictureTurnBatch:
    """Chats whose next turn is a picture.

    input_ids, attention_mask (B, L): the chat up to the image start token, padded on the right, with the shown
    pictures' placeholders in place. shown (P, 3, H, W): those pictures in order; target (B, 3, H, W): the pictures to
    draw, of ``scenes``; both in [-1, 1]. features (B, C, h, w) of the targets, where the builder was given the target
    encoder.
    """

    ids: list[str]
    input_ids: Tensor
    attention_mask: Tensor
    shown: Tensor | None
    target: Tensor
    features: Tensor | None = None
    captions: list[str] = field(default_factory=list)
    pairs: list[EditPair | None] = field(default_factory=list)
    scenes: list[Scene] = field(default_factory=list)


def vision_block(n_image_tokens: int) -> str:
    """A shown picture in a prompt, with a placeholder for each of its tokens."""
    return f"<|vision_start|>{IMAGE_PAD * n_image_tokens}<|vision_end|>"


def pad_right(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, L) of texts whose special tokens are meant."""
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    ids = torch.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
    return ids, mask


class EditPairs:
    """Edit pairs of one split, for ``GenerationStage`` or any loss on (chat, target picture).

    Args: kinds: of edits, equally often. repeat_share: share of chats that ask to reconstruct the shown picture, which
        teaches what has to stay. features_of: the frozen target encoder, pixels (B, 3, H, W) -> features.
    """

    def __init__(
        self,
        split: str,
        config: SceneConfig,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        n_image_tokens: int,
        *,
        first: int = 0,
        kinds: tuple[str, ...] = EDIT_KINDS,
        repeat_share: float = 0.0,
        prompts: Prompts = PROMPTS,
        features_of: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.split, self.config, self.tokenizer = split, config, tokenizer
        self.batch_size, self.first, self.kinds = batch_size, first, kinds
        self.repeat_share, self.prompts, self.features_of = repeat_share, prompts, features_of
        self.block = vision_block(n_image_tokens)

    def __call__(self, step: int) -> PictureTurnBatch:
        start = self.first + step * self.batch_size
        pairs = [
            make_edit(self.split, start + i, self.config, self.kinds)
            for i in range(self.batch_size)
        ]
        repeats = np.random.default_rng([step, 37]).random(self.batch_size) < self.repeat_share
        wishes = [
            RECONSTRUCT if again else pair.instruction
            for again, pair in zip(repeats, pairs, strict=True)
        ]
        after = [
            pair.source if again else pair.target
            for again, pair in zip(repeats, pairs, strict=True)
        ]
        ids, mask = pad_right(
            self.tokenizer, [self.prompts.generation(wish, self.block) for wish in wishes]
        )
        target = to_pixels([render(scene).image for scene in after])
        return PictureTurnBatch(
            ids=[f"{self.split}/edit/{start + i}" for i in range(self.batch_size)],
            input_ids=ids,
            attention_mask=mask,
            shown=to_pixels([render(pair.source).image for pair in pairs]),
            target=target,
            features=features_without_grad(self.features_of, target),
            captions=wishes,
            pairs=[None if again else pair for again, pair in zip(repeats, pairs, strict=True)],
            scenes=after,
        )


@torch.no_grad()
def features_without_grad(
    features_of: Callable[[Tensor], Tensor] | None, pixels: Tensor
) -> Tensor | None:
    return None if features_of is None else features_of(pixels)


def condition_of(model: Blip3oModel, patches_of: PatchesOf) -> Callable[[PictureTurnBatch], Tensor]:
    """Query states (B, Q, H) of such batches, as ``GenerationStage`` wants them.

    Args: patches_of: pixels (P, 3, H, W) in [-1, 1] -> patch rows and grids of the backbone's vision tower.
    """

    def states(batch: PictureTurnBatch) -> Tensor:
        shown = () if batch.shown is None else patches_of(batch.shown)
        return model.encode_condition(batch.input_ids, batch.attention_mask, *shown)

    return states
