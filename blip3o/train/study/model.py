"""The models of the study: equal starts for all cells, and the folder that a point leaves."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from blip3o.decoder import load_decoder
from blip3o.loading import load_tokenizer
from blip3o.pipeline import Blip3oPipeline, PipelineCard, Understanding
from blip3o.stickers import SceneConfig
from blip3o.train.nano_parts import model_config, open_gates, start_queries, vlm_of
from blip3o.train.stages import freeze
from blip3o.train.study.compute import dit_values
from blip3o.train.study.plan import parts_folder
from blip3o.train.study.settings import StudySettings
from blip3o.train.world_data import PROMPTS
from blip3o.unified import Blip3oModel
from blip3o.vision.autoencoder import Autoencoder
from blip3o.vision.targets import Target, autoencoder_target, load_target


def study_tokenizer(source: str) -> PreTrainedTokenizerBase:
    return load_tokenizer(parts_folder(source))


def load_study_target(settings: StudySettings, autoencoder: Path | None) -> Target:
    """The frozen target encoder of a point. Args: autoencoder: folder of the trained VAE, for ``target: vae``."""
    if settings.target == "clip":
        target = load_target(parts_folder(settings.parts) / "target_encoder")
    else:
        assert autoencoder is not None
        target = autoencoder_target(load_autoencoder(autoencoder))
    freeze(target)
    return target


def load_autoencoder(folder: Path) -> Autoencoder:
    """The trained VAE, in the memory layout that convolutions on a CPU want."""
    vae = load_decoder(folder)
    assert isinstance(vae, Autoencoder)
    return vae.to(memory_format=torch.channels_last)


def fresh_model(
    settings: StudySettings,
    seed: int,
    tokenizer: PreTrainedTokenizerBase,
    backbone: dict[str, torch.Tensor],
) -> Blip3oModel:
    """A point before its generator phase.

    Queries and generator start from the same numbers in every cell of a seed: all are drawn for the CLIP target, and
    what has another shape under another target (the two layers that touch patches) is drawn beside it.
    """
    model = _random_model(settings, seed, tokenizer)
    if settings.target != "clip" and settings.head == "dit":
        template = _random_model(StudySettings(num_queries=settings.num_queries), seed, tokenizer)
        reference, own = template.dit.state_dict(), model.dit.state_dict()
        alike = {k: v for k, v in reference.items() if v.shape == own[k].shape}
        model.dit.load_state_dict({**own, **alike})
    vlm_of(model).load_state_dict(backbone)
    start_queries(model, seed)
    if settings.head == "dit":
        open_gates(model)
    return model


def _random_model(
    settings: StudySettings, seed: int, tokenizer: PreTrainedTokenizerBase
) -> Blip3oModel:
    torch.manual_seed(seed)
    return Blip3oModel(
        model_config(
            tokenizer,
            num_queries=settings.num_queries,
            target=settings.target,
            objective=settings.objective,
            head=settings.head,
            dit_config=dit_values(settings.target),
        )
    )


def count_parameters(model: Blip3oModel) -> dict[str, int]:
    """Numbers by part: what learns in each cell can be read off it."""
    parts: dict[str, nn.Module] = {
        "backbone": model.backbone,
        "queries": model.queries,
        "generator": model.get_submodule(model.network_name),
    }
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def export(
    folder: Path,
    model: Blip3oModel,
    settings: StudySettings,
    tokenizer: PreTrainedTokenizerBase,
    autoencoder: Path | None,
) -> None:
    """A pipeline folder with half-precision weights, complete or absent."""
    world = SceneConfig.level(settings.world)
    half = (0.5, 0.5, 0.5)  # pictures in [-1, 1]
    card = PipelineCard(
        domain="stickers",
        batch_size=32,
        prompts=PROMPTS.to_dict(),
        understanding=asdict(Understanding(size_px=world.size_px, mean=half, std=half)),
        modes=("ask", "generate", "reconstruct"),
    )
    target: Target | None = None
    if settings.target == "clip":
        parts = parts_folder(settings.parts)
        decoder, target = load_decoder(parts / "decoder"), load_target(parts / "target_encoder")
    else:
        assert autoencoder is not None
        decoder = load_decoder(autoencoder)  # the VAE that draws is the one that encodes
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    Blip3oPipeline(model, tokenizer, decoder, card, target).save_pretrained(partial, torch.float16)
    partial.rename(folder)


def describe(settings: StudySettings, model: Blip3oModel) -> dict[str, Any]:
    """Parameters of a cell, and how many of them learn in the generator phase."""
    counts = count_parameters(model)
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"parameters": counts, "learned": learned}
