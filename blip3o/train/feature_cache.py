"""Target features of scenes on disk, so that generation training neither draws nor encodes pictures.

A cache is a folder of safetensors shards named by position; its key covers the scenes, the tower's weights and the
feature space, so that a stale cache is never read. A scene is a number: rows need no keys, and any order of them can be
drawn from memory. Records of other data sets, which stream, have ``blip3o.data.target_cache``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from blip3o.data.target_cache import cache_metadata
from blip3o.errors import DataError
from blip3o.stickers import Scene, SceneConfig, make_scene
from blip3o.train.checkpoint import save_tensors
from blip3o.train.world_data import Scenes, caption_of


@dataclass
class FeatureBatch:
    """Standardised target features (B, C, h, w) with their captions."""

    ids: list[str]
    features: Tensor
    captions: list[str]


def cache_key(split: str, world: SceneConfig, weights_digest: str) -> str:
    """What the features of a scene depend on besides its index."""
    text = json.dumps(
        {"split": split, "world": world.digest, "weights": weights_digest}, sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()


def write_shard(
    folder: Path,
    shard: int,
    per_shard: int,
    split: str,
    world: SceneConfig,
    features_of: Callable[[Tensor], Tensor],
    key: str,
    batch: int = 128,
    extra: Callable[[list[Scene]], dict[str, Tensor]] | None = None,
) -> Path:
    """Features of scenes [shard * per_shard, (shard + 1) * per_shard) in float16; a finished shard is kept.

    ``extra``: further tensors about the scenes, row by row, that the shard is to hold.
    """
    first = shard * per_shard

    def tensors() -> dict[str, Tensor]:
        batches = Scenes(split, world, batch, first=first)
        rows: list[Tensor] = []
        scenes: list[Scene] = []
        with torch.no_grad():
            for step in range(per_shard // batch):
                drawn = batches(step)
                with torch.autocast("cpu", torch.bfloat16):
                    features = features_of(drawn.pixels)
                rows.append(features.half())
                scenes += drawn.scenes
        return {"features": torch.cat(rows), **(extra(scenes) if extra else {})}

    return keep_shard(folder / f"{shard:05d}.safetensors", key, first, tensors)


def keep_shard(path: Path, key: str, first: int, tensors: Callable[[], dict[str, Tensor]]) -> Path:
    """Write a shard that begins with row ``first``, unless a finished one of this key is there."""
    if not is_current(path, key):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, tensors(), {"key": key, "first": str(first)})
    return path


def is_current(path: Path, key: str) -> bool:
    """Whether a shard is there and was made under this key."""
    return path.exists() and cache_metadata(path).get("key") == key


def read_shards(folder: Path, key: str, shards: int, prefix: str = "") -> list[dict[str, Tensor]]:
    """The tensors of the first ``shards`` shards, in order. Raises: DataError for missing or stale ones."""
    paths = sorted(folder.glob(f"{prefix}[0-9]*.safetensors"))[:shards]
    if len(paths) < shards or not paths:
        raise DataError(
            f"{folder} holds {len(paths)} of {shards} {prefix}shards: run the stage that writes them first"
        )
    for path in paths:
        if not is_current(path, key):
            raise DataError(
                f"{path} was made by other weights or scenes: remove it and run its stage again"
            )
    return [load_file(path) for path in paths]


class SceneOrder:
    """Rows of a cache in a seeded order: each epoch shows every row once; a function of the step."""

    def __init__(self, rows: int, batch_size: int, seed: int) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.per_epoch = rows // batch_size
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __call__(self, step: int) -> np.ndarray:
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.rows)
            self._epoch = epoch
        return self._order[position * self.batch_size : (position + 1) * self.batch_size]


class CachedFeatures:
    """Batches over the shards of a cache in a seeded order; the caption form is drawn anew at every visit."""

    def __init__(
        self,
        folder: Path,
        key: str,
        split: str,
        world: SceneConfig,
        batch_size: int,
        seed: int,
        shards: int,
    ) -> None:
        self.features = torch.cat([s["features"] for s in read_shards(folder, key, shards)])
        self.split, self.world, self.batch_size, self.seed = split, world, batch_size, seed
        self.order = SceneOrder(len(self.features), batch_size, seed)

    def __call__(self, step: int) -> FeatureBatch:
        rows = self.order(step)
        choices = np.random.default_rng([self.seed, step, 31]).random(len(rows))
        captions = [
            caption_of(make_scene(self.split, int(i), self.world), float(c))
            for i, c in zip(rows, choices, strict=True)
        ]
        return FeatureBatch(
            [f"{self.split}/{i}" for i in rows],
            self.features[torch.from_numpy(rows)].float(),
            captions,
        )
