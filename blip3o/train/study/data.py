"""What a point learns from: captions with cached target features, and rows of text, both a pure function of the step.

Every cell of one seed sees the same scenes in the same order: neither order nor captions nor text rows depend on
target, objective or schedule. A joint point has fewer steps than its sequential twin, so it sees the beginning of the
same order; its text rows are, row by row, those of the understanding phase.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from blip3o.stickers import Scene, SceneConfig, make_scene, render
from blip3o.stickers.captions import long_caption, prompt, short_caption
from blip3o.stickers.edits import make_edit
from blip3o.train.feature_cache import SceneOrder, cache_key, read_shards, write_shard
from blip3o.train.packed_chats import PackedBatch, PackedRow, pack
from blip3o.train.packed_data import USER, PackedConversations, answered
from blip3o.train.study.compute import PICTURE_ROWS
from blip3o.train.study.settings import SHARD
from blip3o.train.world_data import IMAGINE, PROMPTS, caption_of, to_pixels

SPLIT = "train"
FORMS: dict[str, Callable[[Scene], str]] = {
    "prompt": prompt,
    "short": short_caption,
    "long": long_caption,
}
FIRST_ROW = {"scenes": 10_000_000, "edits": 12_000_000, "texts": 14_000_000, "imagined": 16_000_000}


@dataclass
class CaptionBatch:
    """features (B, C, h, w); input_ids and attention_mask (B, L), padded on the right, short captions first."""

    ids: list[str]
    features: Tensor
    input_ids: Tensor
    attention_mask: Tensor


def write_features(
    folder: Path,
    scenes: int,
    world: SceneConfig,
    features_of: Callable[[Tensor], Tensor],
    tokenizer: PreTrainedTokenizerBase,
    key: str,
    on_shard: Callable[[int], None] = lambda scenes: None,
) -> None:
    """Cache of features with the token ids of all three caption forms of scenes 0 to ``scenes`` - 1, shard by shard;
    finished shards are kept. ``on_shard`` is told how many scenes are done."""

    def captions(shown: list[Scene]) -> dict[str, Tensor]:
        texts = [PROMPTS.generation(form(scene)) for scene in shown for form in FORMS.values()]
        return _tokenize(tokenizer, texts)

    for shard in range(shard_count(scenes)):
        size = min(scenes, SHARD)
        write_shard(folder, shard, size, SPLIT, world, features_of, key, extra=captions)
        on_shard((shard + 1) * size)


def shard_count(scenes: int) -> int:
    return max(scenes // SHARD, 1)


def features_key(world: SceneConfig, stage: str) -> str:
    """Key of a features stage's cache; the stage's id covers the target's weights."""
    return cache_key(SPLIT, world, stage)


def _tokenize(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> dict[str, Tensor]:
    """Captions (n * 3) as ids (n, 3, L) and lengths (n, 3), int16."""
    found = tokenizer(texts, add_special_tokens=False)["input_ids"]
    ids = torch.zeros(len(found), max(map(len, found)), dtype=torch.int16)
    for row, own in zip(ids, found, strict=True):
        row[: len(own)] = torch.tensor(own, dtype=torch.int16)
    lengths = torch.tensor([len(own) for own in found], dtype=torch.int16)
    rows = (-1, len(FORMS))
    return {"ids": ids.unflatten(0, rows), "lengths": lengths.unflatten(0, rows)}


class CaptionBatches:
    """Batches over cached scenes in a seeded order.

    Args: shares: of the caption forms, in the order of FORMS; instruction_from: step from which on every caption is a
        GenEval-style prompt, None for never.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        scenes: int,
        batch_size: int,
        seed: int,
        shares: tuple[float, float, float],
        pad_id: int,
        instruction_from: int | None = None,
    ) -> None:
        parts = read_shards(folder, key, shard_count(scenes))
        self.features = torch.cat([part["features"] for part in parts])
        width = max(part["ids"].shape[2] for part in parts)
        self.ids = torch.cat([F.pad(p["ids"], (0, width - p["ids"].shape[2])) for p in parts])
        self.lengths = torch.cat([part["lengths"] for part in parts])
        self.seed, self.pad_id = seed, pad_id
        self.bounds, self.instruction_from = np.cumsum(shares)[:-1], instruction_from
        self.order = SceneOrder(len(self.features), batch_size, seed)
        flat = self.ids.flatten(0, 1)
        differing = (flat != flat[0]).any(dim=0).nonzero()
        # what all prompts begin with: the chat template up to the caption
        self.opening = flat[0, : int(differing[0])].long() if len(differing) else flat[0, :0].long()

    def __call__(self, step: int) -> CaptionBatch:
        rows = self.order(step)
        drawn = np.random.default_rng([self.seed, step, 31]).random(len(rows))
        forms = np.searchsorted(self.bounds, drawn, side="right")
        if self.instruction_from is not None and step >= self.instruction_from:
            forms[:] = 0
        # Short captions first: they go through the backbone apart from the long ones, with little padding.
        order = np.argsort(self.lengths[rows, forms].numpy(), kind="stable")
        rows, forms = rows[order], forms[order]
        index = torch.from_numpy(rows)
        lengths = self.lengths[index, torch.from_numpy(forms)].long()
        length = int(lengths.max())
        ids = self.ids[index, torch.from_numpy(forms)][:, :length].long()
        mask = torch.arange(length) < lengths[:, None]
        return CaptionBatch(
            [f"{SPLIT}/{i}" for i in rows],
            self.features[index].float(),
            ids.masked_fill(~mask, self.pad_id),
            mask.long(),
        )


class TextRows:
    """Packed rows about pictures and about texts; row j of a kind is the same whoever asks for it.

    Args: totals: rows of each kind in the whole phase; steps: among which they are dealt out evenly.
    """

    def __init__(
        self,
        world: SceneConfig,
        tokenizer: PreTrainedTokenizerBase,
        n_image_tokens: int,
        totals: Mapping[str, int],
        steps: int,
        seed: int,
    ) -> None:
        self.world, self.tokenizer, self.seed = world, tokenizer, seed
        self.totals, self.steps = dict(totals), steps
        self.maker = PackedConversations(
            SPLIT, world, tokenizer, n_image_tokens, quartets=0, dialogues=0
        )

    def rows_of(self, kind: str, step: int) -> range:
        """Numbers of the rows of a kind at one step."""
        total = self.totals.get(kind, 0)
        return range(step * total // self.steps, (step + 1) * total // self.steps)

    def __call__(self, step: int) -> tuple[PackedBatch | None, PackedBatch | None]:
        """(rows with a picture, rows of text), either None where this step has none."""
        seen: list[PackedRow] = []
        shown: list[Scene] = []
        told: list[PackedRow] = []
        for kind in FIRST_ROW:
            for number in self.rows_of(kind, step):
                row, scene = self.row(kind, number)
                (seen if kind in PICTURE_ROWS else told).append(row)
                if kind in PICTURE_ROWS:
                    shown.append(scene)
        return self._batch(f"picture/{step}", seen, shown), self._batch(f"text/{step}", told, [])

    def row(self, kind: str, number: int) -> tuple[PackedRow, Scene]:
        """Row ``number`` of a kind, and the scene that it is about."""
        rng = np.random.default_rng([self.seed, list(FIRST_ROW).index(kind), number, 47])
        index, maker = FIRST_ROW[kind] + number, self.maker
        if kind == "edits":
            pair = make_edit(SPLIT, index, self.world)
            # the line break stands between a picture and its instruction wherever an edit is asked for
            edit = answered("\n" + pair.instruction, long_caption(pair.target))
            about = maker.about(pair.source, rng, n_questions=3)
            return PackedRow(USER + maker.block, (edit, *about)), pair.source
        scene = make_scene(SPLIT, index, self.world)
        if kind == "scenes":
            return PackedRow(USER + maker.block, maker.about(scene, rng)), scene
        if kind == "texts":
            about = maker.about(scene, rng, describe=0.0)
            return PackedRow(f"{USER}{long_caption(scene)}\n", about), scene
        wordings = dict.fromkeys(caption_of(scene, float(rng.random()) * 0.75) for _ in "ab")
        segments = tuple(answered(IMAGINE + words, long_caption(scene)) for words in wordings)
        return PackedRow(USER, segments), scene

    def _batch(
        self, name: str, rows: list[PackedRow], scenes: list[Scene]
    ) -> PackedBatch | None:
        if not rows:
            return None
        pixels = to_pixels([render(scene).image for scene in scenes]) if scenes else None
        ids = [f"{name}+{i}" for i in range(len(rows))]
        return PackedBatch(ids, *pack(self.tokenizer, rows), pixels=pixels)
