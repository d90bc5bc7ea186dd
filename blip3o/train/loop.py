"""One training loop for every stage: batches -> loss -> backward -> clip -> step -> EMA -> log -> save.

A stage supplies what is learned and how a loss is made (:class:`TrainStage`); this file supplies the rest, for one
process or many. Every random draw of micro-batch ``i`` comes from a generator seeded with (run seed, ``i``), and the
batch ``i`` is a pure function of ``i`` or of a data position that is saved; a resumed run therefore continues exactly
where the interrupted one would have been.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from blip3o.errors import Blip3oError, ConfigError
from blip3o.train.checkpoint import (
    TENSORS,
    TrainState,
    load_training_state,
    save_training_state,
)
from blip3o.train.distributed import Processes, Sharding, whole
from blip3o.train.ema import ExponentialMovingAverage
from blip3o.train.phases import PhaseTimes, phase

logger = logging.getLogger(__name__)


class TrainingDiverged(Blip3oError):
    """The loss became NaN or infinite; the message names the step and the samples of its batch."""


class TrainStage(Protocol):
    """What the loop needs to know of a stage. ``modules`` maps a name to a module; only parameters with
    ``requires_grad`` learn.

    Optional attributes: ``counts(batch) -> {term: units}``, needed where ``loss`` returns several terms or batches
    differ in weight; ``blocks``, modules that FSDP2 shards one by one; ``data_state()`` and ``load_data_state(state)``,
    where batches come from a stream; ``is_divisible`` = False where micro-batches do not add up to the large batch
    (a contrastive loss); ``frozen``, modules that help and do not learn, moved to the run's device with the others.
    """

    name: str
    modules: Mapping[str, nn.Module]

    def batch(self, index: int) -> Any:
        """The micro-batch of one index; its ``ids`` name its samples in messages."""

    def loss(
        self, batch: Any, generator: torch.Generator
    ) -> tuple[Tensor | Mapping[str, Tensor], dict[str, float]]:
        """Mean loss, or several by term (each a mean over its ``counts``; they are added), and plain numbers for the
        log. Random draws come from ``generator`` only."""


@dataclass(frozen=True)
class LoopConfig:
    """Hyperparameters of one stage.

    ``accumulation``: micro-batches of each process in a step. ``max_minutes`` ends the stage early: the learning rate
    follows the larger of the two shares (steps done, minutes used), so that a run on a slow machine still ends
    annealed. Only runs without it repeat bit for bit. ``min_lr_ratio``: floor of the cosine, as a share of ``lr``.
    ``evaluate_every``: steps between calls of the evaluation hook, 0 for none.
    """

    steps: int
    lr: float
    warmup_steps: int = 100
    min_lr_ratio: float = 0.05
    schedule: Literal["cosine", "constant"] = "cosine"
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
                ("clip_norm", self.clip_norm, self.clip_norm > 0, "greater than 0"),
                ("ema_decay", self.ema_decay, 0 <= self.ema_decay < 1, "0 or more, less than 1"),
                ("accumulation", self.accumulation, self.accumulation >= 1, "at least 1"),
                ("log_every", self.log_every, self.log_every >= 1, "at least 1"),
            )
            if not ok
        ]  # fmt: skip
        if wrong:
            raise ConfigError("; ".join(wrong))


@dataclass
class Hooks:
    """What a run calls besides training.

    ``evaluate(step, modules)``: numbers to log, called with the averaged weights in place; ``log(row)``: every row of
    the log on the main process (a tracker, for one). ``synchronize``: wait for the GPU around every phase.
    ``peak_tflops``: peak of one process's device; with it the arithmetic of the first step is counted, and the log says
    which share of the peak is reached.
    """

    evaluate: Callable[[int, Mapping[str, nn.Module]], Mapping[str, float]] | None = None
    log: list[Callable[[Mapping[str, Any]], None]] = field(default_factory=list)
    synchronize: bool = False
    peak_tflops: float | None = None


def step_generator(seed: int, index: int) -> torch.Generator:
    """CPU generator of one micro-batch: equal for equal (seed, index) on every machine."""
    return torch.Generator().manual_seed((seed * 1_000_003 + index) % (2**63 - 1))


def learning_rate(config: LoopConfig, state: TrainState) -> float:
    """Linear warm-up, then cosine from ``lr`` to ``lr * min_lr_ratio``, or constant."""
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


class StageModule(nn.Module):
    """A stage as one module, so that its forward is what DDP and FSDP2 wrap."""

    def __init__(self, stage: TrainStage) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(dict(stage.modules))
        self._stage = [stage]  # in a list: its modules are registered above, once

    def forward(
        self, batch: Any, generator: torch.Generator, scales: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, float]]:
        """Sum of the terms, each times its scale, and the log's numbers; ``loss`` is the unscaled sum."""
        terms, numbers = self._stage[0].loss(batch, generator)
        if not isinstance(terms, Mapping):
            terms = {"loss": terms}
        total = torch.stack([term.float() * scales[name] for name, term in terms.items()]).sum()
        unscaled = sum(term.item() for term in terms.values())
        return total, {"loss": unscaled, **numbers}


def train_step(
    stage: TrainStage,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: LoopConfig,
    state: TrainState,
    processes: Processes,
) -> dict[str, float]:
    """One optimizer step over ``accumulation`` micro-batches of every process. Returns the numbers to log.

    Every term is divided by its units in the whole step, not by the number of micro-batches: the gradient is that of
    one large batch. Raises: TrainingDiverged when a loss is not finite, on all processes.
    """
    rate = learning_rate(config, state)
    for group in optimizer.param_groups:
        group["lr"] = rate
    world, numbers = processes.world_size, {}
    first = (state.step * config.accumulation) * world + processes.rank
    indices = [first + micro * world for micro in range(config.accumulation)]
    with phase("data"):
        batches = [to_device(stage.batch(index), processes.device) for index in indices]
        counts = [_counts(stage, batch) for batch in batches]
    with phase("communication"):
        units = processes.sums({key: sum(count[key] for count in counts) for key in counts[0]})
    for index, batch, count in zip(indices, batches, counts, strict=True):
        # DDP and FSDP2 average over processes, so a process's share of the units is multiplied by their number
        scales = {key: world * value / units[key] if units[key] else 0.0 for key, value in count.items()}
        generator = step_generator(config.seed, index)
        with processes.accumulating(module, is_last=index == indices[-1]):
            with phase("forward"), torch.autocast(
                processes.device.type, torch.bfloat16, enabled=config.bf16
            ):
                loss, own = module(batch, generator, scales)
            with phase("communication"):
                bad = processes.sums({"bad": float(not math.isfinite(own["loss"]))})["bad"]
            if bad:
                raise TrainingDiverged(_diverged(stage, state.step, batch, own["loss"]))
            with phase("backward"):
                loss.backward()
        for key, value in own.items():
            numbers[key] = numbers.get(key, 0.0) + value / config.accumulation
    with phase("optimizer"):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = whole(nn.utils.clip_grad_norm_(parameters, config.clip_norm)).item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if world > 1:
        numbers = {key: value / world for key, value in processes.sums(numbers).items()}
    samples = world * sum(len(sample_ids(batch)) for batch in batches)
    return {**numbers, "grad_norm": norm, "lr": rate, "samples": float(samples)}


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors in dataclasses, tuples, lists and dicts moved to ``device``; everything else as it is."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        moved = {f.name: to_device(getattr(value, f.name), device) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **moved)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to_device(item, device) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(to_device(item, device) for item in value)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    return value


def sample_ids(batch: Any) -> list[Any]:
    """Ids of a batch's samples; a batch may be several batches in a tuple, and needs no ids."""
    parts = batch if isinstance(batch, tuple) else (batch,)
    return [i for part in parts for i in getattr(part, "ids", ())]


def _counts(stage: TrainStage, batch: Any) -> dict[str, float]:
    counts = getattr(stage, "counts", None)
    return dict(counts(batch)) if counts else {"loss": 1.0}


def _diverged(stage: TrainStage, step: int, batch: Any, loss: float) -> str:
    if math.isfinite(loss):
        return f"stage '{stage.name}': the loss of another process is not finite at step {step}"
    ids = sample_ids(batch) or "unknown"
    return f"stage '{stage.name}': loss {loss} at step {step}, samples {ids}"


def make_optimizer(stage: TrainStage, module: nn.Module, config: LoopConfig) -> torch.optim.AdamW:
    """AdamW over what learns; vectors and scalars (norms, biases, gates) are not decayed.

    Raises: ConfigError if nothing learns.
    """
    learning = [p for p in module.parameters() if p.requires_grad]
    if not learning:
        raise ConfigError(f"stage '{stage.name}' has nothing to learn: every parameter is frozen")
    groups = [
        {"params": [p for p in learning if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=config.lr, betas=config.betas, fused=True
    )


def fit(
    stage: TrainStage,
    config: LoopConfig,
    folder: Path,
    hooks: Hooks | None = None,
    processes: Processes | None = None,
) -> dict[str, nn.Module]:
    """Train ``stage`` to its end, resuming from ``folder`` when it holds a checkpoint of the same configuration.

    Writes ``folder/state.safetensors`` + ``state.json`` (resumable) and ``folder/log.jsonl``. The number of processes
    and their sharding may change between starts; the samples of a step stay the same as long as processes x
    ``accumulation`` does. Returns the stage's modules with their averaged weights copied in.
    """
    hooks, processes = hooks or Hooks(), processes or Processes(config.sharding)
    if config.accumulation * processes.world_size > 1 and not getattr(stage, "is_divisible", True):
        raise ConfigError(
            f"stage '{stage.name}' compares the samples of a batch with each other, so micro-batches do not add up: "
            "use accumulation 1 in one process"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if not any(p.requires_grad for m in stage.modules.values() for p in m.parameters()):
        raise ConfigError(f"stage '{stage.name}' has nothing to learn: every parameter is frozen")
    for helper in getattr(stage, "frozen", ()):
        helper.to(processes.device)
    module = processes.spread(StageModule(stage), getattr(stage, "blocks", ()))
    optimizer = make_optimizer(stage, module, config)
    ema = ExponentialMovingAverage(stage.modules, config.ema_decay)
    state = TrainState()
    # neither the number of processes nor their sharding changes what is learned
    settings = {k: v for k, v in asdict(config).items() if k not in ("sharding", "accumulation")}
    settings["micro_batches"] = config.accumulation * processes.world_size
    if (folder / TENSORS).exists():
        state = load_training_state(folder, module, optimizer, ema, settings)
        _restore_data(stage, state, processes)
        logger.info("stage %s: resumed at step %d (%.0f s)", stage.name, state.step, state.seconds)
    module.train()

    def save() -> None:
        position = getattr(stage, "data_state", None)
        state.data = [position()] if position else []
        save_training_state(folder, module, optimizer, ema, state, settings, processes)

    log = _Log(stage.name, folder, config, hooks, processes)
    if state.step == 0:
        log.start(asdict(config))
    times, last_save, last = PhaseTimes(hooks.synchronize), time.monotonic(), time.monotonic()
    with fast_cpu_attention(), times.active():
        while not is_finished(config, state):
            with log.counting():
                numbers = train_step(stage, module, optimizer, config, state, processes)
            ema.update(state.step)
            state.step += 1
            now = time.monotonic()
            # one clock for all, or processes would disagree on the end of a time budget
            passed = processes.sums({"s": now - last})["s"] / processes.world_size
            state.seconds, last = state.seconds + passed, now
            log.add(state, {**numbers, **times.take()})
            if config.evaluate_every and hooks.evaluate and not state.step % config.evaluate_every:
                with ema.applied(stage.modules), phase("evaluate"):
                    log.write({"step": state.step, **hooks.evaluate(state.step, stage.modules)})
            wants_save = processes.sums({"s": float(now - last_save > config.save_every_s)})["s"]
            if wants_save:
                save()
                last_save = time.monotonic()
        save()
    log.finish(state)
    ema.copy_to(stage.modules)
    for part in stage.modules.values():
        part.eval()
    return dict(stage.modules)


def _restore_data(stage: TrainStage, state: TrainState, processes: Processes) -> None:
    load = getattr(stage, "load_data_state", None)
    if load and any(entry is not None for entry in state.data):
        load(state.data, processes.rank, processes.world_size)


class _Log:
    """``log.jsonl`` of a stage: means over ``log_every`` steps, with speed and time left."""

    def __init__(
        self, name: str, folder: Path, config: LoopConfig, hooks: Hooks, processes: Processes
    ) -> None:
        self.name, self.path, self.config = name, folder / "log.jsonl", config
        self.hooks, self.processes = hooks, processes
        self.sums: dict[str, float] = {}
        self.window, self.since = 0, time.monotonic()
        self.flops: int | None = None

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Counts the arithmetic of the first step of this process, where a peak is given to compare it with."""
        if self.hooks.peak_tflops is None or self.flops is not None:
            yield
            return
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            yield
        self.flops = counter.get_total_flops()

    def start(self, config: Mapping[str, Any]) -> None:
        self.write(
            {
                "stage": self.name,
                "date": time.strftime("%Y-%m-%d"),
                "config": dict(config),
                "processes": self.processes.world_size,
                "device": str(self.processes.device),
                "threads": torch.get_num_threads(),
                "machine": platform.machine(),
                "torch": torch.__version__,
            }
        )

    def add(self, state: TrainState, numbers: Mapping[str, float]) -> None:
        for key, value in numbers.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.window += 1
        if state.step % self.config.log_every:
            return
        step_s = (time.monotonic() - self.since) / self.window
        samples = self.sums.pop("samples") / self.window
        means = {key: round(value / self.window, 6) for key, value in self.sums.items()}
        if samples:
            means["samples_per_s"] = float(f"{samples / step_s:.4g}")
        if self.flops and self.hooks.peak_tflops:
            means["tflops_per_s"] = float(f"{self.flops / step_s / 1e12:.4g}")
            means["share_of_peak"] = float(f"{self.flops / step_s / 1e12 / self.hooks.peak_tflops:.4g}")
        share = progress(self.config, state)
        left = state.seconds * (1 - share) / share if share < 1 else 0.0
        self.write({"step": state.step, "seconds": round(state.seconds, 1), **means})
        if self.processes.is_main:
            logger.info(
                "%s step %d/%d %.2f s a step, %s left: %s",
                self.name,
                state.step,
                self.config.steps,
                step_s,
                time.strftime("%H:%M:%S", time.gmtime(left)) if left < 86400 else f"{left / 3600:.0f} h",
                " ".join(f"{k} {v:.4g}" for k, v in means.items() if not k.startswith("seconds_")),
            )
        self.sums, self.window, self.since = {}, 0, time.monotonic()

    def finish(self, state: TrainState) -> None:
        seconds = round(state.seconds, 1)
        self.write({"stage": self.name, "finished": True, "step": state.step, "seconds": seconds})

    def write(self, row: Mapping[str, Any]) -> None:
        if not self.processes.is_main:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(row)) + "\n")
        for hook in self.hooks.log:
            hook(row)
