"""Qwen2.5-VL's vision attention with windows of one length in one batch.

transformers runs one attention call per window and layer unless flash attention is installed: 64 small pictures
through 3 layers are 192 calls. Windows of equal length (all of them for pictures of one size whose sides the window
divides) are one batched call with the same result.
Dimension letters: S patches of all windows, n windows, L patches in a window, h heads, d head width.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

from blip3o.layers import attention


def batch_equal_windows(tower: nn.Module) -> None:
    """Let every attention of a Qwen2.5-VL vision tower batch its windows where they have one length."""
    for block in tower.blocks:
        block.attn.forward = MethodType(_batched(block.attn.forward), block.attn)


def _batched(one_by_one: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(
        self: Any,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        lengths = cu_seqlens.diff()
        if len(lengths) < 2 or bool((lengths != lengths[0]).any()) or position_embeddings is None:
            return one_by_one(
                hidden_states, cu_seqlens, position_embeddings=position_embeddings, **kwargs
            )
        total, count = hidden_states.shape[0], len(lengths)
        qkv = self.qkv(hidden_states).reshape(total, 3, self.num_heads, -1)
        query, key, value = qkv.unbind(1)  # (S, h, d)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        query, key, value = (
            x.unflatten(0, (count, -1)) for x in (query, key, value)
        )  # (n, L, h, d)
        return self.proj(attention(query, key, value).reshape(total, -1))

    return forward
