"""Training checkpoints: safetensors for tensors, JSON for the rest, written to a temporary file and renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from blip3o.errors import ConfigError, WeightsError

if TYPE_CHECKING:
    from blip3o.train.ema import ExponentialMovingAverage
    from blip3o.train.loop import TrainState

TENSORS, METADATA = "state.safetensors", "state.json"


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Atomic safetensors write: a reader sees the old file or the whole new one."""
    partial = path.with_suffix(path.suffix + ".partial")
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
        partial,
        metadata=dict(metadata or {}),
    )
    os.replace(partial, path)


def save_json(path: Path, value: Any) -> None:
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, path)


def save_training_state(
    folder: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    ema: ExponentialMovingAverage,
    state: TrainState,
    config: Mapping[str, Any],
) -> None:
    """Weights, averages and optimizer moments in one file; step, seconds and configuration travel in its header, so
    that a kill between two writes can never pair the tensors of one step with the counters of another."""
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            tensors[f"weights.{name}.{key}"] = value.clone()
    for key, value in ema.averages.items():
        tensors[f"ema.{key}"] = value
    slots = optimizer.state_dict()["state"]
    for index, slot in slots.items():
        for key, value in slot.items():
            tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
    header = {
        "step": state.step,
        "seconds": state.seconds,
        "config": json.loads(json.dumps(config)),
    }
    save_tensors(folder / TENSORS, tensors, {"state": json.dumps(header)})
    save_json(folder / METADATA, header)


def load_training_state(
    folder: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    ema: ExponentialMovingAverage,
    config: Mapping[str, Any],
) -> TrainState:
    """Strict inverse of :func:`save_training_state`; a checkpoint of another configuration is refused by key."""
    from safetensors import safe_open

    from blip3o.train.loop import TrainState

    path = folder / TENSORS
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["state"])
        tensors = load_file(path)
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path} cannot be read ({error}): remove the folder to train this stage anew"
        ) from error
    now = json.loads(json.dumps(config))
    differing = sorted(
        k for k in {*now, *header["config"]} if now.get(k) != header["config"].get(k)
    )
    if differing:
        raise ConfigError(
            f"{folder} was made with other settings ({', '.join(differing)}): "
            "use the same ones, or another folder"
        )
    for name, module in modules.items():
        prefix = f"weights.{name}."
        module.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
    for key in ema.averages:
        ema.averages[key] = tensors[f"ema.{key}"]
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            slots.setdefault(int(index), {})[name] = value
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, slot in slots.items():
        for name, value in slot.items():
            if value.shape == parameters[index].shape:
                # Moments share their parameter's memory layout (channels_last), which files do not keep; a step on
                # mixed layouts rounds differently.
                slot[name] = torch.empty_like(parameters[index], dtype=value.dtype).copy_(value)
    optimizer.load_state_dict(
        {"state": slots, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    return TrainState(step=header["step"], seconds=header["seconds"])
