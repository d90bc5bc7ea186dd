"""Training checkpoints: one safetensors file with everything a run needs to go on, replaced as a whole.

It holds what changes: the parameters that learn, their averages and moments, and buffers. Frozen parameters come from
where the run starts from; their digest is in the header, so that a run goes on with those it began with or not at all.
Tensors are stored whole under their parameters' names, so that a checkpoint does not depend on how many processes
wrote it or how they shared it out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from blip3o.errors import Blip3oError, ConfigError, WeightsError
from blip3o.storage import write_json
from blip3o.train.distributed import Processes, local, whole
from blip3o.train.optimizers import Optimizers

if TYPE_CHECKING:
    from blip3o.train.ema import ExponentialMovingAverage

TENSORS, METADATA = "state.safetensors", "state.json"
WHOLE = StateDictOptions(full_state_dict=True)
# empty on other ranks
WHOLE_ON_MAIN = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
PARTIAL = StateDictOptions(full_state_dict=True, strict=False)  # the names are compared by hand
_FROZEN_DIGESTS: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()


class CheckpointNotSaved(Blip3oError):
    """The disk took no new checkpoint; the previous one is whole."""


@dataclass
class TrainState:
    """Where a run stands. ``data``: position of the data, one entry a process, None where a step's number is enough."""

    step: int = 0
    seconds: float = 0.0
    data: list[Any] = field(default_factory=list)


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Atomic safetensors write: a reader sees the old file or the whole new one."""
    partial = path.with_suffix(path.suffix + ".partial")
    try:
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
            partial,
            metadata=dict(metadata or {}),
        )
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise CheckpointNotSaved(
            f"{path} could not be written ({error}); free space and start again: what was saved before is whole"
        ) from None


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes, in order of names."""
    return _digest((name, tensors[name]) for name in sorted(tensors))


def _digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    total = hashlib.sha256()
    for name, tensor in tensors:
        tensor = tensor.detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _plain(name: str) -> str:
    """A parameter's name without what DDP and torch.compile put into it."""
    return name.removeprefix("module.").replace("_orig_mod.", "")


def _frozen(module: nn.Module) -> set[str]:
    """Names of the parameters that do not learn, tied ones by all their names."""
    named = module.named_parameters(remove_duplicate=False)
    return {_plain(name) for name, parameter in named if not parameter.requires_grad}


def frozen_digest(module: nn.Module) -> str:
    """sha256 over the parameters that do not learn; counted once for a module. All processes must call it."""
    if module not in _FROZEN_DIGESTS:
        parameters = {_plain(n): p for n, p in module.named_parameters() if not p.requires_grad}
        _FROZEN_DIGESTS[module] = _digest((n, whole(parameters[n])) for n in sorted(parameters))
    return _FROZEN_DIGESTS[module]


def save_training_state(
    folder: Path,
    module: nn.Module,
    optimizers: Optimizers,
    ema: ExponentialMovingAverage,
    state: TrainState,
    config: Mapping[str, Any],
    processes: Processes,
) -> None:
    """Learning weights, buffers, averages and moments in one file; step, seconds, data position, configuration and
    digests travel in its header, so that a kill between two writes can never pair the tensors of one step with the
    counters of another.

    All processes must call it; the main one writes. Raises: CheckpointNotSaved, with the previous one kept.
    """
    frozen = _frozen(module)
    weights: dict[str, Any] = get_model_state_dict(module, options=WHOLE_ON_MAIN)
    tensors = {f"weights.{key}": value for key, value in weights.items() if key not in frozen}
    tensors |= {f"ema.{key}": whole(value) for key, value in ema.averages.items()}
    moments: dict[str, Any] = get_optimizer_state_dict(module, optimizers, options=WHOLE_ON_MAIN)
    for name, slot in moments.get("state", {}).items():
        for key, value in slot.items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
    data = processes.gather(state.data[0] if state.data else None)
    kept_apart = frozen_digest(module) if frozen else None
    if processes.is_main:
        header = {
            "step": state.step,
            "seconds": state.seconds,
            "data": data,
            "frozen": kept_apart,
            "config": json.loads(json.dumps(config)),
        }
        # a copy, because a tied or sliced parameter may share memory with another
        tensors = {key: value.detach().cpu().clone() for key, value in tensors.items()}
        save_tensors(
            folder / TENSORS, tensors, {"state": json.dumps(header), "digest": digest(tensors)}
        )
        write_json(folder / METADATA, header)
    processes.barrier()


def load_training_state(
    folder: Path,
    module: nn.Module,
    optimizers: Optimizers,
    ema: ExponentialMovingAverage,
    config: Mapping[str, Any],
    ignored: Sequence[str] = (),
) -> TrainState:
    """Strict inverse of :func:`save_training_state`, for any number of processes.

    ``ignored``: settings that a file may hold and that need not agree. A file without the header's ``frozen`` is of
    the time when checkpoints held the frozen weights too; those are then restored with the others.

    Raises: ConfigError for a checkpoint of another configuration, by key, or of other frozen weights; WeightsError for
    a damaged file.
    """
    path = folder / TENSORS
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        header, tensors = json.loads(metadata["state"]), load_file(path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} cannot be read ({error}): remove the folder to train this stage anew"
        ) from error
    now = json.loads(json.dumps(config))
    then = {key: value for key, value in header["config"].items() if key in now or key not in ignored}
    differing = sorted(k for k in {*now, *then} if now.get(k) != then.get(k))
    if differing:
        raise ConfigError(
            f"{folder} was made with other settings ({', '.join(differing)}): "
            "use the same ones, or another folder"
        )
    if digest(tensors) != metadata.get("digest"):
        raise WeightsError(
            f"{path} is damaged (its digest differs): remove the folder to train this stage anew"
        )
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "ema": {}, "optimizer": {}}
    for key, value in tensors.items():
        kind, _, name = key.partition(".")
        parts[kind][name] = value
    _check_names(folder, module, parts["weights"], is_whole="frozen" not in header)
    if header.get("frozen") is not None and header["frozen"] != frozen_digest(module):
        raise ConfigError(
            f"{folder} goes on from other frozen weights than this run starts with: "
            "start from the same model in the same precision, or use another folder"
        )
    set_model_state_dict(module, dict(parts["weights"]), options=PARTIAL)
    for key, average in ema.averages.items():
        _copy_into(average, parts["ema"][key])
    _load_moments(module, optimizers, parts["optimizer"])
    return TrainState(step=header["step"], seconds=header["seconds"], data=header["data"])


def _check_names(folder: Path, module: nn.Module, weights: Mapping[str, Tensor], is_whole: bool) -> None:
    """Raises: ConfigError unless ``weights`` are those that a checkpoint of ``module`` holds."""
    wanted = {_plain(name) for name in module.state_dict()}
    wanted -= set() if is_whole else _frozen(module)
    if differing := sorted(wanted ^ set(weights)):
        shown = ", ".join(differing[:3]) + (f" and {len(differing) - 3} more" if len(differing) > 3 else "")
        raise ConfigError(
            f"{folder} is of a run in which other parameters learn ({shown}): "
            "use the same settings, or another folder"
        )


def _load_moments(
    module: nn.Module, optimizers: Optimizers, tensors: Mapping[str, Tensor]
) -> None:
    state: dict[str, Any] = {}
    for key, value in tensors.items():
        slot, _, name = key.partition(".")
        state.setdefault(name, {})[slot] = value
    groups = get_optimizer_state_dict(module, optimizers, options=WHOLE)["param_groups"]
    set_optimizer_state_dict(
        module, optimizers, {"state": state, "param_groups": groups}, options=PARTIAL
    )
    # What has not had a gradient yet has no moments: none were saved, and its first step makes them.
    names: dict[Tensor, str] = {parameter: _plain(name) for name, parameter in module.named_parameters()}
    for optimizer in optimizers:
        for parameter in [p for p in optimizer.state if names[p] not in state]:
            del optimizer.state[parameter]
    # Moments share their parameter's memory layout (channels_last), which files do not keep; a step on mixed layouts
    # rounds differently.
    for parameter, slot in chain.from_iterable(optimizer.state.items() for optimizer in optimizers):
        for key, value in slot.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                if local(value) is value:
                    slot[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


@torch.no_grad()
def _copy_into(target: Tensor, value: Tensor) -> None:
    """A whole tensor into a plain or a sharded one."""
    if local(target) is target:
        target.copy_(value)
        return
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(target, DTensor)
    sharded = distribute_tensor(
        value.to(target.device), target.device_mesh, target.placements, src_data_rank=None
    )
    local(target).copy_(local(sharded))
