"""A SANA transformer as velocity network, the generator of BLIP3o-NEXT (arXiv:2510.15857, arXiv:2410.10629).

diffusers' ``SanaTransformer2DModel`` behind a two-layer connector; its latents are those of a deep-compression
autoencoder. Dimension letters: B batch, Q condition tokens, H hidden size, C latent channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blip3o.errors import ConfigError
from blip3o.layers import RMSNorm

if TYPE_CHECKING:
    from blip3o.config import Blip3oConfig

# The connector's norm starts at this scale, as in BLIP3o-NEXT.
CONNECTOR_SCALE = 5.5**0.5


class SanaCondition(NamedTuple):
    """Connected condition tokens (B, Q, caption channels)."""

    tokens: Tensor


class SanaNetwork(nn.Module):
    """Args: condition_dim: hidden size of the backbone; values: of SanaTransformer2DModel."""

    def __init__(self, condition_dim: int, values: dict[str, Any]) -> None:
        super().__init__()
        from diffusers.models import SanaTransformer2DModel

        try:
            self.transformer = SanaTransformer2DModel(**values)
        except TypeError as error:
            raise ConfigError(f"head_config: {error}") from None
        sizes = self.transformer.config
        width = sizes.caption_channels
        self.connector_in = nn.Linear(condition_dim, width)
        self.connector_out = nn.Linear(width, width)
        self.connector_norm = RMSNorm(width)
        nn.init.constant_(self.connector_norm.weight, CONNECTOR_SCALE)
        self.feature_shape = (sizes.in_channels, sizes.sample_size, sizes.sample_size)

    @property
    def dtype(self) -> torch.dtype:
        return self.connector_in.weight.dtype

    def encode_condition(self, condition: Tensor) -> SanaCondition:
        hidden = F.gelu(self.connector_in(condition), approximate="tanh")
        return SanaCondition(self.connector_norm(self.connector_out(hidden)))

    def encode_guided(self, condition: Tensor) -> SanaCondition:
        return self.encode_condition(torch.cat([torch.zeros_like(condition), condition]))

    def forward(self, x: Tensor, timestep: Tensor, condition: Tensor | SanaCondition) -> Tensor:
        """See FlowNetwork."""
        if isinstance(condition, Tensor):
            condition = self.encode_condition(condition)
        return self.transformer(
            x, encoder_hidden_states=condition.tokens, timestep=timestep.to(x.dtype)
        ).sample


def build_sana(config: Blip3oConfig) -> nn.Module:
    return SanaNetwork(config.condition_dim, config.head_config)
