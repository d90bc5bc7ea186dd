"""What a point learns from: captions with cached target features, and rows of text, both a pure function of the step.

Every cell of one seed sees the same scenes in the same order: neither order nor captions nor text rows depend on
target, objective or schedule. A joint point has fewer steps than its sequential twin, so it sees the beginning of the
same order; its text rows are, row by row, those of the understanding phase.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from blip3o.errors import DataError
from blip3o.stickers import Scene, SceneConfig, make_scene, render
from blip3o.stickers.captions import long_caption, prompt, short_caption
from blip3o.stickers.edits import make_edit
from blip3o.train.checkpoint import save_tensors
from blip3o.train.packed_chats import PackedBatch, PackedRow, pack
from blip3o.train.packed_data import USER, PackedConversations, answered
from blip3o.train.study.compute import PICTURE_ROWS
from blip3o.train.world_data import IMAGINE, PROMPTS, Scenes, caption_of, to_pixels

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
    settings: Mapping[str, object],
    per_file: int = 4096,
    on_file: Callable[[int], None] = lambda done: None,
) -> None:
    """Features in float16 and token ids of all three caption forms of scenes 0 to ``scenes`` - 1, file by file; files
    that are there already are kept. ``settings`` are what they depend on; they are checked when read."""
    folder.mkdir(parents=True, exist_ok=True)
    key = json.dumps(settings, sort_keys=True)
    for first in range(0, scenes, per_file):
        path, count = folder / f"{first:08d}.safetensors", min(per_file, scenes - first)
        if not (path.exists() and _key(path) == key):
            batches, rows, texts = Scenes(SPLIT, world, 128, first=first), [], []
            with torch.no_grad():
                for step in range(count // 128):
                    batch = batches(step)
                    with torch.autocast("cpu", torch.bfloat16):
                        rows.append(features_of(batch.pixels).half())
                    texts += [[form(scene) for form in FORMS.values()] for scene in batch.scenes]
            ids, lengths = _tokenize(tokenizer, texts)
            tensors = {"features": torch.cat(rows), "ids": ids, "lengths": lengths}
            save_tensors(path, tensors, {"key": key})
        on_file(first + count)


def _tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: list[list[str]]
) -> tuple[Tensor, Tensor]:
    """Captions (n, 3) as ids (n, 3, L) and lengths (n, 3), int16."""
    flat = [PROMPTS.generation(text) for row in texts for text in row]
    found = tokenizer(flat, add_special_tokens=False)["input_ids"]
    ids = torch.zeros(len(found), max(map(len, found)), dtype=torch.int16)
    for row, own in zip(ids, found, strict=True):
        row[: len(own)] = torch.tensor(own, dtype=torch.int16)
    lengths = torch.tensor([len(own) for own in found], dtype=torch.int16)
    return ids.unflatten(0, (-1, len(FORMS))), lengths.unflatten(0, (-1, len(FORMS)))


def _key(path: Path) -> str:
    with safe_open(path, framework="pt") as file:
        return str((file.metadata() or {}).get("key"))


class CaptionBatches:
    """Batches over cached scenes in a seeded order.

    Args: shares: of the caption forms, in the order of FORMS; instruction_from: step from which on every caption is a
        GenEval-style prompt, None for never.
    """

    def __init__(
        self,
        folder: Path,
        batch_size: int,
        seed: int,
        shares: tuple[float, float, float],
        pad_id: int,
        instruction_from: int | None = None,
    ) -> None:
        paths = sorted(folder.glob("[0-9]*.safetensors"))
        if not paths:
            raise DataError(f"{folder} holds no target features: run the features stage first")
        parts = [load_file(path) for path in paths]
        self.features = torch.cat([part["features"] for part in parts])
        width = max(part["ids"].shape[2] for part in parts)
        self.ids = torch.cat(
            [torch.nn.functional.pad(p["ids"], (0, width - p["ids"].shape[2])) for p in parts]
        )
        self.lengths = torch.cat([part["lengths"] for part in parts])
        self.batch_size, self.seed, self.pad_id = batch_size, seed, pad_id
        self.bounds, self.instruction_from = np.cumsum(shares)[:-1], instruction_from
        self.per_epoch = len(self.features) // batch_size
        flat = self.ids.flatten(0, 1)
        differing = (flat != flat[0]).any(dim=0).nonzero()
        # what all prompts begin with: the chat template up to the caption
        self.opening = flat[0, : int(differing[0])].long() if len(differing) else flat[0, :0].long()
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __call__(self, step: int) -> CaptionBatch:
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, epoch]).permutation(len(self.features))
            self._epoch = epoch
        rows = self._order[position * self.batch_size : (position + 1) * self.batch_size]
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
