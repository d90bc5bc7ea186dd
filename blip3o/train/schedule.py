"""How long a stage runs, and how fast it learns at each moment of that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from blip3o.errors import ConfigError
from blip3o.train.checkpoint import TrainState
from blip3o.train.distributed import Sharding
from blip3o.train.kinds import Optimizer

# Settings that decide how a run goes on and not what it learns; they may change when it is resumed.
FREE_TO_CHANGE = ("sharding", "accumulation", "log_every", "save_every_s", "evaluate_every")


@dataclass(frozen=True)
class LoopConfig:
    """Hyperparameters of one stage.

    ``accumulation``: micro-batches of each process in a step. ``max_minutes`` ends the stage early: the learning rate
    follows the larger of the two shares (steps done, minutes used), so that a run on a slow machine still ends
    annealed. Only runs without it repeat bit for bit. ``min_lr_ratio``: floor of the cosine, as a share of ``lr``.
    ``evaluate_every``: steps between calls of the evaluation hook, 0 for none. ``optimizer``: see
    :mod:`blip3o.train.optimizers`; ``betas`` are AdamW's.
    """

    steps: int
    lr: float
    warmup_steps: int = 100
    min_lr_ratio: float = 0.05
    schedule: Literal["cosine", "constant"] = "cosine"
    optimizer: Optimizer = "adamw"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    bf16: bool = True
    seed: int = 0
    accumulation: int = 1
    sharding: Sharding = "ddp"
    log_every: int = 25
    save_every_s: float = 120.0
    evaluate_every: int = 0
    max_minutes: float | None = None

    def __post_init__(self) -> None:
        wrong = [
            f"{name} {value} is out of range: {allowed}"
            for name, value, ok, allowed in (
                ("steps", self.steps, self.steps >= 1, "at least 1"),
                ("lr", self.lr, 0 < self.lr < 1, "greater than 0, less than 1"),
                ("warmup_steps", self.warmup_steps, self.warmup_steps >= 0, "at least 0"),
                ("min_lr_ratio", self.min_lr_ratio, 0 <= self.min_lr_ratio <= 1, "0 to 1"),
                ("schedule", self.schedule, self.schedule in ("cosine", "constant"),
                 "cosine or constant"),
                ("optimizer", self.optimizer, self.optimizer in get_args(Optimizer), "adamw or muon"),
                ("optimizer", self.optimizer, self.optimizer != "muon" or self.sharding == "ddp",
                 "muon turns whole matrices, sharding fsdp2 cuts them; use sharding ddp"),
                ("clip_norm", self.clip_norm, self.clip_norm > 0, "greater than 0"),
                ("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more"),
                ("betas", self.betas, len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas),
                 "two numbers, 0 or more and less than 1"),
                ("seed", self.seed, 0 <= self.seed < 2**63, "0 to 2**63 - 1"),
                ("ema_decay", self.ema_decay, 0 <= self.ema_decay < 1, "0 or more, less than 1"),
                ("accumulation", self.accumulation, self.accumulation >= 1, "at least 1"),
                ("log_every", self.log_every, self.log_every >= 1, "at least 1"),
                ("save_every_s", self.save_every_s, self.save_every_s >= 0, "at least 0"),
                ("evaluate_every", self.evaluate_every, self.evaluate_every >= 0, "at least 0"),
                ("max_minutes", self.max_minutes, self.max_minutes is None or self.max_minutes > 0, "greater than 0"),
            )
            if not ok
        ]  # fmt: skip
        if wrong:
            raise ConfigError("; ".join(wrong))


def learning_rate(config: LoopConfig, state: TrainState) -> float:
    """Linear warm-up, then constant, or the cosine of the whole run, from ``lr`` at its first step to ``lr *
    min_lr_ratio`` at its last: after a long warm-up the rate goes on below ``lr``."""
    if state.step < config.warmup_steps:
        return config.lr * (state.step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    share = progress(config, state)
    cosine = 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * cosine)


def progress(config: LoopConfig, state: TrainState) -> float:
    """Share of the run that is done: the larger of steps done and minutes used."""
    share = state.step / config.steps
    if config.max_minutes is not None:
        share = max(share, state.seconds / (60 * config.max_minutes))
    return share


def is_finished(config: LoopConfig, state: TrainState) -> bool:
    return progress(config, state) >= 1
