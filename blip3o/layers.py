"""Building blocks of the diffusion transformer.

Norms, rotary embeddings and timestep embeddings are computed in float32 (float64 if the input is)
and cast back. Dimension letters: B batch, S query tokens, L key tokens, D width, H heads, d head width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blip3o.errors import ShapeError


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32, or unchanged where it is already that precise."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learned weight; the statistics are taken in float32."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        if self.weight.dtype in (torch.float16, torch.bfloat16):
            wide = wide.to(self.weight.dtype)
        return (wide * self.weight).to(x.dtype)


class LayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` computed in float32 and cast back to the dtype of its input.

    Where weight and input have one dtype the kernel does both itself, also in half precision.
    """

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor | None = self.weight
        bias: Tensor | None = self.bias
        wide = x
        if weight is not None and weight.dtype != x.dtype:
            wide = at_least_float32(x)
            weight, bias = weight.to(wide.dtype), None if bias is None else bias.to(wide.dtype)
        return F.layer_norm(wide, self.normalized_shape, weight, bias, self.eps).to(x.dtype)


def _use_plain_attention(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether to write attention as matmul, softmax, matmul instead of the fused kernel.

    The backward of the fused CPU kernel is 2 to 3 times slower than the plain form for the short
    sequences of this model (16 to 64 tokens), and takes two thirds of a training step. On a GPU,
    and without gradients, the fused kernel is right.
    """
    if query.device.type != "cpu" or not torch.is_grad_enabled():
        return False
    return query.requires_grad or key.requires_grad or value.requires_grad


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention with scale ``1/sqrt(d)`` and grouped key/value heads.

    Args: query (B, S, H, d); key and value (B, L, H_kv, d), where query head h reads key/value head
        ``h // (H / H_kv)``; mask (B, L) bool, True where a key may be seen.
    Returns: (B, S, H, d).
    """
    heads, kv_heads = query.shape[2], key.shape[2]
    if kv_heads != heads:
        key = key.repeat_interleave(heads // kv_heads, dim=2)
        value = value.repeat_interleave(heads // kv_heads, dim=2)
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))  # (B, H, S|L, d)
    bias = None if mask is None else mask[:, None, None, :]  # (B, 1, 1, L)
    if _use_plain_attention(query, key, value):
        scores = torch.matmul(
            query * query.shape[-1] ** -0.5, key.transpose(-1, -2)
        )  # (B, H, S, L)
        if bias is not None:
            scores = scores.masked_fill(~bias, torch.finfo(scores.dtype).min)
        out = torch.matmul(scores.softmax(dim=-1), value)
    else:
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return out.transpose(1, 2)


_ROPE_TABLES: dict[tuple[int, int, int, float, str], Tensor] = {}


def rope_table_2d(
    height: int,
    width: int,
    head_dim: int,
    theta: float = 10000.0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Unit complex factors of the two-dimensional rotary embedding, complex64 (height, width, head_dim/2).

    Each axis has ``head_dim / 4`` frequencies ``theta^(-2i / (head_dim/2))``; the factors of row and
    column alternate (row 0, column 0, row 1, ...), as in Lumina-Next (arXiv:2406.18583).

    The table is a cached function value and not a module attribute: it never enters a state dict and
    cannot stay on the meta device when a model is built there.
    """
    key = (height, width, head_dim, theta, str(device))
    if key not in _ROPE_TABLES:
        # A table made under inference_mode could not be used in training later on.
        with torch.inference_mode(False), torch.no_grad():
            half = head_dim // 2
            exponents = torch.arange(0, half, 2, dtype=torch.float32, device="cpu") / half
            frequencies = 1.0 / theta**exponents  # (head_dim/4,)
            rows = torch.arange(height, dtype=torch.float32, device="cpu")[:, None] * frequencies
            columns = torch.arange(width, dtype=torch.float32, device="cpu")[:, None] * frequencies
            angles = torch.stack(
                [rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)], dim=-1
            ).flatten(-2)  # (height, width, head_dim/2)
            _ROPE_TABLES[key] = torch.polar(torch.ones_like(angles), angles).to(device)
    return _ROPE_TABLES[key]


def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    """Rotate adjacent pairs of each head by the angles of its token.

    A complex product, not its four real ones: it rounds like the released code, to the last bit.

    Args: x (B, S, H, d); table (S, d/2), complex.
    """
    pairs = torch.view_as_complex(at_least_float32(x).unflatten(-1, (-1, 2)))  # (B, S, H, d/2)
    return torch.view_as_real(pairs * table[None, :, None]).flatten(-2).to(x.dtype)


class TimestepSinusoid(nn.Module):
    """Sinusoidal features ``[cos, sin]`` of timesteps in 0..1000: (B,) -> (B, width), float32."""

    def __init__(self, width: int = 256, max_period: float = 10000.0) -> None:
        super().__init__()
        if width % 2:
            raise ShapeError(f"the timestep embedding width must be even, got {width}")
        self.width, self.max_period = width, max_period

    def forward(self, timestep: Tensor) -> Tensor:
        half = self.width // 2
        index = torch.arange(half, dtype=torch.float32, device=timestep.device)
        angles = timestep.float()[:, None] * torch.exp(-math.log(self.max_period) * index / half)
        return torch.cat([angles.cos(), angles.sin()], dim=-1)


class FeedForward(nn.Module):
    """Gated feed-forward layer ``W2(SiLU(W1 y) * W3 y)``; SiLU in float32, no biases."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(dim, hidden_dim, bias=False)
        self.linear_2 = nn.Linear(hidden_dim, dim, bias=False)
        self.linear_3 = nn.Linear(dim, hidden_dim, bias=False)

    def forward(self, y: Tensor) -> Tensor:
        gate = self.linear_1(y)
        gate = F.silu(at_least_float32(gate)).to(gate.dtype)
        return self.linear_2(gate * self.linear_3(y))
