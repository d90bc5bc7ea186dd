"""A recipe run: parts loaded, learned parameters chosen, data opened, trained, saved as a pipeline folder."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from blip3o.data.loader import LoaderConfig
from blip3o.data.mixture import Ingredient
from blip3o.data.sources import Source
from blip3o.errors import ConfigError
from blip3o.locate import find_folder
from blip3o.pipeline import Blip3oPipeline
from blip3o.pipeline_base import TARGET_FOLDER
from blip3o.storage import CONFIG_NAME, read_json, write_json
from blip3o.train.data_spec import check_files, open_source
from blip3o.train.distributed import Processes
from blip3o.train.evaluation import Evaluator, find_hook
from blip3o.train.hardware import peak_tflops
from blip3o.train.loop import Hooks, fit
from blip3o.train.recipe import TrainRecipe
from blip3o.train.recipe_cache import TargetCache, make_encoder
from blip3o.train.records_stage import RecordsStage, learn_only, make_loader
from blip3o.vision.autoencoder import Autoencoder
from blip3o.vision.targets import Target, autoencoder_target, load_target

logger = logging.getLogger(__name__)


def run_recipe(recipe: TrainRecipe, output: Path, hooks: Hooks | None = None) -> Path:
    """Train as ``recipe`` says in ``output`` (resumable), and write the model to ``output/model``; returns it.

    Under ``torchrun`` or SLURM every process calls this. Raises: ConfigError, WeightsError, DataError.
    """
    processes, hooks, loop = Processes(recipe.loop.sharding), hooks or Hooks(), recipe.loop
    hook = find_hook(recipe.evaluate) if recipe.evaluate is not None else None
    check_files(recipe.data)
    pipeline, target = load_parts(recipe)
    learned = prepare(pipeline, recipe)
    whole = WholePipeline(recipe, pipeline, processes)
    if target is not None:
        target.to(processes.device)
    if recipe.evaluate is not None:
        if pipeline.decoder is not None:
            pipeline.decoder.to(processes.device)
        evaluator = Evaluator(recipe.evaluate, hook, output, whole, processes)
        hooks = replace(hooks, evaluate=evaluator, evaluate_at_start=recipe.evaluate.at_start)
        loop = replace(loop, evaluate_every=recipe.evaluate.every)
    if hooks.peak_tflops is None and (known := peak_tflops(processes.device)) is not None:
        hooks = replace(hooks, peak_tflops=known[0], peak_from=known[1])
    cache = None
    if recipe.cache is not None:
        pipeline.model.to(processes.device)
        cache = TargetCache(recipe, pipeline, target)
        cache.fill(processes)
    stage = make_stage(recipe, pipeline, target, processes, cache)
    if processes.is_main:
        count = sum(p.numel() for p in pipeline.model.parameters() if p.requires_grad)
        logger.info("%d parameters learn (%d tensors)", count, len(learned))
    fit(stage, loop, output / "train", hooks, processes, lasting_settings(recipe))
    folder = output / "model"
    complete = whole()
    tallies = processes.gather(stage.loaders.tallies())
    if complete is not None:
        if target is not None and not isinstance(complete.decoder, Autoencoder):
            complete.target_encoder = target
        complete.save_pretrained(folder)
        write_json(output / "data.json", merged_tallies(tallies))
    processes.barrier()
    return folder


def lasting_settings(recipe: TrainRecipe) -> dict[str, Any]:
    """What beside the loop's own settings a run must keep when it is resumed. Where the data lies may change."""
    values = asdict(recipe)
    for key in ("loop", "evaluate", "cache", "workers", "max_bad_share", "activation_checkpointing", "target_encoder"):
        del values[key]
    values["data"] = [
        {key: data[key] for key in ("name", "layout", "kind", "weight", "split")} for data in values["data"]
    ]
    return {f"recipe.{key}": value for key, value in values.items()}


def merged_tallies(all_processes: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Records read and bad by data set, over all processes."""
    names = sorted({name for tallies in all_processes for name in tallies})
    return {
        name: {
            "read": sum(tallies[name]["read"] for tallies in all_processes),
            "bad": sum(tallies[name]["bad"] for tallies in all_processes),
            "bad_keys": [key for tallies in all_processes for key in tallies[name]["bad_keys"]],
        }
        for name in names
    }


class WholePipeline:
    """The pipeline with whole weights, on the main process: itself, or, where its parameters are sharded over
    processes, a second one that they are gathered into (None on the others). All processes must call it."""

    def __init__(self, recipe: TrainRecipe, pipeline: Blip3oPipeline, processes: Processes) -> None:
        self.recipe, self.pipeline, self.processes = recipe, pipeline, processes
        self._copy: Blip3oPipeline | None = None

    def __call__(self) -> Blip3oPipeline | None:
        if self.processes.world_size == 1 or self.processes.sharding == "ddp":
            return self.pipeline if self.processes.is_main else None
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_model_state_dict(self.pipeline.model, options=options)
        if not self.processes.is_main:
            return None
        if self._copy is None:
            self._copy = Blip3oPipeline.from_pretrained(self.recipe.model)
            prepare(self._copy, replace(self.recipe, fresh_head=False))
            self._copy.model.eval()
            if self.recipe.evaluate is not None:
                self._copy.to(self.processes.device)
        self._copy.model.load_state_dict(state)
        return self._copy


def load_parts(recipe: TrainRecipe) -> tuple[Blip3oPipeline, Target | None]:
    """The pipeline to start from and, where pictures are learned, the target encoder. Raises: ConfigError."""
    pipeline = Blip3oPipeline.from_pretrained(recipe.model)
    if recipe.spec.image_weight == 0:
        return pipeline, None
    target = find_target(recipe, pipeline.decoder)
    side, parameter = target.preprocess.size_px, next(target.parameters())
    made = tuple(target(torch.zeros(1, 3, side, side, dtype=parameter.dtype)).shape[1:])
    if made != tuple(pipeline.model.feature_shape):
        raise ConfigError(
            f"the target encoder {recipe.target_encoder or 'of ' + recipe.model} makes features of shape {made}, the "
            f"model draws {tuple(pipeline.model.feature_shape)}: they do not belong together"
        )
    return pipeline, target


def find_target(recipe: TrainRecipe, decoder: nn.Module | None = None) -> Target:
    """The recipe's own target encoder, else the VAE that the model draws with, else the one beside its weights.

    Raises: ConfigError where there is none.
    """
    dtype = torch.bfloat16 if recipe.frozen_dtype == "bfloat16" else torch.float32
    if recipe.target_encoder is not None:
        return load_target(Path(recipe.target_encoder), dtype)
    if isinstance(decoder, Autoencoder):
        own = autoencoder_target(copy.deepcopy(decoder).to(dtype))  # a copy: the decoder keeps its precision
        return own.requires_grad_(False).eval()
    folder = find_folder(recipe.model)
    if (folder / TARGET_FOLDER).is_dir():
        return load_target(folder / TARGET_FOLDER, dtype)
    if "gen_vision_tower" in read_json(folder / CONFIG_NAME):
        return load_target(folder, dtype)
    raise ConfigError(
        f"'{recipe.model}' has no target encoder beside its weights; name the folder of one: target_encoder: FOLDER"
    )


def prepare(pipeline: Blip3oPipeline, recipe: TrainRecipe) -> list[str]:
    """Fresh parts, frozen parts and their precision; returns the names of what learns."""
    model = pipeline.model
    if recipe.fresh_head:
        reset = getattr(model.get_submodule(model.network_name), "reset_parameters", None)
        if reset is None:
            raise ConfigError(f"fresh_head: the generation head '{model.config.head}' cannot be drawn anew")
        # from the run's seed: the processes of a run must draw the same weights
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.loop.seed)
            model.queries.reset_parameters()
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
    recipe: TrainRecipe,
    pipeline: Blip3oPipeline,
    target: Target | None,
    processes: Processes,
    cache: TargetCache | None = None,
) -> RecordsStage:
    """The recipe's stage over its data, for one of ``processes``."""
    ingredients: dict[str, list[Ingredient]] = {"images": [], "texts": []}
    for data in recipe.data:
        source: Source = open_source(data)
        encoder = make_encoder(recipe, data, pipeline, target)
        group = "texts" if data.kind == "conversations" else "images"
        if cache is not None and group == "images":
            source = cache.source(data, source)
        ingredients[group].append(Ingredient(source, encoder, data.weight))
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
