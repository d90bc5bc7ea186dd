"""The attention that backbones run under transformers' interface.

Dimension letters: B batch, L tokens, H heads, H_kv key/value heads, S query tokens, d head width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION_NAME = "blip3o"


def _training_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of the backbone: the fused kernel, except on a CPU with gradients.

    There the backward of the fused kernel costs 2 to 3 times the plain form (see blip3o.layers).
    query (B, H, S, d); key and value (B, H_kv, L, d) -> (B, S, H, d).
    """
    needs_grad = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
    if query.device.type != "cpu" or not needs_grad or dropout:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **kwargs
        )
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query * scale, key.transpose(-1, -2))  # (B, H, S, L)
    length, seen = scores.shape[-2:]
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if attention_mask is None and is_causal and length > 1:
        attention_mask = torch.ones(length, seen, dtype=torch.bool, device=query.device).tril()
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = F.softmax(scores, dim=-1)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION_NAME, _training_attention)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
