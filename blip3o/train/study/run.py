"""One stage of the study, trained in a folder and resumed there: bit for bit, whenever it was interrupted.

| stage | learns | leaves |
| --- | --- | --- |
| pretrained | nothing: the backbone of the parts folder | backbone.safetensors |
| vision | the backbone's vision tower, taught by the CLIP tower | backbone.safetensors |
| understanding | backbone, by next token | backbone.safetensors |
| autoencoder | the VAE of the VAE target | vae/ |
| features | nothing: features and captions on disk, the target's ceiling | features/, ceiling.json |
| generator | queries and generator; in joint training the backbone, too | export/, export-step-<n>/ |
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from blip3o.decoder import PixelDecoder, load_decoder
from blip3o.pipeline import Blip3oPipeline
from blip3o.stickers import SceneConfig
from blip3o.storage import file_digest, read_json, read_tensors, write_json
from blip3o.train.autoencoder import LOOP, AutoencoderStage, build_vae, standardise
from blip3o.train.checkpoint import TrainState, save_tensors
from blip3o.train.frozen_opening import FrozenOpening
from blip3o.train.loop import Hooks, LoopConfig, TrainStage, fit
from blip3o.train.nano_config import BACKBONE_TEXT, CLIP_CONFIG, DIT_CONFIG, IMAGE_TOKENS
from blip3o.train.nano_parts import build_backbone, compile_layers, patches_for, vlm_of
from blip3o.train.stages import VisionStage, freeze
from blip3o.train.study.ceiling import measure_ceiling
from blip3o.train.study.compute import budget
from blip3o.train.study.data import CaptionBatches, TextRows, features_key, write_features
from blip3o.train.study.losses import GeneratorPhase, UnderstandingPhase
from blip3o.train.study.model import (
    describe,
    export,
    fresh_model,
    load_autoencoder,
    load_study_target,
    study_tokenizer,
)
from blip3o.train.study.plan import parts_folder
from blip3o.train.world_data import CellLabels, Scenes
from blip3o.vision.targets import load_target

logger = logging.getLogger(__name__)

BACKBONE, DONE = "backbone.safetensors", "done.json"
EXPORT, EXPORT_STEP = "export", "export-step-{}"
WARMUP_SHARE = 0.05
SAVE_EVERY_S, LOG_EVERY = 60.0, 25


@dataclass
class Progress:
    """Where a stage stands: steps and seconds of its loop (exports left out), pictures that it learned from."""

    step: int
    seconds: float
    images: int
    total_steps: int
    export: Path | None = None


@dataclass
class Finished:
    """What a stage took. ``at``: steps, seconds and images at each export; ``info``: parameters, budget, ceiling."""

    steps: int
    seconds: float
    images: int
    learned: int
    weights: str | None
    at: dict[int, tuple[int, float, int]] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "at": {str(step): list(row) for step, row in self.at.items()}}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Finished:
        at = {int(step): tuple(row) for step, row in values["at"].items()}
        return cls(**{**values, "at": at})


@dataclass
class Job:
    """A stage to train. ``settings``: StudySettings, for ``recipe_run`` RecipeStudySettings; ``parents``: folders of
    finished stages by name; ``report`` may raise to stop."""

    settings: Any
    seed: int
    folder: Path
    parents: Mapping[str, Path]
    export_at: tuple[int, ...] = ()
    report: Callable[[Progress], None] = lambda progress: None

    @property
    def vae(self) -> Path | None:
        """Folder of the trained VAE, where the point has one."""
        return self.parents["autoencoder"] / "vae" if "autoencoder" in self.parents else None

    @property
    def world(self) -> SceneConfig:
        return SceneConfig.level(self.settings.world)


def run_stage(name: str, job: Job) -> Finished:
    """Train the stage, or read what it left when it finished earlier."""
    finished = read_finished(job)
    if finished is None:
        job.folder.mkdir(parents=True, exist_ok=True)
        finished = STAGES[name](job)
        write_json(job.folder / DONE, finished.to_json())
    return finished


def read_finished(job: Job) -> Finished | None:
    """What a finished stage wrote; None where there is something left to do.

    A stage that finished without exports that are wanted now has to be trained anew for them: it forgets its end.
    """
    done = job.folder / DONE
    if not done.is_file():
        return None
    if all(_step_folder(job, step).is_dir() for step in job.export_at):
        return Finished.from_json(read_json(done))
    done.unlink()
    for name in ("train", "recipe"):
        shutil.rmtree(job.folder / name, ignore_errors=True)
    return None


# -- the stages ------------------------------------------------------------------------------------------------------


def pretrained(job: Job) -> Finished:
    backbone = vlm_of(Blip3oPipeline.from_pretrained(_parts(job)).model).float()
    return _keep_backbone(job, backbone, Finished(0, 0.0, 0, learned=0, weights=None))


def vision(job: Job) -> Finished:
    own = job.settings.vision
    backbone = _backbone(job)
    tower = backbone.model.visual
    encoder = load_target(_parts(job) / "target_encoder").encoder
    grid = int(IMAGE_TOKENS**0.5)
    stage = VisionStage(
        tower,
        freeze(encoder),
        CellLabels("train", job.world, own.batch, grid=grid),
        patches_for(backbone),
        hidden_size=BACKBONE_TEXT["hidden_size"],
        feature_size=CLIP_CONFIG["vision_cfg"]["width"] * (DIT_CONFIG["input_size"] // grid) ** 2,
        grid=grid,
    )
    config = _loop(own.steps, own.lr, job.seed, ema_decay=0.99, weight_decay=0.05)
    finished = _fit(stage, config, job, own.batch)
    return _keep_backbone(job, backbone, finished)


def understanding(job: Job) -> Finished:
    own = job.settings.understanding
    backbone = _backbone(job)
    backbone.load_state_dict(read_tensors(job.parents["vision"] / BACKBONE))
    tokenizer = study_tokenizer(job.settings.parts)
    totals = {kind: own.steps * count for kind, count in own.rows.items()}
    rows = TextRows(job.world, tokenizer, IMAGE_TOKENS, totals, own.steps, job.seed)
    if _can_compile(job):
        compile_layers(backbone)
    stage = UnderstandingPhase(backbone, rows, patches_for(backbone))
    config = _loop(own.steps, own.lr, job.seed, ema_decay=0.995, weight_decay=0.01)
    finished = _fit(stage, config, job, own.scenes + own.edits)
    return _keep_backbone(job, backbone, finished)


def autoencoder(job: Job) -> Finished:
    own = job.settings.autoencoder
    vae = build_vae(job.seed)
    stage = AutoencoderStage(vae, Scenes("train", job.world, own.batch, first=8_000_000))
    config = replace(
        LOOP, steps=own.steps, lr=own.lr, warmup_steps=_warmup(own.steps), seed=job.seed
    )
    finished = _fit(stage, config, job, own.batch)
    target = standardise(vae, Scenes("train", job.world, 512)(0).pixels)
    partial = job.folder / "vae.partial"
    shutil.rmtree(partial, ignore_errors=True)
    target.save_pretrained(partial)
    shutil.rmtree(job.folder / "vae", ignore_errors=True)
    partial.rename(job.folder / "vae")
    finished.weights = file_digest(next((job.folder / "vae" / "vae").glob("*.safetensors")))
    return finished


def features(job: Job) -> Finished:
    """No optimizer steps and no pictures learned from; progress counts scenes."""
    own, settings = job.settings.features, job.settings
    start, target = time.monotonic(), load_study_target(settings, job.vae)

    def on_shard(done: int) -> None:
        job.report(Progress(done, time.monotonic() - start, done, own.scenes))

    write_features(
        job.folder / "features",
        own.scenes,
        job.world,
        target,
        study_tokenizer(settings.parts),
        features_key(job.world, job.folder.name),
        on_shard,
    )
    info: dict[str, Any] = {}
    if own.ceiling_scenes:
        decoder = _decoder(job)
        info["ceiling"] = measure_ceiling(target, decoder, job.world, own.ceiling_scenes)
        write_json(job.folder / "ceiling.json", info["ceiling"])
    seconds = time.monotonic() - start
    return Finished(0, seconds, 0, learned=0, weights=None, info=info)


def generator(job: Job) -> Finished:
    settings, own = job.settings, job.settings.generator
    tokenizer, plan = study_tokenizer(settings.parts), budget(settings)
    is_joint = settings.schedule == "joint"
    before = ("pretrained", "vision" if is_joint else "understanding")
    start = next(job.parents[name] for name in before if name in job.parents) / BACKBONE
    model = fresh_model(settings, job.seed, tokenizer, read_tensors(start))
    texts = None
    if is_joint:
        shared = job.seed if settings.shared_seed is None else settings.shared_seed
        texts = TextRows(
            job.world, tokenizer, IMAGE_TOKENS, plan.text_rows, plan.steps, shared
        )
    else:
        freeze(model.backbone)
    if _can_compile(job):
        compile_layers(vlm_of(model))
        if settings.head == "dit":
            model.dit.compile(dynamic=False)
    last = round(settings.instruction_share * plan.steps)
    captions = CaptionBatches(
        job.parents["features"] / "features",
        features_key(job.world, job.parents["features"].name),
        settings.features.scenes,
        own.batch,
        job.seed,
        settings.mixture.shares,
        int(tokenizer.pad_token_id),
        plan.steps - last if last else None,
    )
    stage = GeneratorPhase(
        model,
        captions,
        own.draws,
        texts,
        patches_for(vlm_of(model)),
        settings.text_weight,
        None if is_joint else FrozenOpening(model, captions.opening),
        (own.backbone_lr or own.lr) / own.lr,
    )
    config = _loop(plan.steps, own.lr, job.seed, optimizer=own.optimizer, ema_decay=own.ema_decay)
    vae = job.vae

    def save(folder: Path) -> None:
        if not folder.is_dir():
            export(folder, model, settings, tokenizer, vae)

    facts = describe(settings, model)
    finished = _fit(stage, config, job, own.batch, save)
    save(job.folder / EXPORT)
    finished.weights = file_digest(job.folder / EXPORT / "model.safetensors")
    finished.info = {**facts, "budget": plan.to_dict()}
    return finished


STAGES: dict[str, Callable[[Job], Finished]] = {
    "pretrained": pretrained,
    "vision": vision,
    "understanding": understanding,
    "autoencoder": autoencoder,
    "features": features,
    "generator": generator,
}

# -- shared ----------------------------------------------------------------------------------------------------------


def _fit(
    stage: TrainStage,
    config: LoopConfig,
    job: Job,
    images_per_step: int,
    save: Callable[[Path], None] | None = None,
) -> Finished:
    """Run the loop; exports and their figures go to the job's folder."""
    record = job.folder / "at.json"
    at: dict[int, tuple[int, float, int]] = {}
    if record.is_file() and (job.folder / "train").is_dir():
        at = {int(k): tuple(v) for k, v in json.loads(record.read_text()).items()}
    last = Progress(0, 0.0, 0, config.steps)

    def on_row(row: Mapping[str, Any]) -> None:
        if "step" in row and "seconds" in row:
            last.step, last.seconds = int(row["step"]), float(row["seconds"])
            last.images = last.step * images_per_step
            job.report(replace(last))

    def on_checkpoint(state: TrainState) -> None:
        folder = _step_folder(job, state.step)
        assert save is not None
        save(folder)
        images = state.step * images_per_step
        at[state.step] = (state.step, state.seconds, images)
        write_json(record, {str(k): list(v) for k, v in at.items()})
        job.report(Progress(state.step, state.seconds, images, config.steps, folder))

    hooks = Hooks(log=[on_row])
    if save is not None and job.export_at:
        hooks.checkpoint_at, hooks.checkpoint = frozenset(job.export_at), on_checkpoint
    learned = sum(p.numel() for m in stage.modules.values() for p in m.parameters() if p.requires_grad)
    fit(stage, config, job.folder / "train", hooks)
    return Finished(last.step, last.seconds, last.step * images_per_step, learned, None, at)


def _loop(steps: int, lr: float, seed: int, **settings: Any) -> LoopConfig:
    return LoopConfig(
        steps=steps, lr=lr, warmup_steps=_warmup(steps), seed=seed, save_every_s=SAVE_EVERY_S,
        log_every=min(LOG_EVERY, steps), **settings,
    )  # fmt: skip


def _warmup(steps: int) -> int:
    return min(100, max(1, round(WARMUP_SHARE * steps)))


def _parts(job: Job) -> Path:
    return parts_folder(job.settings.parts)


def _decoder(job: Job) -> PixelDecoder:
    if job.settings.target == "vae":
        assert job.vae is not None
        return load_autoencoder(job.vae).eval()
    return load_decoder(_parts(job) / "decoder").to(memory_format=torch.channels_last).eval()


def _backbone(job: Job) -> Qwen2_5_VLForConditionalGeneration:
    return build_backbone(study_tokenizer(job.settings.parts), job.seed)


def _keep_backbone(
    job: Job, backbone: Qwen2_5_VLForConditionalGeneration, finished: Finished
) -> Finished:
    tensors = {key: value.clone() for key, value in backbone.state_dict().items()}
    save_tensors(job.folder / BACKBONE, tensors)
    finished.weights = file_digest(job.folder / BACKBONE)
    return finished


def _can_compile(job: Job) -> bool:
    """What repeats is compiled where a C++ compiler is at hand."""
    return job.settings.compile and shutil.which("c++") is not None


def _step_folder(job: Job, step: int) -> Path:
    return job.folder / EXPORT_STEP.format(step)
