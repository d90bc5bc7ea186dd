"""How the noise level is drawn in training. Every rule is a map of one uniform number per sample,
so that a recorded draw can be replayed whatever the rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from blip3o.errors import ConfigError
from blip3o.flow.path import NUM_TRAIN_TIMESTEPS

SigmaRule = Literal["discrete", "uniform", "logit_normal"]


@dataclass(frozen=True, kw_only=True)
class SigmaDistribution:
    """Distribution of sigma in training.

    ``discrete``: one of the 1000 levels 1.000, 0.999, ..., 0.001 with equal chance, as the released
    models were trained. ``uniform``: any sigma in (0, 1]. ``logit_normal``: sigmoid of a normal number
    (arXiv:2403.03206). ``shift`` above 1 moves the mass towards noise:
    ``shift * s / (1 + (shift - 1) * s)``.
    """

    rule: SigmaRule = "discrete"
    shift: float = 1.0
    logit_mean: float = 0.0
    logit_std: float = 1.0

    def __post_init__(self) -> None:
        if self.rule not in get_args(SigmaRule):
            raise ConfigError(
                f"sigma rule {self.rule!r} is unknown; choose one of {', '.join(get_args(SigmaRule))}"
            )
        if not self.shift > 0 or not self.logit_std > 0:
            raise ConfigError(
                f"shift and logit_std must be above 0, got {self.shift} and {self.logit_std}"
            )


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Move noise levels towards noise (shift > 1) or data (shift < 1); 0 and 1 stay."""
    return sigma if shift == 1.0 else shift * sigma / (1 + (shift - 1) * sigma)


def train_sigmas(shift: float = 1.0) -> Tensor:
    """The 1000 noise levels of training, falling from 1, float32 (1000,)."""
    steps = torch.arange(NUM_TRAIN_TIMESTEPS, 0, -1, dtype=torch.float32)
    return shift_sigma(steps / NUM_TRAIN_TIMESTEPS, shift)


def sigma_from_uniform(u: Tensor, distribution: SigmaDistribution = SigmaDistribution()) -> Tensor:
    """Map uniform numbers u (B,) in [0, 1) to noise levels (B,), float32; u = 0 is pure noise."""
    if distribution.rule == "discrete":
        index = (u * NUM_TRAIN_TIMESTEPS).long().clamp(max=NUM_TRAIN_TIMESTEPS - 1)
        return train_sigmas(distribution.shift).to(u.device)[index]
    u = u.float()
    if distribution.rule == "uniform":
        sigma = 1 - u
    else:
        tiny = torch.finfo(torch.float32).eps
        normal = torch.special.ndtri((1 - u).clamp(tiny, 1 - tiny))
        sigma = torch.sigmoid(distribution.logit_mean + distribution.logit_std * normal)
    return shift_sigma(sigma, distribution.shift)
