"""The backbone learns to say of an edit what it says of the caption of its result.

The generator draws what a dense caption says. An edit's query states reach it through a picture and an instruction
instead, and next-token loss alone leaves those states untaught: what is asked for arrives there, what has to stay does
not. So they are regressed on the states that the model, as it was, has for the dense caption of the scene to be drawn;
so are the turns of dialogues that end in a picture. States of captions are held where they were, and the generator goes
on with what it has learned. Queries and generator do not change.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from blip3o.stickers import SceneConfig, make_scene
from blip3o.stickers.captions import long_caption
from blip3o.train.condition_cache import CaptionConditions
from blip3o.train.edit_data import PatchesOf, PictureTurnBatch, condition_of, pad_right
from blip3o.train.packed_chats import PackedBatch, PackedUnderstandingStage
from blip3o.train.stages import freeze
from blip3o.train.world_data import PROMPTS, caption_of
from blip3o.unified import Blip3oModel

TurnBatches = Callable[[int], PictureTurnBatch | None]


@dataclass
class AlignmentBatch:
    """Packed conversations; and, with the states (B, Q, H) that are wanted: prompts (ids and mask, B x L) in groups of
    similar length, and chats whose next turn is a picture."""

    ids: list[str]
    talks: Sequence[PackedBatch | None]
    prompts: list[tuple[Tensor, Tensor, Tensor]]
    turns: list[tuple[PictureTurnBatch, Tensor]]


class AlignmentStage:
    """Understanding goes on, and query states are regressed: loss = understanding + ``weight`` x (unexplained variance
    of the captions' states + that of the turns').

    Args: model: backbone and queries; its head is not used. captions: prompts of a step, from scenes ``first`` on.
        turns: builders of chats that end in a picture; their batches must name the scenes.
    """

    name = "alignment"
    GROUPS = 2  # of prompts by length: short ones are not padded to dense captions

    def __init__(
        self,
        model: Blip3oModel,
        tokenizer: PreTrainedTokenizerBase,
        world: SceneConfig,
        understanding: PackedUnderstandingStage,
        turns: Sequence[TurnBatches],
        patches_of: PatchesOf,
        *,
        captions: int = 20,
        first: int = 0,
        weight: float = 2.0,
    ) -> None:
        self.modules: Mapping[str, nn.Module] = understanding.modules
        self.model, self.tokenizer, self.world = model, tokenizer, world
        self.understanding, self.turns = understanding, turns
        self.captions, self.first, self.weight = captions, first, weight
        self.states_of_turn = condition_of(model, patches_of)
        teacher = freeze(copy.deepcopy(model)).eval()
        self.frozen = [teacher]
        self.wanted_of = CaptionConditions(teacher, tokenizer)

    def batch(self, index: int) -> AlignmentBatch:
        rng = np.random.default_rng([index, 53])
        start = self.first + index * self.captions
        scenes = [make_scene("train", start + i, self.world) for i in range(self.captions)]
        texts = sorted((caption_of(scene, float(rng.random())) for scene in scenes), key=len)
        prompts = []
        for part in np.array_split(np.arange(len(texts)), self.GROUPS):
            group = [texts[i] for i in part]
            wanted = self.wanted_of(group).float()
            asked = pad_right(self.tokenizer, [PROMPTS.generation(text) for text in group])
            prompts.append((*asked, wanted))
        found = [turn for turn in (builder(index) for builder in self.turns) if turn is not None]
        turns = [
            (turn, self.wanted_of([long_caption(scene) for scene in turn.scenes]).float())
            for turn in found
        ]
        talks = self.understanding.batch(index)
        ids = [name for part in (*talks, *found) if part is not None for name in part.ids]
        return AlignmentBatch(ids, talks, prompts, turns)

    def loss(
        self, batch: AlignmentBatch, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        terms, numbers = self.understanding.loss(batch.talks, generator)
        told = [(self.model.encode_condition(ids, mask), wanted) for ids, mask, wanted in batch.prompts]
        shown = [(self.states_of_turn(turn), wanted) for turn, wanted in batch.turns]
        spread = torch.cat([wanted for _, wanted in told]).var(dim=0).mean()
        total: Any = sum(terms.values())
        for name, pairs in (("captions", told), ("turns", shown)):
            if pairs:
                states, wanted = (torch.cat(parts) for parts in zip(*pairs, strict=True))
                unexplained = (states.float() - wanted).square().mean() / spread
                total = total + self.weight * unexplained
                numbers[name] = unexplained.item()
        return total, numbers
