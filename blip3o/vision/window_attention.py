"""Qwen2.5-VL's vision attention with windows of one length in one batch.

transformers runs one attention call per window and layer unless flash attention is installed: 64 small pictures
through 3 layers are 192 calls. Windows of one length are one batched call with the same result; a picture whose sides
the window divides has one length, any other at most four.
Dimension letters: S patches of all windows, n windows, L patches in a window, h heads, d head width.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    apply_rotary_pos_emb_vision,
)

from blip3o.layers import attention


def batch_equal_windows(tower: Qwen2_5_VisionTransformerPretrainedModel) -> None:
    """Let every attention of a Qwen2.5-VL vision tower batch its windows, length by length.

    The attention stays that of transformers where a flash-attention kernel is asked for: it takes windows of any
    length at once.
    """
    if "flash" in str(tower.config._attn_implementation):
        return
    for block in tower.blocks:
        own: Any = block.attn
        own.forward = MethodType(_attend_by_length, own)


def _attend_by_length(
    self: Any,
    hidden_states: Tensor,
    cu_seqlens: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    **kwargs: Any,
) -> Tensor:
    """hidden_states (S, D), cu_seqlens (n + 1,) where windows begin and end -> (S, D)."""
    total = hidden_states.shape[0]
    qkv = self.qkv(hidden_states).reshape(total, 3, self.num_heads, -1)
    query, key, value = qkv.unbind(1)  # (S, h, d)
    query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
    starts, lengths = cu_seqlens[:-1], cu_seqlens.diff()
    distinct = lengths.unique().tolist()
    if len(distinct) == 1:
        parts = (x.unflatten(0, (-1, distinct[0])) for x in (query, key, value))  # (n, L, h, d)
        return self.proj(attention(*parts).reshape(total, -1))
    mixed = torch.empty_like(value)
    for length in distinct:
        if length == 0:  # a window beyond the edge of the picture
            continue
        first = starts[lengths == length]  # (n,)
        rows = first[:, None] + torch.arange(length, device=first.device)  # (n, L)
        seen = attention(query[rows], key[rows], value[rows])  # (n, L, h, d)
        mixed = mixed.index_put((rows,), seen.to(mixed.dtype))
    return self.proj(mixed.reshape(total, -1))
