"""A stage of a point at any size: the model put together around its backbone, then trained as a recipe."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from blip3o.assemble import assemble
from blip3o.card import read_card
from blip3o.decoder import load_decoder
from blip3o.errors import ConfigError
from blip3o.locate import find_folder
from blip3o.pipeline import Blip3oPipeline
from blip3o.pipeline_base import TARGET_FOLDER
from blip3o.storage import file_digest, write_json
from blip3o.train.evaluation import EvaluateSpec, Moment
from blip3o.train.loop import Hooks
from blip3o.train.recipe import TrainRecipe, recipe_from_dict
from blip3o.train.run_recipe import run_recipe
from blip3o.train.study.recipes import RecipeStudySettings, recipe_budget
from blip3o.train.study.run import DONE, EXPORT, EXPORT_STEP, Finished, Job, Progress, read_finished
from blip3o.vision.targets import load_target

START = "start"


def run_recipe_stage(name: str, job: Job, steps: int) -> Finished:
    """Train ``generator`` or ``instruction`` in the job's folder for ``steps``, or go on there.

    Raises: ConfigError, WeightsError, DataError.
    """
    settings: RecipeStudySettings = job.settings
    finished = read_finished(job)
    if finished is not None:
        return finished
    if name == "generator":
        source = _start(job, settings)
    else:
        source = job.parents["generator"] / EXPORT
    recipe = make_recipe(name, settings, source, steps, job.seed)
    images = recipe_budget(settings).images_per_step // settings.devices
    at: dict[int, tuple[int, float, int]] = {}
    last = Progress(0, 0.0, 0, steps)

    def on_row(row: Mapping[str, Any]) -> None:
        if "step" in row and "seconds" in row:
            last.step, last.seconds = int(row["step"]), float(row["seconds"])
            last.images = last.step * images
            for step in job.export_at:
                if step <= last.step and step not in at:
                    at[step] = (step, last.seconds * step / last.step, step * images)
            job.report(replace(last))

    if job.export_at:
        every = math.gcd(*job.export_at)
        args = {"steps": list(job.export_at), "folder": str(job.folder)}
        hook = EvaluateSpec(every=every, hook=f"{__name__}:export_at", args=args)
        recipe = replace(recipe, evaluate=hook)
    output = job.folder / "recipe"
    model = run_recipe(recipe, output, Hooks(log=[on_row]))
    if not (job.folder / EXPORT).is_dir():
        model.rename(job.folder / EXPORT)
    learned = _learned(output)
    found = Finished(
        last.step,
        last.seconds,
        last.images,
        learned,
        file_digest(next((job.folder / EXPORT).glob("*.safetensors"))),
        at,
    )
    write_json(job.folder / DONE, found.to_json())
    return found


def make_recipe(
    name: str, settings: RecipeStudySettings, source: Path, steps: int, seed: int
) -> TrainRecipe:
    """The recipe of one stage. Raises: ConfigError for wrong data sets."""
    own, is_joint = settings.generator, settings.schedule == "joint"
    data = [dict(entry) for entry in settings.mixed_data]
    if name == "instruction":
        data = [dict(entry) for entry in settings.instruction_data]
    if is_joint:
        data += [dict(entry) for entry in settings.text_data]
    values: dict[str, Any] = {
        "model": str(source),
        "stage": "joint" if is_joint else "generation",
        "data": data,
        "batch_size": own.batch,
        "text_batch_size": own.text_batch if is_joint else 0,
        "max_length": own.max_length,
        "workers": own.workers,
        "target_encoder": _target_folder(settings),
        "loop": {
            "steps": steps,
            "lr": own.lr,
            "min_lr_ratio": own.min_lr_ratio,
            "warmup_steps": min(own.warmup_steps, max(1, steps // 10)),
            "ema_decay": own.ema_decay,
            "accumulation": own.accumulation,
            "sharding": own.sharding,
            "seed": seed,
            "log_every": min(25, steps),
        },
    }
    if is_joint:
        values["text_weight"] = settings.text_weight
    recipe = recipe_from_dict(values, "train")
    assert isinstance(recipe, TrainRecipe)
    return recipe


def export_at(moment: Moment) -> dict[str, float]:
    """Hook of the recipe: the model as it is then, complete or absent."""
    if moment.step in moment.args["steps"]:
        folder = Path(moment.args["folder"]) / EXPORT_STEP.format(moment.step)
        if not folder.is_dir():
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            moment.pipeline.save_pretrained(partial)
            partial.rename(folder)
    return {}


def _start(job: Job, settings: RecipeStudySettings) -> Path:
    """The model that training starts from, written once."""
    folder = job.folder / START
    if folder.is_dir():
        return folder
    job.folder.mkdir(parents=True, exist_ok=True)
    source = find_folder(settings.model)
    torch.manual_seed(job.seed)
    model, tokenizer = assemble(
        source,
        num_queries=settings.num_queries,
        dit_config=settings.dit_values,
        target=settings.target,
        objective=settings.objective,
        head=settings.head,
    )
    card = replace(read_card(source), version="1", modes=(), is_random=False)
    decoder = settings.vae if settings.target == "vae" else settings.clip_decoder
    if decoder is None:
        own = [source / name for name in ("decoder", "diffusion-decoder")]
        decoder = next((str(path) for path in own if path.is_dir()), None)
    if decoder is None:
        raise ConfigError(
            f"model {settings.model!r} brings no pixel decoder: name the folder of one with clip_decoder"
        )
    target = _target_folder(settings)
    pipeline = Blip3oPipeline(
        model,
        tokenizer,
        load_decoder(Path(decoder)),
        card,
        None if settings.target == "vae" or target is None else load_target(Path(target)),
    )
    partial = folder.with_name(START + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.save_pretrained(partial)
    os.replace(partial, folder)
    return folder


def _target_folder(settings: RecipeStudySettings) -> str | None:
    """Folder of the target encoder; None: the VAE that the model draws with."""
    if settings.target == "vae":
        return None
    if settings.clip_encoder is not None:
        return settings.clip_encoder
    folder = find_folder(settings.model)
    return str(folder / TARGET_FOLDER if (folder / TARGET_FOLDER).is_dir() else folder)


def _learned(output: Path) -> int:
    """Numbers that the stage trained, from its checkpoint's moments."""
    from safetensors import safe_open

    with safe_open(output / "train" / "state.safetensors", framework="pt") as file:
        names = [name for name in file.keys() if name.startswith("ema.")]
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)
