"""A recipe run: parts loaded, learned parameters chosen, data opened, trained, saved as a pipeline folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from blip3o.data.loader import LoaderConfig
from blip3o.data.mixture import Ingredient
from blip3o.data.records import Reading
from blip3o.data.sources import (
    JsonLinesSource,
    JsonSource,
    ParquetSource,
    Source,
    TableSource,
    WebDatasetSource,
    journeydb,
)
from blip3o.errors import ConfigError
from blip3o.pipeline import Blip3oPipeline
from blip3o.train.checkpoint import save_json
from blip3o.train.distributed import Processes
from blip3o.train.loop import Hooks, fit
from blip3o.train.recipe import DataSpec, TrainRecipe
from blip3o.train.records_stage import Encoder, RecordsStage, learn_only, make_loader
from blip3o.vision.targets import Target, load_target

logger = logging.getLogger(__name__)


def run_recipe(recipe: TrainRecipe, output: Path, hooks: Hooks | None = None) -> Path:
    """Train as ``recipe`` says in ``output`` (resumable), and write the model to ``output/model``; returns it.

    Under ``torchrun`` or SLURM every process calls this. Raises: ConfigError, WeightsError, DataError.
    """
    processes = Processes(recipe.loop.sharding)
    pipeline, target = load_parts(recipe)
    learned = prepare(pipeline, recipe)
    stage = make_stage(recipe, pipeline, target, processes)
    if target is not None:
        target.to(processes.device)
    if processes.is_main:
        count = sum(p.numel() for p in pipeline.model.parameters() if p.requires_grad)
        logger.info("%d parameters learn (%d tensors)", count, len(learned))
    fit(stage, recipe.loop, output / "train", hooks, processes)
    folder = output / "model"
    if processes.is_main:
        pipeline.save_pretrained(folder)
        if target is not None:
            target.save_pretrained(folder / "target_encoder")
        save_json(output / "data.json", stage.tallies())
    processes.barrier()
    return folder


def load_parts(recipe: TrainRecipe) -> tuple[Blip3oPipeline, Target | None]:
    """The pipeline to start from and, where pictures are learned, the target encoder."""
    from blip3o.locate import find_folder

    pipeline = Blip3oPipeline.from_pretrained(recipe.model)
    target = None
    if recipe.spec.image_weight > 0:
        own = recipe.target_encoder
        if own is None:
            folder = find_folder(recipe.model)
            own = folder / "target_encoder" if (folder / "target_encoder").is_dir() else folder
        dtype = torch.bfloat16 if recipe.frozen_dtype == "bfloat16" else torch.float32
        target = load_target(Path(own), dtype)
        side = target.preprocess.size_px
        made = tuple(target(torch.zeros(1, 3, side, side, dtype=dtype)).shape[1:])
        if made != tuple(pipeline.model.feature_shape):
            raise ConfigError(
                f"the target encoder {own} makes features of shape {made}, the model draws "
                f"{tuple(pipeline.model.feature_shape)}: they do not belong together"
            )
    return pipeline, target


def prepare(pipeline: Blip3oPipeline, recipe: TrainRecipe) -> list[str]:
    """Fresh parts, frozen parts and their precision; returns the names of what learns."""
    model = pipeline.model
    if recipe.fresh_head:
        model.queries.reset_parameters()
        reset = getattr(model.get_submodule(model.network_name), "reset_parameters", None)
        if reset is None:
            raise ConfigError(f"fresh_head: the generation head '{model.config.head}' cannot be drawn anew")
        reset()
    learned = learn_only(model, recipe.spec.learns)
    names = set(learned)
    for name, parameter in model.named_parameters():
        # what learns keeps float32 masters; bf16 is autocast's business
        if name in names:
            parameter.data = parameter.data.float()
        elif recipe.frozen_dtype == "bfloat16" and _is_wholly_frozen(name, names):
            parameter.data = parameter.data.bfloat16()
    if recipe.activation_checkpointing:
        model.gradient_checkpointing_enable()
    return learned


def _is_wholly_frozen(name: str, learned: set[str]) -> bool:
    """Whether nothing of this parameter's top-level part learns: mixed precisions inside one part do not multiply."""
    part = name.split(".")[0]
    return not any(other.split(".")[0] == part for other in learned)


def make_stage(
    recipe: TrainRecipe, pipeline: Blip3oPipeline, target: Target | None, processes: Processes
) -> RecordsStage:
    """The recipe's stage over its data, for one of ``processes``."""
    ingredients: dict[str, list[Ingredient]] = {"images": [], "texts": []}
    for data in recipe.data:
        encoder = Encoder(
            data.kind,
            Reading(root=_root(data)),
            pipeline.inputs,
            pipeline.prompts,
            target.preprocess if target is not None else None,
            recipe.max_length,
            pipeline.model.config.num_queries + 1,
        )
        group = "texts" if data.kind == "conversations" else "images"
        ingredients[group].append(Ingredient(open_source(data), encoder, data.weight))
    sizes = {"images": recipe.batch_size, "texts": recipe.text_batch_size}
    loaders: dict[str, Any] = {
        name: make_loader(
            own,
            LoaderConfig(
                batch_size=max(sizes[name], 1),
                seed=recipe.loop.seed,
                workers=recipe.workers,
                rank=processes.rank,
                world_size=processes.world_size,
                block=recipe.shuffle_block,
                max_bad_share=recipe.max_bad_share,
            ),
            pipeline.inputs.pad_id,
        )
        for name, own in ingredients.items()
    }
    features: nn.Module | None = target
    return RecordsStage(recipe.stage, pipeline.model, recipe.spec, features, **loaders)


def open_source(data: DataSpec) -> Source:
    """The source of a data set; nothing is read yet but lists of files."""
    paths: Sequence[str] = data.paths
    if data.layout == "webdataset":
        return WebDatasetSource(paths, data.name)
    if data.layout == "jsonl":
        return JsonLinesSource(paths, data.name)
    if data.layout == "json":
        return JsonSource(paths, data.name)
    if data.layout == "parquet":
        return ParquetSource(paths, data.name)
    if data.layout == "journeydb":
        source = journeydb(paths[0], data.split)
        source.name = data.name
        return source
    try:
        import datasets
    except ImportError:
        raise ConfigError(
            f"data set '{data.name}' needs the package datasets: pip install 'blip3o-eval[understanding]'"
        ) from None
    folder = Path(paths[0])
    table = datasets.load_from_disk(str(folder)) if (folder / "state.json").is_file() else (
        datasets.load_dataset(paths[0], split=data.split)
    )
    return TableSource(table, data.name)


def _root(data: DataSpec) -> Path | None:
    if data.root is not None:
        return Path(data.root)
    return Path(data.paths[0]) / data.split / "imgs" if data.layout == "journeydb" else None
