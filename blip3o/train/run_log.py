"""What a run tells: ``log.jsonl`` and whoever listens to its rows."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from blip3o.train.checkpoint import TrainState
from blip3o.train.distributed import Processes
from blip3o.train.schedule import LoopConfig, progress

logger = logging.getLogger(__name__)


@dataclass
class Hooks:
    """What a run calls besides training.

    ``evaluate(step, modules)``: numbers to log, called on all processes every ``evaluate_every`` steps (with
    ``evaluate_at_start`` before the first one too) with the averaged weights in place; ``log(row)``: every row of the
    log on the main process (a tracker, for one). ``synchronize``: wait for the GPU around every phase.
    ``peak_tflops``: peak of one process's device, ``peak_from`` where the figure is from; with it the arithmetic of the
    first step is counted, and the log says which share of the peak is reached. ``checkpoint(state)`` is called after
    each step of ``checkpoint_at`` with the averaged weights in place; its time is not training time.
    """

    evaluate: Callable[[int, Mapping[str, nn.Module]], Mapping[str, float]] | None = None
    log: list[Callable[[Mapping[str, Any]], None]] = field(default_factory=list)
    synchronize: bool = False
    peak_tflops: float | None = None
    peak_from: str = "given"
    evaluate_at_start: bool = False
    checkpoint_at: frozenset[int] = frozenset()
    checkpoint: Callable[[TrainState], None] | None = None


class RunLog:
    """``log.jsonl`` of a stage: means over ``log_every`` steps, with speed and time left."""

    def __init__(
        self, name: str, folder: Path, config: LoopConfig, hooks: Hooks, processes: Processes
    ) -> None:
        self.name, self.path, self.config = name, folder / "log.jsonl", config
        self.hooks, self.processes = hooks, processes
        self.sums: dict[str, float] = {}
        self.window, self.since = 0, time.monotonic()
        self.flops: int | None = None

    @property
    def wants_count(self) -> bool:
        """Whether the arithmetic of a step is still to be counted: there is a peak to compare it with."""
        return self.hooks.peak_tflops is not None and self.flops is None

    def count(self, micro_batch: Callable[[], None]) -> None:
        """Count the operations of a micro-batch, which stands for all of a step's.

        It is a rehearsal and not the step itself: under the counter torch takes other kernels, which round
        differently, and a resumed run counts at another step than an undisturbed one.
        """
        from torch.utils.flop_counter import FlopCounterMode

        began = time.monotonic()
        with FlopCounterMode(display=False) as counter:
            micro_batch()
        self.flops = counter.get_total_flops() * self.config.accumulation
        self.exclude(time.monotonic() - began)

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
                "peak_tflops": self.hooks.peak_tflops,
                "peak_from": self.hooks.peak_from if self.hooks.peak_tflops else None,
            }
        )

    def resume(self, step: int) -> None:
        """Drop the rows after ``step``: those steps are trained again, and would stand in the log twice."""
        if not self.processes.is_main or not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # torn by the kill
            if row.get("step", 0) <= step and "finished" not in row:
                kept.append(line + "\n")
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text("".join(kept), encoding="utf-8")
        os.replace(partial, self.path)

    def evaluated(self, step: int, numbers: Mapping[str, Any]) -> None:
        """A row of its own for what an evaluation found."""
        self.write({"step": step, "evaluation": True, **numbers})
        if self.processes.is_main:
            told = {k: v for k, v in numbers.items() if not k.endswith(("_low", "_high"))}
            shown = " ".join(f"{k} {v:.4g}" if isinstance(v, int | float) else f"{k} {v}" for k, v in told.items())
            logger.info("%s step %d scored: %s", self.name, step, shown)

    def exclude(self, seconds: float) -> None:
        """Time that belongs to no step."""
        self.since += seconds

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
