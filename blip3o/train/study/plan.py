"""A point as stages, each with what it depends on, so that points with the same beginnings share them. No torch.

    vision -> understanding -+
    vision ----------------- + -> generator        sequential builds on understanding, joint on vision
    (autoencoder ->) features -+
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from blip3o.errors import ConfigError
from blip3o.presets import preset_folder
from blip3o.train.study.compute import VAE_CHANNELS, budget, row_flops
from blip3o.train.study.planned import PlannedStage
from blip3o.train.study.recipes import plan_recipe_point
from blip3o.train.study.settings import ImpossibleCombination, StudySettings, read_settings

VERSION = 1  # raised when a stage with the same settings learns something else
DIGESTS_NAME = "digests.json"  # of a weights folder: it names files that are not taken, too
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


def parts_digest(source: str) -> str:
    """sha256 of what is taken from the parts folder."""
    folder, total = parts_folder(source), hashlib.sha256()
    kept = [path for name in ("target_encoder", "decoder") for path in (folder / name).rglob("*")]
    for path in sorted([*kept, *folder.glob("tokenizer*")]):
        if path.is_file() and path.name != DIGESTS_NAME:
            total.update(path.relative_to(folder).as_posix().encode())
            total.update(path.read_bytes())
    return total.hexdigest()


def plan_point(values: Mapping[str, Any], seed: int) -> list[PlannedStage]:
    """Settings of a point -> its stages, in an order in which they can run. Raises: ConfigError,
    ImpossibleCombination."""
    if "model" in values:
        return plan_recipe_point(values, seed)
    settings: StudySettings = read_settings(values)
    if settings.schedule == "sequential" and ("text_weight" in values or "match" in values):
        key = "text_weight" if "text_weight" in values else "match"
        raise ImpossibleCombination(
            f"{key} with schedule sequential changes nothing: the generator's phase has no text loss"
        )
    shared = seed if settings.shared_seed is None else settings.shared_seed
    stages = [_vision(settings, shared)]
    if settings.schedule == "sequential":
        stages.append(_understanding(settings, shared))
    if settings.target == "vae":
        stages.append(_autoencoder(settings, shared))
    stages.append(_features(settings))
    stages.append(_generator(settings, seed))
    return stages


def _parts(settings: StudySettings) -> dict[str, Any]:
    return {"parts": settings.parts, "world": settings.world}


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
    for other in ("vision", "autoencoder"):
        del values[other]
    if settings.schedule == "sequential":
        del values["text_weight"], values["match"]
    parents = ["vision" if settings.schedule == "joint" else "understanding", "features"]
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
