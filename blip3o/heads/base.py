"""What the unified model asks of a generation head, and the kinds there are.

A head learns from clean features and samples new ones; what network it drives, and by which loss, is its
own affair. Dimension letters: B batch, Q condition tokens, H hidden size, C channels, h and w feature grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from blip3o.flow.sampler import AfterStep, Solver


@dataclass
class GenerationOutput:
    """One training forward of the generation side; everything a replay or a log needs.

    loss (); prediction, and ``wanted`` that it is compared with, (B, C, h, w); condition (B, Q, H) as the network
    saw it. Flow matching adds x_sigma (B, C, h, w) and timestep (B,).
    """

    loss: Tensor
    prediction: Tensor
    wanted: Tensor
    condition: Tensor
    x_sigma: Tensor | None = None
    timestep: Tensor | None = None


@dataclass(frozen=True)
class Draws:
    """Random numbers of one training forward; those left out are drawn on the CPU from ``generator``.

    u (B,): uniform numbers that choose the noise levels; noise (B, C, h, w); drop (B,): 1 where the condition is
    dropped.
    """

    u: Tensor | None = None
    noise: Tensor | None = None
    drop: Tensor | None = None
    generator: torch.Generator | None = None


@dataclass(frozen=True)
class SampleSettings:
    """Settings of one sampling run; None is the model's own default. ``on_step``, ``after_step``: see the flow head."""

    generators: Sequence[torch.Generator] | None = None
    noise: Tensor | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    solver: Solver = "euler"
    on_step: Callable[[int, Tensor, Tensor], None] | None = None
    after_step: AfterStep | None = None


class GenerationHead(Protocol):
    """Condition (B, Q, H) -> image features (B, C, h, w)."""

    feature_shape: tuple[int, int, int]

    def loss(self, condition: Tensor, target: Tensor, draws: Draws) -> GenerationOutput:
        """Training loss against clean features (B, C, h, w)."""
        ...

    def sample(self, condition: Tensor, settings: SampleSettings) -> Tensor:
        """Features, float32."""
        ...


class FlowNetwork(Protocol):
    """A network that the flow head can drive: the DiT of this package, or another behind an adapter.

    ``encode_condition`` runs once per sampling run; ``encode_guided`` gives the doubled batch of classifier-free
    guidance, B times the zero condition and then the real ones.
    """

    feature_shape: tuple[int, int, int]

    @property
    def dtype(self) -> torch.dtype: ...

    def encode_condition(self, condition: Tensor) -> Any: ...

    def encode_guided(self, condition: Tensor) -> Any: ...

    def __call__(self, x: Tensor, timestep: Tensor, condition: Any) -> Tensor:
        """x (B, C, h, w), timestep (B,) in 0..1000, condition encoded or (B, Q, H) -> velocity (B, C, h, w)."""
        ...
