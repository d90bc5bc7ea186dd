"""The stages of ``nano`` that learn to draw: on features from disk, then on features and conditions from disk."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from blip3o.stickers import make_scene
from blip3o.storage import file_digest
from blip3o.train.alignment import AlignmentStage
from blip3o.train.condition_cache import (
    CachedConditions,
    CaptionConditions,
    condition_key,
    write_captions,
    write_turns,
)
from blip3o.train.dialogue_data import Dialogues
from blip3o.train.distributed import Processes
from blip3o.train.edit_data import EditPairs, condition_of
from blip3o.train.feature_cache import CachedFeatures, cache_key, read_shards, write_shard
from blip3o.train.nano_config import (
    IMAGE_TOKENS,
)
from blip3o.train.nano_parts import (
    compile_layers,
    model_config,
    open_gates,
    patches_for,
    start_queries,
    vlm_of,
)
from blip3o.train.nano_perception import NanoPerception
from blip3o.train.packed_chats import PackedUnderstandingStage
from blip3o.train.packed_data import PackedConversations
from blip3o.train.picture_mix import PictureMix, condition_of_mix
from blip3o.train.stages import (
    GenerationStage,
    GeneratorStage,
    freeze,
)
from blip3o.unified import Blip3oModel

logger = logging.getLogger(__name__)

CACHE_SHARD = 10_240
CONDITION_SHARD = 4_096
TURN_STEPS = 16  # batches of edits and of dialogues in a shard of conditions
TINTED = ("colors", "color_attr")  # kinds of scenes whose prompts name colours


class NanoGeneration(NanoPerception):
    """Target features, queries and generator, the generator alone."""

    def cache(self) -> None:
        """Target features of the generation scenes."""
        target, key, device = self.target(), self._cache_key(), Processes().device
        target.to(device)

        def features_of(pixels: Tensor) -> Tensor:
            return target(pixels.to(device)).cpu()

        for shard in range(self.recipe.cache_shards):
            write_shard(
                self.folder / "cache", shard, CACHE_SHARD, "train", self.world, features_of, key
            )
            logger.info("cache: shard %d of %d", shard + 1, self.recipe.cache_shards)

    def _cache_key(self) -> str:
        return cache_key("train", self.world, file_digest(self.folder / "target.safetensors"))

    def model(self) -> Blip3oModel:
        """The whole model on the trained backbone; queries and DiT fresh."""
        config = model_config(self.tokenizer())
        torch.manual_seed(self.recipe.generation.seed)
        model = Blip3oModel(config)
        vlm_of(model).load_state_dict(self.understanding().state_dict())
        start_queries(model)
        open_gates(model)
        freeze(model.backbone)
        return model

    def generation(self) -> Blip3oModel:
        model = self.model()
        learned = {"queries": model.queries, "dit": model.dit}
        if self._load("generation", learned):
            return model
        tokenizer, recipe = self.tokenizer(), self.recipe
        captions = CachedFeatures(
            self.folder / "cache",
            self._cache_key(),
            "train",
            self.world,
            recipe.generation_batch,
            recipe.generation.seed,
            recipe.cache_shards,
        )
        edits, dialogues = self._turns(recipe.generation_edits, recipe.generation_dialogues)
        batches = PictureMix(captions, edits, dialogues)
        states_of = condition_of_mix(model, tokenizer, patches_for(vlm_of(model)))
        if self._can_compile():
            model.dit.compile(dynamic=True)  # how many dialogues end in a picture varies
        stage = GenerationStage(model, batches, states_of, recipe.generation_draws)
        self._fit(stage)
        self._finish("generation", learned)
        return model

    def _turns(
        self, edits: int, dialogues: int, skipped: int = 0, with_features: bool = True
    ) -> tuple[EditPairs, Dialogues]:
        """Edits and dialogues that end in a picture, rows a step; ``skipped``: scenes that other stages saw."""
        shared: dict[str, Any] = {
            "split": "train",
            "config": self.world,
            "tokenizer": self.tokenizer(),
            "n_image_tokens": IMAGE_TOKENS,
            "features_of": self.target().eval() if with_features else None,
        }
        share = self.recipe.reconstruct_share
        return (
            EditPairs(batch_size=edits, first=50_000_000 + skipped, repeat_share=share, **shared),
            Dialogues(batch_size=dialogues, first=60_000_000 + skipped, **shared),
        )

    def alignment(self) -> Blip3oModel:
        """The backbone once more: query states of edits and dialogues learn from those of captions."""
        model = self.generation()
        backbone, recipe = vlm_of(model), self.recipe
        if self._load("alignment", {"backbone": backbone}):
            return model
        freeze(model)
        backbone.requires_grad_(True).train()
        patches_of = patches_for(backbone)
        talks = PackedConversations(
            "train", self.world, self.tokenizer(), IMAGE_TOKENS, first=70_000_000, **recipe.alignment_rows
        )
        edits, dialogues = self._turns(
            recipe.alignment_edits, recipe.alignment_dialogues, skipped=2_000_000, with_features=False
        )
        stage = AlignmentStage(
            model,
            self.tokenizer(),
            self.world,
            PackedUnderstandingStage(backbone, talks, patches_of),
            [edits, dialogues.pictures],
            patches_of,
            captions=recipe.alignment_captions,
            first=80_000_000,
        )
        if self._can_compile():
            compile_layers(backbone)
        self._fit(stage)
        self._finish("alignment", {"backbone": backbone})
        return model

    def conditions(self) -> None:
        """What backbone and queries, fixed by now, say to every prompt that the generator goes on with."""
        model, recipe, folder = self.alignment(), self.recipe, self.folder / "conditions"
        freeze(model)
        key = self._condition_key()
        conditions_of = CaptionConditions(model, self.tokenizer())
        for shard in range(recipe.condition_shards):
            write_captions(folder, shard, CONDITION_SHARD, "train", self.world, conditions_of, key)
            logger.info("conditions: shard %d of %d", shard + 1, recipe.condition_shards)
        edits, dialogues = self._turns(64, 24, skipped=1_000_000)
        states_of = condition_of(model, patches_for(vlm_of(model)))
        for shard in range(recipe.turn_shards):
            write_turns(folder, shard, [edits, dialogues.pictures], TURN_STEPS, states_of, key)
            logger.info("conditions: edits and dialogues %d of %d", shard + 1, recipe.turn_shards)

    def _condition_key(self) -> str:
        weights = [self.folder / f"{name}.safetensors" for name in ("generation", "alignment")]
        return condition_key(self._cache_key(), weights)

    def _weight_of(self, scene: int) -> float:
        is_tinted = make_scene("train", scene, self.world).kind in TINTED
        return self.recipe.tinted_weight if is_tinted else 1.0

    def generator(self) -> Blip3oModel:
        """The DiT alone, on cached conditions: a third of the time a step, with as many captions as draws."""
        model, recipe = self.alignment(), self.recipe
        learned = {"dit": model.dit}
        if self._load("generator", learned):
            return model
        features = read_shards(self.folder / "cache", self._cache_key(), recipe.cache_shards)
        batches = CachedConditions(
            self.folder / "conditions",
            self._condition_key(),
            recipe.condition_shards,
            recipe.turn_shards,
            torch.cat([shard["features"] for shard in features]),
            recipe.generator_captions,
            recipe.generator_turns,
            recipe.generator_prompt_share,
            recipe.generator.seed,
            self._weight_of,
        )
        freeze(model)
        model.dit.requires_grad_(True).train()
        if self._can_compile():
            model.dit.compile(dynamic=False)
        self._fit(GeneratorStage(model, batches))
        self._finish("generator", learned)
        return model
