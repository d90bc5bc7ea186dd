"""Query states on disk, for training the generator alone: with backbone and queries fixed, a prompt's condition is a
constant, and a step costs the transformer's arithmetic only.

Two kinds of shards lie in one folder: ``captions-<n>`` (scenes of the feature cache, each in two wordings) and
``turns-<n>`` (edits and dialogues that end in a picture, with their target features). The key covers the scenes, the
target's weights and those of backbone and queries, so that a stale cache is never read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from blip3o.stickers import Scene, SceneConfig, make_scene
from blip3o.stickers.captions import long_caption, prompt, short_caption
from blip3o.storage import file_digest
from blip3o.train.edit_data import PictureTurnBatch, pad_right
from blip3o.train.feature_cache import keep_shard, read_shards
from blip3o.train.frozen_opening import FrozenOpening
from blip3o.train.world_data import PROMPTS
from blip3o.unified import Blip3oModel

CAPTIONS, TURNS = "captions-", "turns-"
CHUNK = 128
PARAPHRASES_OF_EIGHT = 3  # of eight scenes, whose second wording is a paraphrase; the others' is the dense caption


@dataclass
class ConditionBatch:
    """condition (B, Q, H) and the features (B, C, h, w) that it asks for."""

    ids: list[str]
    features: Tensor
    condition: Tensor


def condition_key(features_key: str, weights: Sequence[Path]) -> str:
    """What conditions depend on besides the index of their scene. weights: files of backbone and queries."""
    parts = [features_key, *map(file_digest, weights)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def second_wording(scene: Scene) -> str:
    is_paraphrase = scene.index % 8 < PARAPHRASES_OF_EIGHT
    return short_caption(scene) if is_paraphrase else long_caption(scene)


class CaptionConditions:
    """Captions -> query states (n, Q, H), float16; what all prompts begin with is read once."""

    def __init__(self, model: Blip3oModel, tokenizer: PreTrainedTokenizerBase) -> None:
        first, second = (
            tokenizer(PROMPTS.generation(text), add_special_tokens=False)["input_ids"]
            for text in ("a dog", "two cats")
        )
        equal = [a == b for a, b in zip(first, second, strict=False)]
        opening = torch.tensor(first[: equal.index(False)])
        self.tokenizer, self.opening = tokenizer, FrozenOpening(model, opening)

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> Tensor:
        # neighbours in length share a batch, so that short prompts are not padded to long ones
        order = sorted(range(len(captions)), key=lambda i: len(captions[i]))
        rows: list[Tensor] = []
        for start in range(0, len(order), CHUNK):
            texts = [PROMPTS.generation(captions[i]) for i in order[start : start + CHUNK]]
            rows += self.opening.condition(*pad_right(self.tokenizer, texts)).half()
        found = torch.stack(rows)
        return found[torch.tensor(order).argsort()]


def write_captions(
    folder: Path,
    shard: int,
    per_shard: int,
    split: str,
    world: SceneConfig,
    conditions_of: Callable[[Sequence[str]], Tensor],
    key: str,
) -> Path:
    """Conditions of scenes [shard * per_shard, (shard + 1) * per_shard) in two wordings; a finished shard is kept."""
    first = shard * per_shard

    def tensors() -> dict[str, Tensor]:
        scenes = [make_scene(split, first + i, world) for i in range(per_shard)]
        return {
            "prompt": conditions_of([prompt(scene) for scene in scenes]),
            "second": conditions_of([second_wording(scene) for scene in scenes]),
        }

    return keep_shard(folder / f"{CAPTIONS}{shard:05d}.safetensors", key, first, tensors)


@torch.no_grad()
def write_turns(
    folder: Path,
    shard: int,
    batches: Sequence[Callable[[int], PictureTurnBatch | None]],
    steps: int,
    condition_of: Callable[[PictureTurnBatch], Tensor],
    key: str,
) -> Path:
    """Conditions and features of ``steps`` batches of each builder; a finished shard is kept."""
    first = shard * steps

    def tensors() -> dict[str, Tensor]:
        conditions, features = [], []
        for step in range(first, first + steps):
            for builder in batches:
                batch = builder(step)
                if batch is None:  # no dialogue of this step ends in a picture
                    continue
                if batch.features is None:
                    raise ValueError("edits and dialogues need features_of, the target encoder")
                conditions.append(condition_of(batch).half())
                features.append(batch.features.half())
        return {
            "condition": torch.cat(conditions).contiguous(),
            "features": torch.cat(features).contiguous(),
        }

    return keep_shard(folder / f"{TURNS}{shard:05d}.safetensors", key, first, tensors)


class CachedConditions:
    """Batches of captions and turns, drawn with replacement: a function of the step.

    Args: features (n, C, h, w) of the scenes from 0 on; captions, turns: rows of a batch; prompt_share: captions in the
        GenEval-style wording, the others in their second one; weight_of: how often a scene is drawn, beside others.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        shards: int,
        turn_shards: int,
        features: Tensor,
        captions: int,
        turns: int,
        prompt_share: float,
        seed: int,
        weight_of: Callable[[int], float] = lambda scene: 1.0,
    ) -> None:
        told = read_shards(folder, key, shards, CAPTIONS)
        shown = read_shards(folder, key, turn_shards, TURNS)
        self.prompt = torch.cat([shard["prompt"] for shard in told])
        self.second = torch.cat([shard["second"] for shard in told])
        self.features = features[: len(self.prompt)]
        self.turn_conditions = torch.cat([shard["condition"] for shard in shown])
        self.turn_features = torch.cat([shard["features"] for shard in shown])
        self.captions, self.turns = captions, turns
        self.prompt_share, self.seed = prompt_share, seed
        weights = np.cumsum([weight_of(scene) for scene in range(len(self.features))])
        self.bounds = weights / weights[-1]

    def __call__(self, step: int) -> ConditionBatch:
        rng = np.random.default_rng([self.seed, step, 47])
        scenes = np.searchsorted(self.bounds, rng.random(self.captions), side="right")
        turns = rng.integers(0, len(self.turn_features), self.turns)
        as_prompt = torch.from_numpy(rng.random(self.captions) < self.prompt_share)[:, None, None]
        index, turn_index = torch.from_numpy(scenes), torch.from_numpy(turns)
        told = torch.where(as_prompt, self.prompt[index], self.second[index])
        return ConditionBatch(
            [f"scene {i}" for i in scenes] + [f"turn {i}" for i in turns],
            torch.cat([self.features[index], self.turn_features[turn_index]]).float(),
            torch.cat([told, self.turn_conditions[turn_index]]).float(),
        )
