"""Where a network runs, and the noise it starts from. torch is imported on first use."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from evals.api import GenerationRequest
from evals.errors import ConfigError


def resolve_device(wanted: str) -> str:
    """"auto" takes this process's CUDA device, else the CPU. Raises ConfigError for one that torch cannot use."""
    import torch

    if wanted == "auto":
        rank = os.environ.get("LOCAL_RANK", "0")
        wanted = f"cuda:{rank}" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"device {wanted!r} cannot be used: no CUDA device is available here; give --device cpu"
        )
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        problem = str(error).splitlines()[0]
        raise ConfigError(f"device {wanted!r} cannot be used: {problem}") from error
    return wanted


def cpu_generator(seed: int) -> Any:
    """A generator on the CPU, so that a seed means the same starting noise on every device."""
    import torch

    return torch.Generator("cpu").manual_seed(seed)


def draw(
    requests: Sequence[GenerationRequest],
    call: Callable[[Sequence[GenerationRequest], list[Any]], list[Any]],
) -> list[Any]:
    """Pictures of requests by ``call(requests, generators)``, each from a generator of its own.

    In series mode one picture at a time, the pictures of a sample from one generator, as the released
    scripts of GenEval and BLIP3-o do.
    """
    if not (requests and requests[0].series):
        return call(requests, [cpu_generator(r.seed) for r in requests])
    images: list[Any] = []
    for _, group in groupby(requests, key=lambda r: r.sample_id):
        mine = list(group)
        generator = cpu_generator(mine[0].seed)
        for request in mine:
            images += call([request], [generator])
    return images
