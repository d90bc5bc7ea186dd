"""The cache of a recipe: what its frozen parts make of every picture."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blip3o.backbone import PictureInputs
from blip3o.data.records import RawRecord, Reading
from blip3o.data.sources import Source
from blip3o.data.target_cache import CachedSource, fill_cache
from blip3o.errors import ConfigError, DataError
from blip3o.pipeline import Blip3oPipeline
from blip3o.train.checkpoint import digest
from blip3o.train.data_spec import DataSpec, open_source, picture_root
from blip3o.train.distributed import Processes
from blip3o.train.recipe import TrainRecipe
from blip3o.train.records_stage import Encoder, collate
from blip3o.vision.targets import Target

logger = logging.getLogger(__name__)


def make_encoder(
    recipe: TrainRecipe, data: DataSpec, pipeline: Blip3oPipeline, target: Target | None
) -> Encoder:
    """What turns raw records of a data set into numbers."""
    return Encoder(
        data.kind,
        Reading(root=picture_root(data)),
        pipeline.inputs,
        pipeline.prompts,
        target.preprocess if target is not None else None,
        recipe.max_length,
        pipeline.model.config.num_queries + 1,
        pipeline.card.reconstruction_size_px,
    )


class TargetCache:
    """The cache of a recipe: target features, and query states where neither backbone nor queries learn."""

    def __init__(self, recipe: TrainRecipe, pipeline: Blip3oPipeline, target: Target | None) -> None:
        if target is None or recipe.cache is None:
            raise ConfigError(f"cache: stage '{recipe.stage}' has no target features to keep")
        self.recipe, self.pipeline, self.target = recipe, pipeline, target
        self.folder = Path(recipe.cache)
        parts = dict(target.named_parameters()) | dict(target.named_buffers())
        model = pipeline.model
        conditioning = [*model.backbone.parameters(), *model.queries.parameters()]
        self.has_conditions = not any(p.requires_grad for p in conditioning)
        # prompts decide the query states; pictures alone decide the features
        if self.has_conditions:
            parts |= {f"model.{k}": v for k, v in model.named_parameters() if not k.startswith(model.network_name)}
        self.settings = {
            "weights": digest(parts),
            "preprocess": target.preprocess.to_dict(),
            "pooling": target.pooling,
            "prompts": pipeline.prompts.to_dict() if self.has_conditions else None,
            "tokenizer": pipeline.tokenizer.get_vocab() if self.has_conditions else None,
            "shown": [asdict(pipeline.understanding), pipeline.card.reconstruction_size_px],
            "max_length": recipe.max_length,  # which records are bad is kept, too
        }

    def key(self, data: DataSpec) -> str:
        settings = {**self.settings, "kind": data.kind, "root": str(picture_root(data))}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def source(self, data: DataSpec, source: Source) -> CachedSource:
        return CachedSource(source, self.folder, self.key(data))

    def fill(self, processes: Processes) -> None:
        """Every picture data set; processes take shards in turn."""
        for data in self.recipe.data:
            if data.kind == "conversations":
                continue
            encoder = make_encoder(self.recipe, data, self.pipeline, self.target)
            source = _EveryNth(open_source(data), processes.rank, processes.world_size)
            made = partial(self._make, encoder)
            for shard in fill_cache(self.folder, source, self.key(data), made):
                logger.info("cache of '%s': %s", data.name, shard)
        processes.barrier()

    @torch.no_grad()
    def _make(self, encoder: Encoder, records: Sequence[RawRecord]) -> list[dict[str, Tensor] | str]:
        rows: list[Any] = []
        for record in records:
            try:
                rows.append(encoder(record))
            except DataError as error:
                rows.append(str(error))
        good = [row for row in rows if not isinstance(row, str)]
        if not good:
            return rows
        batch = collate(good, self.pipeline.inputs.pad_id)
        parameter = next(self.target.parameters())
        assert batch.target is not None
        features = self.target(batch.target.to(parameter.device, parameter.dtype))
        tensors = {"features": features.to(torch.bfloat16).cpu()}
        if self.has_conditions:
            model = self.pipeline.model
            device = next(model.parameters()).device
            shown: PictureInputs = {} if batch.patches is None else batch.patches.tensors(device, model.dtype)
            condition = model.encode_condition(
                batch.input_ids.to(device), batch.attention_mask.to(device), **shown
            )
            tensors["condition"] = condition.to(torch.bfloat16).cpu()
        made = iter({k: v[i] for k, v in tensors.items()} for i in range(len(good)))
        return [row if isinstance(row, str) else next(made) for row in rows]


@dataclass
class _EveryNth:
    """The shards of one process."""

    source: Source
    first: int
    step: int

    @property
    def name(self) -> str:
        return self.source.name

    def shards(self) -> list[str]:
        return self.source.shards()[self.first :: self.step]

    def read(self, shard: str, start: int = 0) -> Iterator[RawRecord]:
        return self.source.read(shard, start)
