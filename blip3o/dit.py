"""Next-DiT with cross-attention: velocity of image features, conditioned on query states.

Parameter names are those of the released checkpoints under ``model.dit.model.``.
Dimension letters: B batch, N image tokens, L condition tokens, C channels, D width, T conditioning width.
Sources: Lumina-Next (arXiv:2406.18583), BLIP3-o (arXiv:2505.09568).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from blip3o.errors import ConfigError, ShapeError
from blip3o.layers import (
    FeedForward,
    LayerNorm,
    RMSNorm,
    TimestepSinusoid,
    apply_rope,
    attention,
    rope_table_2d,
)


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """Sizes of the diffusion transformer. The defaults are those of the released 4B and 8B models.

    ``num_kv_heads`` None means ``num_heads``; ``ffn_dim`` None means ``8/3 * dim`` rounded up to
    ``multiple_of``; ``temb_dim`` None means ``min(dim, 1024)``.
    """

    input_size: int = 8
    patch_size: int = 1
    in_channels: int = 1792
    dim: int = 1792
    num_layers: int = 24
    num_heads: int = 28
    num_kv_heads: int | None = None
    condition_dim: int = 2048
    multiple_of: int = 256
    ffn_dim: int | None = None
    temb_dim: int | None = None
    norm_eps: float = 1e-5
    qk_norm: bool = True
    rope_theta: float = 10000.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name in ("norm_eps", "rope_theta", "qk_norm") or value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"dit.{name} must be a positive integer, got {value!r}")
        if self.dim % self.num_heads:
            raise ConfigError(f"dit.dim {self.dim} is not divisible by num_heads {self.num_heads}")
        if self.num_heads % self.kv_heads:
            raise ConfigError(
                f"dit.num_heads {self.num_heads} is not divisible by num_kv_heads {self.kv_heads}"
            )
        if self.head_dim % 4:
            raise ConfigError(
                f"dit head width {self.head_dim} (dim {self.dim} / num_heads {self.num_heads}) must be "
                "divisible by 4 for the two-dimensional rotary embedding"
            )
        if self.input_size % self.patch_size:
            raise ConfigError(
                f"dit.input_size {self.input_size} is not divisible by patch_size {self.patch_size}"
            )

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def kv_heads(self) -> int:
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def num_tokens(self) -> int:
        return (self.input_size // self.patch_size) ** 2

    @property
    def ffn_width(self) -> int:
        if self.ffn_dim is not None:
            return self.ffn_dim
        return self.multiple_of * -(-int(8 * self.dim / 3) // self.multiple_of)

    @property
    def temb_width(self) -> int:
        return min(self.dim, 1024) if self.temb_dim is None else self.temb_dim

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Modulation(NamedTuple):
    """Per-channel scale of the input and gate of the output of attention and feed-forward, (B, 1, D) each."""

    scale_attention: Tensor
    gate_attention: Tensor
    scale_ffn: Tensor
    gate_ffn: Tensor


class ModulatedNorm(nn.Module):
    """RMSNorm whose scale, and the block's gates, come from the timestep and pooled condition."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.temb_width, 4 * config.dim)
        self.norm = RMSNorm(config.dim, config.norm_eps)

    def forward(self, x: Tensor, temb: Tensor) -> tuple[Tensor, Modulation]:
        """x (B, N, D), temb (B, T) -> normalised and scaled x, and the modulation."""
        modulation = Modulation(*self.linear(F.silu(temb))[:, None].chunk(4, dim=-1))
        return self.norm(x) * (1 + modulation.scale_attention), modulation


class Attention(nn.Module):
    """Query, key and value projections with norms across all heads, and the attention itself.

    Returns heads unmerged, (B, N, H, d): the block mixes self- and cross-attention per head and
    projects once.
    """

    def __init__(self, config: DiTConfig, *, has_output: bool) -> None:
        super().__init__()
        self.num_heads, self.kv_heads, self.head_dim = (
            config.num_heads,
            config.kv_heads,
            config.head_dim,
        )
        kv_width = self.kv_heads * self.head_dim
        self.to_q = nn.Linear(config.dim, config.dim, bias=False)
        self.to_k = nn.Linear(config.dim, kv_width, bias=False)
        self.to_v = nn.Linear(config.dim, kv_width, bias=False)
        # these two do not follow norm_eps, as in diffusers' Lumina attention
        self.norm_q = LayerNorm(config.dim, 1e-5) if config.qk_norm else nn.Identity()
        self.norm_k = LayerNorm(kv_width, 1e-5) if config.qk_norm else nn.Identity()
        if has_output:
            self.to_out = nn.ModuleList([nn.Linear(config.dim, config.dim, bias=False)])

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """source (B, L, D) -> keys and values, (B, L, H_kv, d) each, without rotation."""
        split = (self.kv_heads, self.head_dim)
        key = self.norm_k(self.to_k(source)).unflatten(-1, split)
        return key, self.to_v(source).unflatten(-1, split)

    def forward(
        self,
        x: Tensor,
        key: Tensor,
        value: Tensor,
        rope: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """x (B, N, D), key and value (B, L, H_kv, d), rope (N, d/2), mask (B, L) -> (B, N, H, d)."""
        query = self.norm_q(self.to_q(x)).unflatten(-1, (self.num_heads, self.head_dim))
        query = apply_rope(query, rope)
        # Under autocast the rotated query keeps its dtype; values may still be in another one.
        return attention(query, key.to(query.dtype), value.to(query.dtype), mask)


class DiTBlock(nn.Module):
    """Self-attention plus gated cross-attention, then feed-forward, each behind a tanh gate."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(config.num_heads))
        self.norm1 = ModulatedNorm(config)
        self.attn1 = Attention(config, has_output=False)
        self.norm1_context = RMSNorm(config.dim, config.norm_eps)
        self.attn2 = Attention(config, has_output=True)
        self.norm2 = RMSNorm(config.dim, config.norm_eps)
        self.ffn_norm1 = RMSNorm(config.dim, config.norm_eps)
        self.feed_forward = FeedForward(config.dim, config.ffn_width)
        self.ffn_norm2 = RMSNorm(config.dim, config.norm_eps)

    def forward(
        self,
        x: Tensor,
        temb: Tensor,
        rope: Tensor,
        context: Tensor | tuple[Tensor, Tensor],
        mask: Tensor | None = None,
    ) -> Tensor:
        """x (B, N, D), temb (B, T), rope (N, d/2), mask (B, L) -> (B, N, D).

        context: keys and values, or the projected condition (B, L, D) that they are made of.
        """
        if isinstance(context, Tensor):
            context = self.context(context)
        h, modulation = self.norm1(x, temb)
        key, value = self.attn1.keys_values(h)
        own = self.attn1(h, apply_rope(key, rope), value, rope)  # (B, N, H, d)
        cross = self.attn2(h, *context, rope, mask)  # queries rotated, context keys not
        mixed = own + self.gate.tanh()[None, None, :, None].to(cross.dtype) * cross
        mixed = self.attn2.to_out[0](mixed.flatten(2))  # (B, N, D)
        x = x + modulation.gate_attention.tanh() * self.norm2(mixed)
        y = self.ffn_norm1(x) * (1 + modulation.scale_ffn)
        return x + modulation.gate_ffn.tanh() * self.ffn_norm2(self.feed_forward(y))

    def context(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the projected condition (B, L, D): two of (B, L, H_kv, d)."""
        key, value = self.attn2.keys_values(self.norm1_context(projected))
        return key, value


class PatchEmbed(nn.Module):
    """Linear map of patches; a patch row is ordered (channel, row in patch, column in patch)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.proj = nn.Linear(config.in_channels * config.patch_size**2, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, D), tokens row-major."""
        p = self.patch_size
        x = x.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # (B, C, h, p, w, p)
        return self.proj(x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2))


class ConditionProjection(nn.Module):
    """Two-layer map of the query states to the width of the transformer: (B, L, Hc) -> (B, L, D)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(config.condition_dim, config.dim)
        self.linear_2 = nn.Linear(config.dim, config.dim)

    def forward(self, condition: Tensor) -> Tensor:
        return self.linear_2(F.gelu(self.linear_1(condition), approximate="tanh"))


class TimestepMLP(nn.Module):
    """Sinusoid (B, 256) -> (B, T)."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_width, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class TimeCaptionEmbed(nn.Module):
    """Timestep embedding plus the pooled condition: (B,), (B, D) -> (B, T)."""

    def __init__(self, config: DiTConfig, sinusoid_width: int = 256) -> None:
        super().__init__()
        self.time_proj = TimestepSinusoid(sinusoid_width)
        self.timestep_embedder = TimestepMLP(sinusoid_width, config.temb_width)
        # The norm keeps PyTorch's own eps, as the released model does; norm_eps is not meant here.
        self.caption_embedder = nn.Sequential(
            LayerNorm(config.dim), nn.Linear(config.dim, config.temb_width)
        )

    def forward(self, timestep: Tensor, pooled: Tensor) -> Tensor:
        sinusoid = self.time_proj(timestep).to(self.timestep_embedder.linear_1.weight.dtype)
        return self.timestep_embedder(sinusoid) + self.caption_embedder(pooled)


class OutputHead(nn.Module):
    """Modulated LayerNorm and linear map to patches: (B, N, D) -> (B, N, p*p*C)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.norm = LayerNorm(config.dim, eps=1e-6, elementwise_affine=False)
        self.linear_1 = nn.Linear(config.temb_width, config.dim)
        self.linear_2 = nn.Linear(config.dim, config.patch_size**2 * config.in_channels)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        return self.linear_2(self.norm(x) * (1 + self.linear_1(F.silu(temb))[:, None]))


class EncodedCondition(NamedTuple):
    """What the transformer needs of a condition; constant over the sampling steps.

    ``pooled`` (B, D); ``keys_values`` one pair (B, L, H_kv, d) per layer; ``mask`` (B, L) or None.
    """

    pooled: Tensor
    keys_values: tuple[tuple[Tensor, Tensor], ...]
    mask: Tensor | None


class DiT(nn.Module):
    """Diffusion transformer: noisy features, timestep and condition -> velocity.

    ``gradient_checkpointing`` recomputes blocks in the backward pass to save memory.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.patch_embedder = PatchEmbed(config)
        self.caption_projection = ConditionProjection(config)
        self.time_caption_embed = TimeCaptionEmbed(config)
        self.layers = nn.ModuleList([DiTBlock(config) for _ in range(config.num_layers)])
        self.norm_out = OutputHead(config)

    def reset_parameters(self) -> None:
        """PyTorch's default initialisation, cross-attention gates at zero, norms at one."""
        for module in self.modules():
            if isinstance(module, DiTBlock):
                nn.init.zeros_(module.gate)
            elif isinstance(module, RMSNorm):
                nn.init.ones_(module.weight)
            elif isinstance(module, nn.Linear | nn.LayerNorm):
                module.reset_parameters()

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of the features that are made."""
        config = self.config
        return config.in_channels, config.input_size, config.input_size

    @property
    def dtype(self) -> torch.dtype:
        return self.patch_embedder.proj.weight.dtype

    def encode_guided(self, condition: Tensor) -> EncodedCondition:
        """Condition of the doubled batch: B times the zero condition, encoded once, then the real ones."""
        batch = len(condition)
        encoded = self.encode_condition(torch.cat([torch.zeros_like(condition[:1]), condition]))
        index = torch.cat([torch.zeros(batch, dtype=torch.long), torch.arange(1, batch + 1)])
        index = index.to(condition.device)
        return EncodedCondition(
            encoded.pooled[index],
            tuple((key[index], value[index]) for key, value in encoded.keys_values),
            None,
        )

    def encode_condition(
        self, condition: Tensor, condition_mask: Tensor | None = None
    ) -> EncodedCondition:
        """Project a condition (B, L, Hc) once; the result can be passed to ``forward`` in its place.

        condition_mask: (B, L), True (or 1) at tokens that count; None when all do.
        """
        projected, pooled, mask = self._project(condition, condition_mask)
        contexts = tuple(layer.context(projected) for layer in self.layers)  # type: ignore[operator]
        return EncodedCondition(pooled, contexts, mask)

    def _project(
        self, condition: Tensor, condition_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Condition at the width of the transformer (B, L, D), its mean (B, D) and its mask. Raises: ShapeError."""
        if condition.ndim != 3 or condition.shape[-1] != self.config.condition_dim:
            raise ShapeError(
                f"condition must be (batch, tokens, {self.config.condition_dim}), got {tuple(condition.shape)}"
            )
        projected = self.caption_projection(condition)  # (B, L, D)
        if condition_mask is None:
            pooled, mask = projected.mean(dim=1), None
        else:
            mask = condition_mask.bool()
            weight = mask.to(projected.dtype)[..., None]
            pooled = (projected * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
        return projected, pooled, mask

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        condition: Tensor | EncodedCondition,
        condition_mask: Tensor | None = None,
    ) -> Tensor:
        """Velocity of noisy features.

        Args: x (B, C, H, W); timestep (B,) in 0..1000; condition (B, L, Hc), or its encoded form;
            condition_mask (B, L), True at condition tokens that count.
        Returns: (B, C, H, W). Raises: ShapeError.
        """
        batch, channels, height, width = x.shape
        p = self.config.patch_size
        if channels != self.config.in_channels or height % p or width % p:
            raise ShapeError(
                f"x must have {self.config.in_channels} channels and sides divisible by {p}, "
                f"got {tuple(x.shape)}"
            )
        if timestep.shape != (batch,):
            raise ShapeError(f"timestep must be ({batch},), got {tuple(timestep.shape)}")
        contexts: Sequence[Tensor | tuple[Tensor, Tensor]]
        if isinstance(condition, EncodedCondition):
            pooled, contexts, mask = condition
        else:
            # A block makes its own keys and values: its weights are used in its forward only, where a sharded
            # block has them together, and checkpointing need not keep them.
            projected, pooled, mask = self._project(condition, condition_mask)
            contexts = [projected] * len(self.layers)
        if len(pooled) != batch:
            raise ShapeError(f"x has batch {batch}, its condition {len(pooled)}")
        table = rope_table_2d(
            height // p, width // p, self.config.head_dim, self.config.rope_theta, x.device
        ).flatten(0, 1)  # (N, d/2)
        hidden = self.patch_embedder(x)  # (B, N, D)
        temb = self.time_caption_embed(timestep, pooled)  # (B, T)
        for layer, context in zip(self.layers, contexts, strict=True):
            if self.gradient_checkpointing and torch.is_grad_enabled():
                hidden = checkpoint(layer, hidden, temb, table, context, mask, use_reentrant=False)
            else:
                hidden = layer(hidden, temb, table, context, mask)
        return self._unpatchify(self.norm_out(hidden, temb), height // p, width // p)

    def _unpatchify(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """(B, N, p*p*C), ordered (row in patch, column in patch, channel) -> (B, C, H, W)."""
        p = self.config.patch_size
        x = x.unflatten(1, (rows, columns)).unflatten(3, (p, p, -1))  # (B, h, w, p, p, C)
        return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
