"""Fake training for tests of sweeps: counts steps, writes a number per step, leaves an export. Never a default.

``base.train: {trainer: dummy, target: clip, objective: flow, schedule: sequential, steps: 4}``. The exported model is
the harness's own fake (``evals.models.dummy``), its picture size drawn from the weights: other training, other
verdicts. Among the settings are the faults that a sweep has to survive.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evals.errors import ConfigError, suggest
from evals.fingerprint import sha256_of
from evals.io.files import write_json, writing
from evals.sweeps.api import (
    Checkpoint,
    Compute,
    Estimate,
    ImpossibleError,
    OnCheckpoint,
    StageResult,
    StageSpec,
)
from evals.sweeps.folder import read_json

_IMAGES_PER_STEP, _SECONDS_PER_STEP = 8, 0.5  # what it claims, so that figures do not depend on the clock
_CHOICES = {
    "target": ("clip", "vae"), "objective": ("flow", "mse"), "schedule": ("sequential", "joint"),
}  # fmt: skip


@dataclass(frozen=True)
class _Settings:
    target: str = "clip"
    objective: str = "flow"
    schedule: str = "sequential"
    steps: int = 4
    seconds: float = 0.0  # that a step really takes
    bytes: int = 100  # of an export
    fail_at: int = 0  # raise in this step of the last stage; 0: never
    exit_at: int = 0  # end the process there
    only_once: bool = False  # the fault strikes at the first try alone


def plan_stages(settings: Mapping[str, Any], seed: int) -> Sequence[StageSpec]:
    known = asdict(_Settings())
    for key, value in settings.items():
        if key not in known:
            raise ConfigError(f"unknown key {key!r} of base.train.{suggest(key, known)}")
        if value not in _CHOICES.get(key, (value,)):
            raise ConfigError(f"base.train.{key} = {value!r} is not allowed.{suggest(str(value), _CHOICES[key])}")
    chosen = _Settings(**settings)
    if (chosen.target, chosen.objective) == ("vae", "mse"):
        raise ImpossibleError("a VAE's latents are no features: squared error has nothing to aim at")
    if chosen.schedule == "joint":
        return [_stage("joint", (), asdict(chosen), seed, chosen)]
    first = _stage("understanding", (), {"steps": chosen.steps, "seconds": chosen.seconds}, seed, chosen)
    return [first, _stage("generation", (first.id,), asdict(chosen), seed, chosen)]


def _stage(
    name: str, parents: tuple[str, ...], own: dict[str, Any], seed: int, chosen: _Settings
) -> StageSpec:
    digest = sha256_of([name, list(parents), own, seed])[:12]
    estimate = Estimate(
        chosen.steps, chosen.steps * max(chosen.seconds, 0.001), 2 * chosen.bytes,
        chosen.steps * _IMAGES_PER_STEP, chosen.bytes,
    )  # fmt: skip
    return StageSpec(f"{name}-{digest}", name, parents, own, seed, estimate)


def speed_of(settings: Mapping[str, Any]) -> str:
    return "a fake"


def train_stage(
    spec: StageSpec, folder: Path, stages_root: Path, on_checkpoint: OnCheckpoint
) -> StageResult:
    """One file with all that was learned, replaced after each step."""
    memory = folder / "memory.json"
    known: dict[str, Any] = read_json(memory) if memory.exists() else {"step": 0, "value": spec.id}
    # Its id already says what the parents are; they only have to be there.
    for parent in spec.parents:
        read_json(stages_root / parent / "memory.json")
    settings, total = spec.settings, spec.settings["steps"]
    for step in range(known["step"] + 1, total + 1):
        _strike(settings, step, folder)
        time.sleep(settings["seconds"])
        value = hashlib.sha256(f"{known['value']} {step}".encode()).hexdigest()
        known = {**known, "step": step, "value": value}
        write_json(memory, known, is_durable=False)
        export = None
        if step in spec.export_at:
            export = _export(folder / f"export-step-{step}", value, settings)
        on_checkpoint(Checkpoint(_compute(step), total, export))
    for step in spec.export_at:  # one that a kill took between the memory and the export
        if not (folder / f"export-step-{step}").is_dir():
            _export(folder / f"export-step-{step}", _value_at(spec, step), settings)
    if spec.name != "understanding":
        _export(folder / "export", known["value"], settings)
    at = {step: _compute(step) for step in spec.export_at}
    return StageResult(_compute(total), 1000 + total, known["value"], at)


def _value_at(spec: StageSpec, step: int) -> str:
    value = spec.id
    for i in range(1, step + 1):
        value = hashlib.sha256(f"{value} {i}".encode()).hexdigest()
    return value


def check_run(settings: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    if settings.get("objective") == "mse" and run["generation"]["steps"] is not None:
        raise ImpossibleError("squared error predicts at once: it has no sampling steps")


def flops_of(folder: Path) -> Mapping[str, float]:
    """As if a step took a billion operations."""
    memory = folder / "memory.json"
    return {folder.name.partition("-")[0]: 1e9 * read_json(memory)["step"]} if memory.exists() else {}


def model_of(export: Path) -> str:
    return str(json.loads((export / "model.json").read_text())["model"])


def _compute(steps: int) -> Compute:
    return Compute(steps, steps * _SECONDS_PER_STEP, steps * _IMAGES_PER_STEP)


def _export(folder: Path, value: str, settings: Mapping[str, Any]) -> Path:
    if not folder.is_dir():
        partial = folder.with_name(f".{folder.name}.tmp")
        with writing(folder):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            model = {"model": f"dummy:size={16 + int(value[:2], 16) % 16}", "value": value}
            (partial / "model.json").write_text(json.dumps(model))
            (partial / "weights").write_bytes(b"\0" * settings.get("bytes", 0))
            os.rename(partial, folder)
    return folder


def _strike(settings: Mapping[str, Any], step: int, folder: Path) -> None:
    mark = folder / "struck"
    if step not in (settings.get("fail_at"), settings.get("exit_at")) or (
        settings["only_once"] and mark.exists()
    ):
        return
    mark.touch()
    if step == settings["exit_at"]:
        os._exit(3)
    raise RuntimeError(f"dummy training was told to fail at step {step}")
