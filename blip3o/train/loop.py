"""One training loop for every stage: batches -> loss -> backward -> clip -> step -> EMA -> log -> save.

A stage supplies what is learned and how a loss is made (:class:`blip3o.train.stage.TrainStage`); this file supplies
the rest, for one process or many. Every random draw of micro-batch ``i`` comes from a generator seeded with (run seed,
``i``), and the batch ``i`` is a pure function of ``i`` or of a data position that is saved; a resumed run therefore
continues exactly where the interrupted one would have been.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blip3o.errors import Blip3oError, ConfigError
from blip3o.train.checkpoint import (
    TENSORS,
    TrainState,
    load_training_state,
    save_training_state,
)
from blip3o.train.distributed import Processes, whole
from blip3o.train.ema import ExponentialMovingAverage
from blip3o.train.optimizers import Optimizers, make_optimizers
from blip3o.train.phases import PhaseTimes, phase
from blip3o.train.run_log import Hooks, RunLog
from blip3o.train.schedule import FREE_TO_CHANGE, LoopConfig, is_finished, learning_rate
from blip3o.train.stage import StageModule, TrainStage, sample_ids, to_device, unit_counts

logger = logging.getLogger(__name__)


class TrainingDiverged(Blip3oError):
    """The loss became NaN or infinite; the message names the step and the samples of its batch."""


def step_generator(seed: int, index: int) -> torch.Generator:
    """CPU generator of one micro-batch: equal for equal (seed, index) on every machine."""
    return torch.Generator().manual_seed((seed * 1_000_003 + index) % (2**63 - 1))


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


def train_what_learns(module: nn.Module) -> None:
    """Training mode, but for parts in which nothing learns: those neither drop out nor recompute activations."""
    module.train()
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            part.eval()


def train_step(
    stage: TrainStage,
    module: nn.Module,
    optimizers: Optimizers,
    config: LoopConfig,
    state: TrainState,
    processes: Processes,
    counted: Callable[[Callable[[], None]], None] | None = None,
) -> dict[str, float]:
    """One optimizer step over ``accumulation`` micro-batches of every process. Returns the numbers to log.

    Every term is divided by its units in the whole step, not by the number of micro-batches: the gradient is that of
    one large batch. ``counted`` is given a rehearsal of the first micro-batch, forward and backward, that leaves
    nothing behind. Raises: TrainingDiverged when a loss or the gradient is not finite, on all processes.
    """
    rate = learning_rate(config, state)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for group in groups:
        group["lr"] = rate * group["share"]
    world = processes.world_size
    numbers: dict[str, float] = {}
    first = (state.step * config.accumulation) * world + processes.rank
    indices = [first + micro * world for micro in range(config.accumulation)]
    with phase("data"):
        batches = [to_device(stage.batch(index), processes.device) for index in indices]
        counts = [unit_counts(stage, batch) for batch in batches]
    with phase("communication"):
        units = processes.sums({key: sum(count[key] for count in counts) for key in counts[0]})
    for index, batch, count in zip(indices, batches, counts, strict=True):
        # DDP and FSDP2 average over processes, so a process's share of the units is multiplied by their number
        scales = {key: world * value / units[key] if units[key] else 0.0 for key, value in count.items()}
        if counted is not None and index == indices[0]:
            counted(partial(_rehearse, module, config, batch, index, scales))
        with processes.accumulating(module, is_last=index == indices[-1]):
            with phase("forward"):
                loss, own = _forward(module, config, batch, index, scales)
            with phase("communication"):
                bad = processes.sums({"bad": float(not math.isfinite(own["loss"]))})["bad"]
            if bad:
                raise TrainingDiverged(_diverged(stage, state.step, batch, own["loss"]))
            with phase("backward"):
                loss.backward()
        for key, value in own.items():
            numbers[key] = numbers.get(key, 0.0) + value / config.accumulation
    with phase("optimizer"):
        parameters = [p for group in groups for p in group["params"]]
        norm = whole(nn.utils.clip_grad_norm_(parameters, config.clip_norm)).item()
        if not math.isfinite(norm):  # the same number in all processes
            ids = [name for batch in batches for name in sample_ids(batch)] or "unknown"
            raise TrainingDiverged(
                f"stage '{stage.name}': gradient norm {norm} at step {state.step}, samples {ids}; weights and "
                "checkpoint are those of the step before"
            )
        for optimizer in optimizers:
            optimizer.step()
        module.zero_grad(set_to_none=True)
    if world > 1:
        numbers = {key: value / world for key, value in processes.sums(numbers).items()}
    samples = world * sum(len(sample_ids(batch)) for batch in batches)
    return {**numbers, "grad_norm": norm, "lr": rate, "samples": float(samples)}


def _forward(
    module: nn.Module, config: LoopConfig, batch: Any, index: int, scales: Mapping[str, float]
) -> tuple[Tensor, dict[str, float]]:
    device = next(module.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
        loss, numbers = module(batch, step_generator(config.seed, index), scales)
    return loss, numbers


def _rehearse(module: nn.Module, config: LoopConfig, *micro_batch: Any) -> None:
    """A micro-batch forward and backward, of which nothing is left; all processes take part."""
    loss, _ = _forward(module, config, *micro_batch)
    loss.backward()
    module.zero_grad(set_to_none=True)


def _diverged(stage: TrainStage, step: int, batch: Any, loss: float) -> str:
    if math.isfinite(loss):
        return f"stage '{stage.name}': the loss of another process is not finite at step {step}"
    ids = sample_ids(batch) or "unknown"
    return f"stage '{stage.name}': loss {loss} at step {step}, samples {ids}"


def fit(
    stage: TrainStage,
    config: LoopConfig,
    folder: Path,
    hooks: Hooks | None = None,
    processes: Processes | None = None,
    identity: Mapping[str, Any] | None = None,
) -> dict[str, nn.Module]:
    """Train ``stage`` to its end, resuming from ``folder`` when it holds a checkpoint of the same configuration.

    Writes ``folder/state.safetensors`` + ``state.json`` (resumable) and ``folder/log.jsonl``. The number of processes
    and their sharding may change between starts; the samples of a step stay the same as long as processes x
    ``accumulation`` does. ``identity``: settings beside ``config`` that must be the same when a run is resumed.
    Returns the stage's modules with their averaged weights copied in.
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
    optimizers = make_optimizers(stage, module, config)
    ema = ExponentialMovingAverage(stage.modules, config.ema_decay)
    state = TrainState()
    settings = {**lasting_settings(config, processes.world_size), **(identity or {})}
    log = RunLog(stage.name, folder, config, hooks, processes)
    if (folder / TENSORS).exists():
        state = load_training_state(folder, module, optimizers, ema, settings, FREE_TO_CHANGE)
        _restore_data(stage, state, processes)
        log.resume(state.step)
        logger.info("stage %s: resumed at step %d (%.0f s)", stage.name, state.step, state.seconds)
    else:
        log.start(asdict(config))

    def save() -> None:
        position = getattr(stage, "data_state", None)
        state.data = [position()] if position else []
        save_training_state(folder, module, optimizers, ema, state, settings, processes)

    def evaluate() -> None:
        if hooks.evaluate is not None:
            with ema.applied(stage.modules), phase("evaluate"):
                log.evaluated(state.step, hooks.evaluate(state.step, stage.modules))

    train_what_learns(module)
    times, last_save, last = PhaseTimes(hooks.synchronize), time.monotonic(), time.monotonic()
    with fast_cpu_attention(), times.active():
        if hooks.evaluate_at_start and state.step == 0:
            evaluate()
            log.exclude(time.monotonic() - last)
            last = time.monotonic()
        while not is_finished(config, state):
            counted = log.count if log.wants_count else None
            numbers = train_step(stage, module, optimizers, config, state, processes, counted)
            ema.update(state.step)
            state.step += 1
            now = time.monotonic()
            # one clock for all, or processes would disagree on the end of a time budget
            passed = processes.sums({"s": now - last})["s"] / processes.world_size
            state.seconds += passed
            log.add(state, {**numbers, **times.take()})
            # before the save: a kill in between costs a repetition, never a gap
            hooked = time.monotonic()
            if config.evaluate_every and not state.step % config.evaluate_every:
                evaluate()
            if hooks.checkpoint is not None and state.step in hooks.checkpoint_at:
                with ema.applied(stage.modules):
                    hooks.checkpoint(state)
            spent = time.monotonic() - hooked  # hooks are no training: they take nothing off a time budget
            log.exclude(spent)
            last = now + spent
            wants_save = processes.sums({"s": float(now - last_save > config.save_every_s)})["s"]
            if wants_save:
                with phase("save"):
                    save()
                last_save = time.monotonic()
        save()
    log.finish(state)
    ema.copy_to(stage.modules)
    for part in stage.modules.values():
        part.eval()
    return dict(stage.modules)


def lasting_settings(config: LoopConfig, world_size: int) -> dict[str, Any]:
    """What a checkpoint and the run that resumes it must have in common."""
    settings = {key: value for key, value in asdict(config).items() if key not in FREE_TO_CHANGE}
    return {**settings, "micro_batches": config.accumulation * world_size}


def _restore_data(stage: TrainStage, state: TrainState, processes: Processes) -> None:
    load = getattr(stage, "load_data_state", None)
    if load and any(entry is not None for entry in state.data):
        load(state.data, processes.rank, processes.world_size)
