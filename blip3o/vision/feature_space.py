"""From the raw tokens of an encoder to the standardised latents that are generated.

Flow matching wants unit variance per channel, and CLIP tokens have means and scales that differ by
channel and few directions that matter. The statistics belong to the target and are stored with it.
Dimension letters: B batch, D encoder width, C latent channels, h and w grid.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blip3o.errors import ConfigError, ShapeError
from blip3o.storage import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    load_strict,
    read_json,
    read_tensors,
    save_module,
)


class FeatureSpace(nn.Module):
    """``latent = (projection @ (norm(token) - center) - offset) / scale``, per token.

    ``layer_norm``: normalise each token (without learned weights) first. Buffers: center (D,),
    projection (C, D), offset (C,), scale (C,).
    """

    center: Tensor
    projection: Tensor
    offset: Tensor
    scale: Tensor

    def __init__(self, in_channels: int, channels: int, layer_norm: bool = False) -> None:
        super().__init__()
        self.layer_norm = layer_norm
        self.register_buffer("center", torch.zeros(in_channels))
        self.register_buffer("projection", torch.eye(channels, in_channels))
        self.register_buffer("offset", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    @property
    def in_channels(self) -> int:
        return self.projection.shape[1]

    @property
    def channels(self) -> int:
        return self.projection.shape[0]

    def _tokens(self, grid: Tensor, channels: int) -> Tensor:
        if grid.ndim != 4 or grid.shape[1] != channels:
            raise ShapeError(
                f"features must be (batch, {channels}, height, width), got {tuple(grid.shape)}"
            )
        return grid.movedim(1, -1).float()  # (B, h, w, D)

    def forward(self, tokens: Tensor) -> Tensor:
        """Raw encoder grid (B, D, h, w) -> latents (B, C, h, w), float32."""
        rows = self._tokens(tokens, self.in_channels)
        if self.layer_norm:
            rows = F.layer_norm(rows, rows.shape[-1:])
        latents = ((rows - self.center) @ self.projection.T - self.offset) / self.scale
        return latents.movedim(-1, 1)

    def invert(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) -> tokens (B, D, h, w), by the least-squares inverse of the projection.

        Exact up to what the projection drops, and up to the token norm where ``layer_norm`` is on.
        """
        rows = self._tokens(latents, self.channels) * self.scale + self.offset
        return (rows @ torch.linalg.pinv(self.projection).T + self.center).movedim(-1, 1)

    @classmethod
    @torch.no_grad()
    def fit(
        cls, tokens: Tensor, channels: int, *, layer_norm: bool = False, whitening: float = 1.0
    ) -> FeatureSpace:
        """Principal directions of sample tokens.

        Args: tokens (n, D, h, w), raw; whitening: 1 gives unit variance to each direction, 0.5 divides by
            the square root of its standard deviation (the first directions stay larger), 0 leaves it. The
            whole is then scaled to unit mean variance. Raises: ConfigError for more channels than D.
        """
        width = tokens.shape[1]
        if not 1 <= channels <= width:
            raise ConfigError(
                f"channels must be between 1 and the encoder's width {width}, got {channels}"
            )
        space = cls(width, channels, layer_norm)
        rows = space._tokens(tokens, width).flatten(0, 2)
        if layer_norm:
            rows = F.layer_norm(rows, rows.shape[-1:])
        rows = rows.double()
        center = rows.mean(dim=0)
        covariance = (rows - center).T @ (rows - center) / len(rows)
        values, vectors = torch.linalg.eigh(covariance)
        values, vectors = values.flip(0)[:channels], vectors.flip(1)[:, :channels]
        # The sign of a direction is arbitrary; fix it, so that a rerun gives the same latents.
        vectors = vectors * torch.where(vectors.sum(dim=0) < 0, -1.0, 1.0)
        deviation = values.clamp(min=1e-12).sqrt()
        scale = deviation**whitening
        scale = scale * ((deviation / scale) ** 2).mean().sqrt()
        space.center.copy_(center)
        space.projection.copy_(vectors.T)
        space.scale.copy_(scale)
        return space

    @classmethod
    @torch.no_grad()
    def from_linear(
        cls, linear: nn.Linear, tokens: Tensor, *, layer_norm: bool = False
    ) -> FeatureSpace:
        """A learned projection, its outputs standardised per channel on sample tokens (n, D, h, w)."""
        space = cls(linear.in_features, linear.out_features, layer_norm)
        space.projection.copy_(linear.weight)
        latents = space(tokens)
        space.offset.copy_(latents.mean(dim=(0, 2, 3)))
        space.scale.copy_(latents.std(dim=(0, 2, 3)).clamp(min=1e-6))
        return space

    def save_pretrained(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        save_module(Path(folder), self, self.to_dict(), dtype)

    def to_dict(self) -> dict[str, Any]:
        return {
            "in_channels": self.in_channels,
            "channels": self.channels,
            "layer_norm": self.layer_norm,
        }

    @classmethod
    def from_pretrained(cls, folder: Path) -> FeatureSpace:
        """Raises: WeightsError, ConfigError."""
        folder = Path(folder)
        config = read_json(folder / CONFIG_NAME)
        try:
            space = cls(**config)
        except TypeError as error:
            raise ConfigError(f"{folder / CONFIG_NAME}: {error}") from None
        load_strict(space, read_tensors(folder / WEIGHTS_NAME), folder / WEIGHTS_NAME)
        return space
