"""A point as stages, each with what it depends on, so that points with the same beginnings share them. No torch.

    vision -> understanding -+
    vision ----------------- + -> generator        sequential builds on understanding, joint on vision
    (autoencoder ->) features -+

On a pretrained backbone both schedules build on ``pretrained``, which takes it out of the parts folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import safe_open

from blip3o.errors import ConfigError
from blip3o.presets import preset_folder
from blip3o.train.study.compute import VAE_CHANNELS, budget, row_flops
from blip3o.train.study.planned import PlannedStage
from blip3o.train.study.recipes import plan_recipe_point
from blip3o.train.study.settings import ImpossibleCombination, StudySettings, read_settings

VERSION = 1  # raised when a stage with the same settings learns something else
DIGESTS_NAME = "digests.json"  # of a weights folder: it names files that are not taken, too
WEIGHTS = "model.safetensors"
PARTS = ("tokenizer.json", "target_encoder/config.json", "decoder/config.json")
# Seconds on one core of a Xeon with AMX that does nothing else (docs/study-design.md has the measurement).
SECONDS = {
    "vision": 0.01,  # a picture
    "autoencoder": 0.025,
    "features": 0.006,  # a scene
    "ceiling": 0.1,
    "text": 20e-12,  # an operation of packed rows
    "sequential": 16e-12,  # an operation of captions, frozen backbone
    "joint": 15e-12,
}
START_SECONDS = 60.0  # imports, loading and compiling
BACKBONE_BYTES, MODEL_BYTES, EXPORT_BYTES = 16_000_000, 170_000_000, 31_000_000


def parts_folder(source: str) -> Path:
    """The folder with tokenizer, CLIP target tower and pixel decoder. Raises: ConfigError."""
    folder = preset_folder("nano") if source == "nano" else Path(source).expanduser()
    for name in PARTS:
        if not (folder / name).is_file():
            raise ConfigError(
                f"parts {source!r}: {folder / name} is missing; name nano or a folder that `blip3o train nano` exported"
            )
    return folder


def parts_digest(source: str, backbone: str = "fresh") -> str:
    """sha256 of what is taken from the parts folder: its backbone, too, where that is ``pretrained``."""
    folder, total = parts_folder(source), hashlib.sha256()
    kept = [path for name in ("target_encoder", "decoder") for path in (folder / name).rglob("*")]
    for path in sorted([*kept, *folder.glob("tokenizer*")]):
        if path.is_file() and path.name != DIGESTS_NAME:
            total.update(path.relative_to(folder).as_posix().encode())
            total.update(path.read_bytes())
    if backbone == "pretrained":
        with safe_open(folder / WEIGHTS, "np") as weights:
            for name in sorted(weights.keys()):
                if name.startswith("backbone."):
                    total.update(name.encode() + weights.get_tensor(name).tobytes())
    return total.hexdigest()


def plan_point(values: Mapping[str, Any], seed: int) -> list[PlannedStage]:
    """Settings of a point -> its stages, in an order in which they can run. Raises: ConfigError,
    ImpossibleCombination."""
    if "model" in values:
        return plan_recipe_point(values, seed)
    settings: StudySettings = read_settings(values)
    _refuse_unused(values, settings)
    shared = seed if settings.shared_seed is None else settings.shared_seed
    if settings.backbone == "pretrained":
        stages = [_pretrained(settings)]
    else:
        stages = [_vision(settings, shared)]
        if settings.schedule == "sequential":
            stages.append(_understanding(settings, shared))
    if settings.target == "vae":
        stages.append(_autoencoder(settings, shared))
    stages.append(_features(settings))
    stages.append(_generator(settings, seed))
    return stages


def _refuse_unused(values: Mapping[str, Any], settings: StudySettings) -> None:
    """Raises: ImpossibleCombination for a setting that changes nothing beside the others."""
    reasons: dict[str, str] = {}
    if settings.backbone == "pretrained":
        taken = "with backbone pretrained changes nothing: it is taken from the parts folder as it is"
        reasons |= dict.fromkeys(("vision", "understanding"), taken)
    else:
        reasons["texts"] = "with backbone fresh changes nothing: joint training sees those of the understanding phase"
    if settings.schedule == "sequential":
        reasons["text_weight"] = "with schedule sequential changes nothing: the generator's phase has no text loss"
    for key, reason in reasons.items():
        if key in values:
            raise ImpossibleCombination(f"{key} {reason}")


def _parts(settings: StudySettings) -> dict[str, Any]:
    return {"parts": settings.parts, "world": settings.world}


def _pretrained(settings: StudySettings) -> PlannedStage:
    """Nothing is trained."""
    values = {**_parts(settings), "backbone": settings.backbone}
    return PlannedStage("pretrained", values, 0, (), 0, 0, seconds=10.0, bytes=BACKBONE_BYTES)


def _vision(settings: StudySettings, seed: int) -> PlannedStage:
    own = settings.vision
    seen = own.steps * own.batch
    seconds = START_SECONDS + seen * SECONDS["vision"]
    values = {**_parts(settings), "vision": asdict(own)}
    return PlannedStage("vision", values, seed, (), own.steps, seen, seconds, 3 * BACKBONE_BYTES)


def _understanding(settings: StudySettings, seed: int) -> PlannedStage:
    own = settings.understanding
    flops = own.steps * sum(n * row_flops(kind) for kind, n in own.rows.items())
    values = {**_parts(settings), "understanding": asdict(own), "compile": settings.compile}
    seen = own.steps * (own.scenes + own.edits)
    seconds = START_SECONDS + flops * SECONDS["text"]
    size = 5 * BACKBONE_BYTES
    return PlannedStage("understanding", values, seed, ("vision",), own.steps, seen, seconds, size)


def _autoencoder(settings: StudySettings, seed: int) -> PlannedStage:
    own = settings.autoencoder
    seen = own.steps * own.batch
    values = {"world": settings.world, "autoencoder": asdict(own)}
    seconds = START_SECONDS + seen * SECONDS["autoencoder"]
    return PlannedStage("autoencoder", values, seed, (), own.steps, seen, seconds, 12_000_000)


def _features(settings: StudySettings) -> PlannedStage:
    own = settings.features
    values = {**_parts(settings), "target": settings.target, "features": asdict(own)}
    channels = VAE_CHANNELS if settings.target == "vae" else 32
    seconds = START_SECONDS + own.scenes * SECONDS["features"] + own.ceiling_scenes * SECONDS["ceiling"]
    size = own.scenes * (channels * 64 * 2 + 600)
    parents = ("autoencoder",) if settings.target == "vae" else ()
    return PlannedStage(
        "features", values, 0, parents, steps=0, images=0, seconds=seconds, bytes=size
    )


def _generator(settings: StudySettings, seed: int) -> PlannedStage:
    plan, values = budget(settings), settings.to_dict()
    is_pretrained = settings.backbone == "pretrained"
    for other in ("vision", "autoencoder", *(["understanding"] if is_pretrained else ["texts"])):
        del values[other]
    if settings.schedule == "sequential":
        del values["text_weight"], values["match"]  # of the joint twin
        values.pop("texts", None)
        del values["generator"]["backbone_lr"]
    start = "vision" if settings.schedule == "joint" else "understanding"
    parents = ["pretrained" if is_pretrained else start, "features"]
    if settings.target == "vae":
        parents.append("autoencoder")
    text = sum(n * row_flops(kind) for kind, n in plan.text_rows.items())
    seconds = (plan.flops - text) * SECONDS[settings.schedule] + text * SECONDS["text"]
    return PlannedStage(
        "generator",
        values,
        seed,
        tuple(parents),
        plan.steps,
        plan.images,
        START_SECONDS + seconds,
        MODEL_BYTES + EXPORT_BYTES,
        EXPORT_BYTES,
    )
