"""CLIP-family towers as target encoders: pictures -> grids of features.

Dimension letters: B batch, S picture side, N patches, D width, h and w patch grid.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blip3o.errors import ConfigError, ShapeError
from blip3o.layers import attention


class TargetEncoder(Protocol):
    """Frozen encoder whose features are what the generation head learns to make."""

    width: int

    def __call__(self, images: Tensor) -> Tensor:
        """Normalised pictures (B, 3, S, S) -> features (B, D, h, w)."""
        ...


def tokens_to_grid(tokens: Tensor) -> Tensor:
    """Row-major tokens (B, N, D) of a square grid -> (B, D, h, w). Raises: ShapeError."""
    side = math.isqrt(tokens.shape[1])
    if side * side != tokens.shape[1]:
        raise ShapeError(f"{tokens.shape[1]} tokens do not form a square grid")
    return tokens.transpose(1, 2).unflatten(-1, (side, side))


def grid_to_tokens(grid: Tensor) -> Tensor:
    """(B, D, h, w) -> row-major tokens (B, h*w, D)."""
    return grid.flatten(2).transpose(1, 2)


def pool_grid(grid: Tensor, pooling: str) -> Tensor:
    """Average-pool a feature grid (B, D, h, w) as named.

    ``none``, or ``early_pool2d_K`` (the released models: K = 4): K x K windows, stride K.
    Raises: ConfigError, ShapeError.
    """
    if pooling == "none":
        return grid
    match = re.fullmatch(r"early_pool2d_([1-9]\d*)", pooling)
    if match is None:
        raise ConfigError(
            f"pooling {pooling!r} is unknown; use none or early_pool2d_K with a number K"
        )
    kernel = int(match[1])
    if grid.shape[-1] % kernel or grid.shape[-2] % kernel:
        raise ShapeError(
            f"a grid of {tuple(grid.shape[-2:])} does not divide into {kernel}x{kernel} windows"
        )
    return F.avg_pool2d(grid, kernel)


@dataclass(frozen=True, kw_only=True)
class EvaConfig:
    """EVA-CLIP tower; the defaults are E/14+ at 448 px, the target of the released models."""

    image_size: int = 448
    patch_size: int = 14
    width: int = 1792
    layers: int = 64
    head_width: int = 112
    mlp_ratio: float = 15360 / 1792
    qkv_bias: bool = True
    postnorm: bool = True

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ConfigError(
                f"eva.image_size {self.image_size} is not divisible by patch_size {self.patch_size}"
            )
        if self.width % self.head_width:
            raise ConfigError(
                f"eva.width {self.width} is not divisible by head_width {self.head_width}"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class EvaAttention(nn.Module):
    """Self-attention with one projection for query, key and value."""

    def __init__(self, config: EvaConfig) -> None:
        super().__init__()
        self.head_width = config.head_width
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.qkv_bias)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, -1, self.head_width))  # (B, N, 3, H, d)
        return self.proj(attention(*qkv.unbind(2)).flatten(2))


class EvaMlp(nn.Module):
    def __init__(self, config: EvaConfig) -> None:
        super().__init__()
        hidden = int(config.width * config.mlp_ratio)
        self.fc1 = nn.Linear(config.width, hidden)
        self.fc2 = nn.Linear(hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class EvaBlock(nn.Module):
    """Residual block; with ``postnorm`` the norms act on the branch outputs, else on their inputs."""

    def __init__(self, config: EvaConfig) -> None:
        super().__init__()
        self.postnorm = config.postnorm
        self.norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attn = EvaAttention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = EvaMlp(config)

    def forward(self, x: Tensor) -> Tensor:
        if self.postnorm:
            x = x + self.norm1(self.attn(x))
            return x + self.norm2(self.mlp(x))
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchConv(nn.Module):
    def __init__(self, config: EvaConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)  # (B, N, D)


class EvaEncoder(nn.Module):
    """The EVA-CLIP tower without final norm, pooling head or projection; parameter names as published."""

    def __init__(self, config: EvaConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        patches = (config.image_size // config.patch_size) ** 2
        self.patch_embed = PatchConv(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, patches + 1, config.width))
        self.blocks = nn.ModuleList([EvaBlock(config) for _ in range(config.layers)])

    def tokens(self, images: Tensor) -> Tensor:
        """Raw output of the last block without the class token: (B, N, D)."""
        if images.shape[1:] != (3, self.config.image_size, self.config.image_size):
            size = self.config.image_size
            raise ShapeError(
                f"pictures must be (batch, 3, {size}, {size}), got {tuple(images.shape)}"
            )
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return x[:, 1:]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, D, h, w), not pooled."""
        return tokens_to_grid(self.tokens(images))


class OpenClipEncoder(nn.Module):
    """Patch features of any open_clip visual tower (ViT or timm trunk) at a chosen layer.

    Args: visual: the ``.visual`` of an open_clip model; layer: index of the block whose output is taken,
        -1 the last, -2 the one before it. No final norm is applied and the class token is left out.
    """

    def __init__(self, visual: nn.Module, layer: int = -2) -> None:
        super().__init__()
        if not hasattr(visual, "forward_intermediates"):
            raise ConfigError(
                f"{type(visual).__name__} gives no intermediate features; use an open_clip ViT or timm tower"
            )
        self.visual: Any = visual  # a tower of a library without types
        self.layer = layer
        with torch.no_grad():
            size = (
                visual.image_size
                if isinstance(visual.image_size, tuple)
                else (visual.image_size,) * 2
            )
            parameter = next(visual.parameters())
            self.width: int = self(parameter.new_zeros(1, 3, *size)).shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, D, h, w)."""
        output = self.visual.forward_intermediates(
            images,
            indices=[self.layer],
            stop_early=True,
            intermediates_only=True,
            output_fmt="NCHW",
        )
        return output["image_intermediates"][0]

    @classmethod
    def from_config(cls, model_config: dict[str, Any], layer: int = -2) -> OpenClipEncoder:
        """Visual tower with random weights from an open_clip model configuration (embed_dim, vision_cfg)."""
        from open_clip.model import _build_vision_tower

        visual = _build_vision_tower(model_config["embed_dim"], model_config["vision_cfg"])
        return cls(visual, layer)
