"""Everything that ends in a picture, in one batch: captions to draw, edits of a shown picture, turns of a dialogue.

Captions come with cached features; the others are drawn and encoded as they are met. Every kind is padded by itself, so
short captions do not pay for the picture tokens of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from blip3o.train.dialogue_data import Dialogues
from blip3o.train.edit_data import EditPairs, PatchesOf, PictureTurnBatch, condition_of
from blip3o.train.feature_cache import FeatureBatch
from blip3o.train.world_data import PROMPTS
from blip3o.unified import Blip3oModel


@dataclass
class PictureMixBatch:
    """features (B, C, h, w) of all targets: those of ``captions`` first, then those of each of ``turns``."""

    ids: list[str]
    features: Tensor
    captions: list[str]
    turns: list[PictureTurnBatch]


class PictureMix:
    """Batches of captions, edits and dialogues; a function of the step, as each of its sources is."""

    def __init__(
        self,
        captions: Callable[[int], FeatureBatch],
        edits: EditPairs | None = None,
        dialogues: Dialogues | None = None,
    ) -> None:
        self.captions, self.edits, self.dialogues = captions, edits, dialogues

    def __call__(self, step: int) -> PictureMixBatch:
        drawn = self.captions(step)
        turns = [self.edits(step)] if self.edits is not None else []
        if self.dialogues is not None and (last := self.dialogues.pictures(step)) is not None:
            turns.append(last)
        features = [drawn.features]
        for turn in turns:
            if turn.features is None:
                raise ValueError("edits and dialogues need features_of, the target encoder")
            features.append(turn.features)
        ids = drawn.ids + [name for turn in turns for name in turn.ids]
        return PictureMixBatch(ids, torch.cat(features), drawn.captions, turns)


def condition_of_mix(
    model: Blip3oModel, tokenizer: PreTrainedTokenizerBase, patches_of: PatchesOf
) -> Callable[[PictureMixBatch], Tensor]:
    """Query states (B, Q, H) in the order of a mixed batch's features."""
    turn_states = condition_of(model, patches_of)

    def states(batch: PictureMixBatch) -> Tensor:
        texts = [PROMPTS.generation(caption) for caption in batch.captions]
        ids = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        ids = ids.to(batch.features.device)
        drawn = model.encode_condition(ids["input_ids"], ids["attention_mask"])
        return torch.cat([drawn, *(turn_states(turn) for turn in batch.turns)])

    return states
