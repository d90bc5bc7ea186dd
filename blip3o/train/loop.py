"""One training loop for every stage: batch -> loss -> backward -> clip -> step -> EMA -> log -> save.

A stage supplies what is learned and how a loss is made (:class:`TrainStage`); this file supplies the
rest. Every random draw of step ``s`` comes from a generator seeded with (run seed, ``s``), and the batch of
step ``s`` is a pure function of ``s``; a resumed run therefore continues exactly where the interrupted one
would have been, without storing RNG states.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from blip3o.errors import Blip3oError, ConfigError
from blip3o.train.checkpoint import load_training_state, save_training_state
from blip3o.train.ema import ExponentialMovingAverage

logger = logging.getLogger(__name__)


class TrainingDiverged(Blip3oError):
    """The loss became NaN or infinite; the message names the step and the samples of its batch."""


class TrainStage(Protocol):
    """What the loop needs to know of a stage. ``modules`` maps a name to a module; only parameters with
    ``requires_grad`` learn."""

    name: str
    modules: Mapping[str, nn.Module]

    def batch(self, step: int) -> Any:
        """The batch of one step, a pure function of ``step``."""

    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Scalar loss and plain numbers for the log. Random draws come from ``generator`` only."""


@dataclass(frozen=True)
class LoopConfig:
    """Hyperparameters of one stage.

    ``max_minutes`` ends the stage early: the learning rate follows the larger of the two shares (steps done, minutes
    used), so that a run on a slow machine still ends annealed. Only runs without it repeat bit for bit.
    """

    steps: int
    lr: float
    warmup_steps: int = 100
    min_lr_ratio: float = 0.05
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    bf16: bool = True
    seed: int = 0
    log_every: int = 25
    save_every_s: float = 120.0
    max_minutes: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps {self.steps} is out of range: at least 1")
        if not 0 < self.lr < 1:
            raise ConfigError(f"lr {self.lr} is out of range: greater than 0, less than 1")


@dataclass
class TrainState:
    """Where a run stands."""

    step: int = 0
    seconds: float = 0.0


def step_generator(seed: int, step: int) -> torch.Generator:
    """CPU generator of one step: equal for equal (seed, step) on every machine."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % (2**63 - 1))


def learning_rate(config: LoopConfig, state: TrainState) -> float:
    """Linear warm-up, then cosine from ``lr`` to ``lr * min_lr_ratio``."""
    if state.step < config.warmup_steps:
        return config.lr * (state.step + 1) / config.warmup_steps
    share = state.step / config.steps
    if config.max_minutes is not None:
        share = max(share, state.seconds / (60 * config.max_minutes))
    cosine = 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * cosine)


def is_finished(config: LoopConfig, state: TrainState) -> bool:
    over_time = config.max_minutes is not None and state.seconds >= 60 * config.max_minutes
    return state.step >= config.steps or over_time


@contextlib.contextmanager
def fast_cpu_attention() -> Iterator[None]:
    """Matmul-softmax-matmul attention while training on a CPU.

    The fused kernel's backward takes about two thirds of a step for sequences of 16 to 64 tokens
    (64-token contrastive step, one core, torch 2.15: 0.80 s fused, 0.52 s so). On a GPU nothing changes.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if torch.cuda.is_available():
        yield
    else:
        with sdpa_kernel([SDPBackend.MATH]):
            yield


def train_step(
    stage: TrainStage,
    batch: Any,
    optimizer: torch.optim.Optimizer,
    config: LoopConfig,
    state: TrainState,
) -> dict[str, float]:
    """One optimizer step. Returns the numbers to log. Raises TrainingDiverged when the loss is not finite."""
    rate = learning_rate(config, state)
    for group in optimizer.param_groups:
        group["lr"] = rate
    device = optimizer.param_groups[0]["params"][0].device.type
    with torch.autocast(device, torch.bfloat16, enabled=config.bf16):
        loss, numbers = stage.loss(batch, step_generator(config.seed, state.step))
    if not torch.isfinite(loss):
        ids = getattr(batch, "ids", "unknown")
        raise TrainingDiverged(
            f"stage '{stage.name}': loss {loss.item()} at step {state.step}, samples {ids}"
        )
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"loss": loss.item(), "grad_norm": norm.item(), "lr": rate, **numbers}


def make_optimizer(stage: TrainStage, config: LoopConfig) -> torch.optim.AdamW:
    """AdamW over what learns; vectors and scalars (norms, biases, gates) are not decayed."""
    learning = [
        p for module in stage.modules.values() for p in module.parameters() if p.requires_grad
    ]
    if not learning:
        raise ConfigError(f"stage '{stage.name}' has nothing to learn: every parameter is frozen")
    groups = [
        {"params": [p for p in learning if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=config.lr, betas=config.betas, fused=True
    )


def fit(stage: TrainStage, config: LoopConfig, folder: Path) -> dict[str, nn.Module]:
    """Train ``stage`` to its end, resuming from ``folder`` when it holds a checkpoint of the same configuration.

    Writes ``folder/state.safetensors`` + ``state.json`` (resumable) and ``folder/log.jsonl``.
    Returns the stage's modules with their averaged weights copied in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = make_optimizer(stage, config)
    ema = ExponentialMovingAverage(stage.modules, config.ema_decay)
    state = TrainState()
    if (folder / "state.json").exists():
        state = load_training_state(folder, stage.modules, optimizer, ema, asdict(config))
        logger.info("stage %s: resumed at step %d (%.0f s)", stage.name, state.step, state.seconds)
    for module in stage.modules.values():
        module.train()

    running: dict[str, float] = {}
    window, last_save, last = 0, time.monotonic(), time.monotonic()
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log, fast_cpu_attention():
        if state.step == 0:
            _write(
                log,
                {
                    "stage": stage.name,
                    "date": time.strftime("%Y-%m-%d"),
                    "config": asdict(config),
                    "threads": torch.get_num_threads(),
                    "machine": platform.machine(),
                    "torch": torch.__version__,
                },
            )
        while not is_finished(config, state):
            numbers = train_step(stage, stage.batch(state.step), optimizer, config, state)
            ema.update(state.step)
            state.step += 1
            now = time.monotonic()
            state.seconds, last = state.seconds + now - last, now
            for key, value in numbers.items():
                running[key] = running.get(key, 0.0) + value
            window += 1
            if state.step % config.log_every == 0:
                means = {key: round(value / window, 6) for key, value in running.items()}
                _write(log, {"step": state.step, "seconds": round(state.seconds, 1), **means})
                logger.info(
                    "%s step %d/%d %.0f s %s",
                    stage.name,
                    state.step,
                    config.steps,
                    state.seconds,
                    " ".join(f"{k} {v:.4g}" for k, v in means.items()),
                )
                running, window = {}, 0
            if now - last_save > config.save_every_s:
                save_training_state(folder, stage.modules, optimizer, ema, state, asdict(config))
                last_save = now
        save_training_state(folder, stage.modules, optimizer, ema, state, asdict(config))
        _write(
            log,
            {
                "stage": stage.name,
                "finished": True,
                "step": state.step,
                "seconds": round(state.seconds, 1),
            },
        )
    ema.copy_to(stage.modules)
    for module in stage.modules.values():
        module.eval()
    return dict(stage.modules)


def _write(log: Any, row: dict[str, Any]) -> None:
    log.write(json.dumps(row) + "\n")
    log.flush()
