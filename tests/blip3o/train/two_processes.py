"""Run by test_distributed.py under torchrun: the same small stage in every way that many processes can run it."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import torch
from torch import nn

from blip3o.train.distributed import Processes, leave, whole
from blip3o.train.loop import LoopConfig, fit

CONFIG = LoopConfig(
    steps=4, lr=1e-2, warmup_steps=2, weight_decay=0.1, bf16=False, log_every=1, save_every_s=1e9
)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x):
        return x + torch.tanh(self.inner(x))


class Masked:
    """Regression over rows of unequal number: 3, 4, 5 or 6 units a micro-batch."""

    name = "masked"

    def __init__(self, stop_at: int | None = None, nan_at: int | None = None, frozen: bool = False) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(Block(), Block(), nn.Linear(6, 1))
        self.model[0].requires_grad_(not frozen)
        self.modules = {"model": self.model}
        self.blocks = [self.model[0], self.model[1]]
        self.stop_at, self.nan_at = stop_at, nan_at

    def batch(self, index):
        if index == self.stop_at:
            raise KeyboardInterrupt
        generator = torch.Generator().manual_seed(index)
        return index, torch.randn(3 + index % 4, 6, generator=generator)

    def counts(self, batch):
        return {"loss": float(len(batch[1]))}

    def loss(self, batch, generator):
        index, x = batch
        loss = (self.model(x) - x.sum(1, keepdim=True)).square().mean()
        return loss * float("nan") if index == self.nan_at else loss, {"units": float(len(x))}


def weights(modules) -> list[float]:
    return torch.cat([whole(p.detach()).flatten() for p in modules["model"].parameters()]).tolist()


def main(folder: Path) -> None:
    results = {}
    for sharding in ("ddp", "fsdp2"):
        config = dataclasses.replace(CONFIG, sharding=sharding)
        processes = Processes(sharding)
        results[sharding] = weights(fit(Masked(), config, folder / sharding, None, processes))
        saving = dataclasses.replace(config, save_every_s=0.0)
        parts = folder / f"{sharding}-parts"
        try:
            # micro-batch 4 + rank is the first of step 2
            fit(Masked(stop_at=4 + processes.rank), saving, parts, None, processes)
        except KeyboardInterrupt:
            pass
        results[f"{sharding}-resumed"] = weights(fit(Masked(), saving, parts, None, processes))
        half = folder / f"{sharding}-frozen"
        try:
            fit(Masked(stop_at=4 + processes.rank, frozen=True), saving, half, None, processes)
        except KeyboardInterrupt:
            pass
        results[f"{sharding}-frozen"] = weights(fit(Masked(frozen=True), saving, half, None, processes))
        doubled = dataclasses.replace(config, accumulation=2)
        results[f"{sharding}-accumulated"] = weights(
            fit(Masked(), doubled, folder / f"{sharding}-4", None, processes)
        )
        try:
            fit(Masked(nan_at=3), config, folder / f"{sharding}-nan", None, processes)
        except Exception as error:
            results[f"{sharding}-nan-{processes.rank}"] = str(error)
    gathered = Processes().gather(results)
    if Processes().is_main:
        merged = {**gathered[1], **gathered[0]}
        (folder / "results.json").write_text(json.dumps(merged))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave()
