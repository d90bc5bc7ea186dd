"""The whole recipe, every stage for a few seconds: it ends in a folder that the pipeline loads."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from blip3o.pipeline import Blip3oPipeline
from blip3o.train import nano, nano_generation
from blip3o.train.cli import NANO_STAGES, OPTIONAL_NANO_STAGES
from blip3o.train.nano_recipe import NanoRecipe

pytestmark = pytest.mark.slow


def test_every_stage_runs_resumes_and_exports(tmp_path, monkeypatch):
    for name, rows in {"CACHE_SHARD": 256, "CONDITION_SHARD": 128, "TURN_STEPS": 1}.items():
        monkeypatch.setattr(nano_generation, name, rows)
    short = {
        name: dataclasses.replace(
            getattr(NanoRecipe(), name), steps=2, warmup_steps=1, log_every=1
        )
        for name in nano.BUDGETED_STAGES
    }
    shards = {"cache_shards": 1, "condition_shards": 1, "turn_shards": 1}
    recipe = dataclasses.replace(NanoRecipe(), **short, **shards, compile=False)
    nano.NanoTrainer(tmp_path, recipe).run((*NANO_STAGES, *OPTIONAL_NANO_STAGES))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    nano.NanoTrainer(tmp_path, recipe).run(
        NANO_STAGES
    )  # everything is there: only the export is written again
    assert before and before == {
        path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")
    }

    latents = nano.NanoTrainer(tmp_path, recipe).autoencoder()(torch.zeros(1, 3, 64, 64))
    assert latents.shape == (1, 16, 8, 8)
    pipeline = Blip3oPipeline.from_pretrained(tmp_path / "export")
    images = pipeline("a photo of a dog", generator=torch.Generator().manual_seed(0)).images
    assert images[0].size == (64, 64)
    assert isinstance(pipeline.ask(images[0], "What is it?", max_new_tokens=3), str)
    log = (tmp_path / "export" / "training.log").read_text()
    assert all(
        f'"stage": "{name}"' in log for name in nano.TRAINED_STAGES
    )
