"""The processes of one run: who they are, how a stage is spread over them, and sums across them.

Process set-up (``torchrun``, SLURM, one process) is accelerate's; a stage is replicated (DDP) or its parameters,
gradients and optimizer moments are sharded (FSDP2, torch's ``fully_shard``, which accelerate 1.x does not apply on a
CPU). In one process every method is a no-op.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from blip3o.errors import ConfigError

Sharding = Literal["ddp", "fsdp2"]


class Processes:
    """``rank`` of ``world_size``; ``device``; ``is_main`` on the one that writes and logs."""

    def __init__(self, sharding: Sharding = "ddp", device: str | None = None) -> None:
        from accelerate import PartialState

        if sharding not in get_args(Sharding):
            raise ConfigError(f"sharding '{sharding}' is unknown: {' or '.join(get_args(Sharding))}")
        on_cpu = device == "cpu" or not torch.cuda.is_available()
        state = PartialState(cpu=on_cpu)
        self.sharding, self.rank, self.world_size = (
            sharding,
            state.process_index,
            state.num_processes,
        )
        self.device = torch.device("cpu") if on_cpu else state.device
        self.is_main = self.rank == 0

    def spread(self, module: nn.Module, blocks: Iterable[nn.Module] = ()) -> nn.Module:
        """``module`` ready for a run of these processes. ``blocks``: parts that FSDP2 gathers one at a time."""
        module.to(self.device)
        if self.world_size == 1:
            return module
        if self.sharding == "ddp":
            ids = [self.device] if self.device.type == "cuda" else None
            return nn.parallel.DistributedDataParallel(module, device_ids=ids)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.world_size,))
        for block in blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(module, mesh=mesh)
        return module

    @contextlib.contextmanager
    def accumulating(self, module: nn.Module, is_last: bool) -> Iterator[None]:
        """Gradients travel between processes in the last micro-batch of a step only."""
        if self.world_size == 1 or is_last:
            yield
        elif self.sharding == "ddp":
            with module.no_sync():  # type: ignore[operator]
                yield
        else:
            module.set_requires_gradient_sync(False)  # type: ignore[operator]
            try:
                yield
            finally:
                module.set_requires_gradient_sync(True)  # type: ignore[operator]

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Each value summed over the processes; all of them must call it with the same keys."""
        if self.world_size == 1:
            return dict(values)
        keys = sorted(values)
        total = torch.tensor([values[key] for key in keys], dtype=torch.float64)
        torch.distributed.all_reduce(total := total.to(self._reduce_device()))
        return dict(zip(keys, total.tolist(), strict=True))

    def gather(self, value: Any) -> list[Any]:
        """``value`` of every process, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        if self.world_size > 1:
            torch.distributed.barrier()

    def _reduce_device(self) -> torch.device:
        return self.device if self.device.type == "cuda" else torch.device("cpu")


def leave() -> None:
    """End this process's part in a finished run; without process groups a no-op.

    A process that exits with its groups open may be aborted by a worker thread of gloo that drops a tensor while the
    interpreter ends (PyTorch pull request 179291). Only after the last collective: after an error a peer may still
    wait for this process, and ending the group would wait for the peer.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()  # wrapped modules in reference cycles keep their group, and its threads, alive
        torch.distributed.destroy_process_group()


def local(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that this process holds; a plain tensor as it is."""
    to_local = getattr(tensor, "to_local", None)
    return to_local() if to_local is not None else tensor


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together (all processes must call it); a plain tensor as it is."""
    full = getattr(tensor, "full_tensor", None)
    return full() if full is not None else tensor
