"""Hyperparameters of every stage of ``blip3o train nano``."""

from __future__ import annotations

from dataclasses import dataclass, field

from blip3o.train.autoencoder import LOOP
from blip3o.train.loop import LoopConfig


@dataclass(frozen=True)
class NanoRecipe:
    """Hyperparameters of the shipped run; ``minutes`` are of one CPU core."""

    world: str = "easy"
    clip: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=4000,
            lr=1e-3,
            warmup_steps=100,
            weight_decay=0.05,
            betas=(0.9, 0.98),
            ema_decay=0.995,
            seed=1,
        )
    )
    clip_batch: int = 64
    clip_decoder_pictures: int = 32
    clip_decoder_weight: float = 10.0
    decoder: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=20000, lr=1e-3, warmup_steps=50, ema_decay=0.998, seed=2
        )
    )
    decoder_batch: int = 32
    feature_noise: float = 0.25
    vision: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=1500, lr=2e-3, warmup_steps=50, weight_decay=0.05, ema_decay=0.99, seed=9
        )
    )
    vision_batch: int = 64
    understanding: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=3000, lr=1e-3, warmup_steps=100, weight_decay=0.01, ema_decay=0.995, seed=11
        )
    )
    understanding_rows: dict[str, int] = field(
        default_factory=lambda: {
            "scenes": 16,
            "edits": 8,
            "texts": 8,
            "imagined": 8,
            "quartets": 2,
            "dialogues": 4,
            "places": 6,
            "rest": 2,
        }
    )
    autoencoder: LoopConfig = LOOP
    autoencoder_batch: int = 16
    generation: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=30000, lr=1e-3, warmup_steps=100, ema_decay=0.999, seed=4
        )
    )
    generation_batch: int = 40
    generation_edits: int = 14
    generation_dialogues: int = 6
    reconstruct_share: float = 0.15  # of the edits: the picture as it was shown
    generation_draws: int = 3
    cache_shards: int = 12
    generator: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=60000, lr=1.5e-3, optimizer="muon", warmup_steps=100, ema_decay=0.9995, seed=12
        )
    )
    alignment: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=1500, lr=1e-3, optimizer="muon", warmup_steps=30, weight_decay=0.01, ema_decay=0.995, seed=22
        )
    )
    alignment_rows: dict[str, int] = field(
        default_factory=lambda: {
            "scenes": 5,
            "edits": 6,
            "texts": 2,
            "imagined": 2,
            "quartets": 1,
            "dialogues": 2,
            "places": 3,
            "rest": 2,
        }
    )
    alignment_captions: int = 16
    alignment_edits: int = 40
    alignment_dialogues: int = 12
    condition_shards: int = 12
    turn_shards: int = 12
    generator_captions: int = 120
    generator_turns: int = 36
    generator_prompt_share: float = 0.75
    tinted_weight: float = 2.2  # how often scenes of tinted objects are drawn: they are what is learned last
    compile: bool = True
