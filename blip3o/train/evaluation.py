"""Scores and sample pictures while a model trains.

What scores is the user's: a Python function, or a command. Whatever goes wrong in it is said loudly and costs its
figures, never the training; random states are put back, so that a run with evaluations learns what one without does.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from blip3o.errors import ConfigError
from blip3o.pipeline import Blip3oPipeline
from blip3o.train.contact_sheet import contact_sheet
from blip3o.train.distributed import Processes

logger = logging.getLogger(__name__)

# Under torchrun or SLURM a command would take itself for one of the training's processes.
_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
_LAUNCHER_PREFIXES = ("TORCHELASTIC_", "SLURM_")


@dataclass(frozen=True, kw_only=True)
class EvaluateSpec:
    """What is done every ``every`` steps, with ``at_start`` before the first one too.

    ``hook``: ``module:function``, called with a :class:`Moment` whose ``args`` are these; returns numbers by name.
    ``command``: words, in which ``{model}`` stands for a folder of the model as it is then, ``{output}`` for a folder
    of its own and ``{step}`` for the step; numbers are read from the JSON that it prints last. It is ended after
    ``timeout_s``. ``prompts``: pictures drawn each time with the same noise (``seed``), kept with a contact sheet.
    """

    every: int
    at_start: bool = False
    hook: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] | None = None
    timeout_s: float = 3600.0
    prompts: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = []
        if self.every < 1:
            wrong.append(f"evaluate.every {self.every} is out of range: at least 1")
        if not (self.hook or self.command or self.prompts):
            wrong.append("evaluate does nothing: give a hook, a command or prompts")
        if self.hook is not None and self.hook.count(":") != 1:
            wrong.append(f"evaluate.hook '{self.hook}' must be module:function")
        if self.args and self.hook is None:
            wrong.append("evaluate.args belong to a hook: name one")
        if any(not prompt.strip() for prompt in self.prompts):
            wrong.append("evaluate.prompts must be texts that are not empty")
        if not self.timeout_s > 0:
            wrong.append(f"evaluate.timeout_s {self.timeout_s} must be greater than 0")
        if self.command is not None and not self.command:
            wrong.append("evaluate.command must be a list of words that is not empty")
        if wrong:
            raise ConfigError("; ".join(wrong))


@dataclass(frozen=True)
class Moment:
    """What a hook is given: the model with its averaged weights in place, to be left as it is; a folder for what the
    hook writes (made by whoever needs it); the recipe's ``args``."""

    step: int
    pipeline: Blip3oPipeline
    folder: Path
    args: Mapping[str, Any]


Hook = Callable[[Moment], Mapping[str, float]]


def find_hook(spec: EvaluateSpec) -> Hook | None:
    """The function that a recipe names. A ``check`` of its own is called with ``args``, so that wrong ones are refused
    before anything loads or trains; so is a command that is not on this machine. Raises: ConfigError."""
    if spec.command is not None and shutil.which(spec.command[0]) is None:
        raise ConfigError(f"evaluate.command: '{spec.command[0]}' is no command on this machine")
    if spec.hook is None:
        return None
    module, _, name = spec.hook.partition(":")
    try:
        found = getattr(import_module(module), name)
    except ImportError as error:
        raise ConfigError(f"evaluate.hook: module '{module}' cannot be imported ({error})") from None
    except AttributeError:
        raise ConfigError(f"evaluate.hook: module '{module}' has no function '{name}'") from None
    if not callable(found):
        raise ConfigError(f"evaluate.hook: '{spec.hook}' is no function")
    check = getattr(found, "check", None)
    if check is not None:
        try:
            check(spec.args)
        except Exception as error:
            raise ConfigError(f"evaluate.args: {error}") from error
    return found


class Evaluator:
    """The recipe's evaluation as the loop calls it, on all processes; the main one works, the others wait.

    Args: folder: of the run; ``eval/step-N`` and ``samples`` lie in it. whole: gives the pipeline with whole weights
        on the main process; all processes call it, because sharded weights are put together from all of them.
    """

    def __init__(
        self,
        spec: EvaluateSpec,
        hook: Hook | None,
        folder: Path,
        whole: Callable[[], Blip3oPipeline | None],
        processes: Processes,
    ) -> None:
        self.spec, self.hook, self.folder = spec, hook, folder
        self.whole, self.processes = whole, processes

    def __call__(self, step: int, modules: Mapping[str, nn.Module]) -> dict[str, Any]:
        """Numbers of this step; ``NAME_failed`` holds the reason where a part of the evaluation failed."""
        pipeline = self.whole()
        numbers: dict[str, Any] = {}
        if self.processes.is_main:
            assert pipeline is not None
            pipeline.weights_changed()
            parts: dict[str, Callable[[int, Blip3oPipeline], Mapping[str, Any]]] = {}
            if self.spec.prompts:
                parts["samples"] = self._draw
            if self.hook is not None:
                parts["hook"] = self._call_hook
            if self.spec.command is not None:
                parts["command"] = self._run_command
            for name, part in parts.items():
                try:
                    with undisturbed(), torch.no_grad():
                        numbers.update(part(step, pipeline))
                except (Exception, SystemExit) as error:
                    logger.exception("EVALUATION FAILED at step %d (%s); training goes on", step, name)
                    numbers[f"{name}_failed"] = " ".join(f"{type(error).__name__}: {error}".split())
        self.processes.barrier()
        return numbers

    def step_folder(self, step: int) -> Path:
        return self.folder / "eval" / f"step-{step:08d}"

    def _draw(self, step: int, pipeline: Blip3oPipeline) -> Mapping[str, Any]:
        seeds = [self.spec.seed * 1_000_003 + number for number in range(len(self.spec.prompts))]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        folder = self.folder / "samples" / f"step-{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        for number, (prompt, generator) in enumerate(zip(self.spec.prompts, generators, strict=True)):
            pipeline(prompt, generator=[generator]).images[0].save(folder / f"{number:02d}.png")
        contact_sheet(self.folder / "samples", self.spec.prompts, self.folder / "samples.png")
        return {"samples": len(self.spec.prompts)}

    def _call_hook(self, step: int, pipeline: Blip3oPipeline) -> Mapping[str, Any]:
        assert self.hook is not None
        found = self.hook(Moment(step, pipeline, self.step_folder(step), self.spec.args))
        return numbers_of(dict(found))

    def _run_command(self, step: int, pipeline: Blip3oPipeline) -> Mapping[str, Any]:
        assert self.spec.command is not None
        folder = self.step_folder(step)
        model = folder / "model"
        pipeline.save_pretrained(model)
        values = {"{model}": str(model), "{output}": str(folder), "{step}": str(step)}
        words = []
        for word in self.spec.command:
            for mark, value in values.items():
                word = word.replace(mark, value)
            words.append(word)
        environment = {
            key: value
            for key, value in os.environ.items()
            if key not in _LAUNCHER and not key.startswith(_LAUNCHER_PREFIXES)
        }
        try:
            done = subprocess.run(
                words, env=environment, capture_output=True, text=True, timeout=self.spec.timeout_s
            )
        finally:
            shutil.rmtree(model, ignore_errors=True)
        (folder / "command.log").write_text(done.stdout + done.stderr, encoding="utf-8")
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
            raise RuntimeError(f"{words[0]} ended with exit code {done.returncode}: {last}")
        return numbers_of(_last_json(done.stdout))


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Random states of Python, NumPy and torch are after the block as before it."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def numbers_of(found: Mapping[str, Any]) -> dict[str, float]:
    """Numbers by name: {"a": 1.0}, or results of the harness, {"metrics": {"a": {"value": 1.0, "ci95": [0.9, 1.1]}}}.

    Raises: TypeError for what is no number.
    """
    numbers: dict[str, float] = {}
    for name, value in found.get("metrics", found).items():
        if isinstance(value, Mapping):
            bounds = value.get("ci95") or (None, None)
            own = {"": value.get("value"), "_low": bounds[0], "_high": bounds[1]}
        else:
            own = {"": value}
        for suffix, number in own.items():
            if number is None:
                continue
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise TypeError(f"an evaluation must return numbers by name, got {name} = {number!r}")
            numbers[name + suffix] = float(number)
    return numbers


def _last_json(text: str) -> Mapping[str, Any]:
    """The JSON object that a command printed: all of its output, or its last line."""
    for part in (text, *reversed(text.strip().splitlines()[-1:])):
        with contextlib.suppress(ValueError):
            found = json.loads(part)
            if isinstance(found, dict):
                return found
    return {}
