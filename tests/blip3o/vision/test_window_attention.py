"""Batched windows against transformers' own loop over windows."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
)

from blip3o.vision.window_attention import batch_equal_windows


@pytest.fixture(scope="module")
def towers():
    torch.manual_seed(0)
    config = Qwen2_5_VLVisionConfig(
        depth=3, hidden_size=32, intermediate_size=48, num_heads=2, patch_size=8, spatial_merge_size=2,
        window_size=32, out_hidden_size=24, fullatt_block_indexes=[2],
    )  # fmt: skip
    own = Qwen2_5_VisionTransformerPretrainedModel(config).double().eval()
    batched = copy.deepcopy(own)
    batch_equal_windows(batched)
    return own, batched


@pytest.mark.parametrize(
    "grids", [[(1, 8, 8)] * 3, [(1, 8, 8)], [(1, 8, 8), (1, 4, 12)], [(1, 6, 10)]], ids=str
)
def test_same_tokens_and_gradients_as_one_window_at_a_time(towers, grids):
    grid = torch.tensor(grids)
    rows = torch.randn(int(grid.prod(1).sum()), 3 * 2 * 8 * 8, dtype=torch.float64)
    results = []
    for tower in towers:
        pixels = rows.clone().requires_grad_()
        tokens = tower(pixels, grid_thw=grid).pooler_output
        tokens.square().sum().backward()
        results.append((tokens, pixels.grad))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_one_call_per_window_length(towers, monkeypatch):
    """A picture of 20 x 28 patches has windows of 16, and cut ones at its edges."""
    from blip3o.vision import window_attention

    seen = []
    attend = window_attention.attention
    monkeypatch.setattr(window_attention, "attention", lambda q, *a: seen.append(q.shape[:2]) or attend(q, *a))
    grid = torch.tensor([[1, 6, 10]])
    with torch.no_grad():
        towers[1](torch.randn(60, 3 * 2 * 8 * 8, dtype=torch.float64), grid_thw=grid)
    windowed, whole = seen[:-1], seen[-1]
    assert whole == (1, 60)
    assert all(count * length <= 60 for count, length in windowed)
    lengths = [length for _, length in windowed]
    assert len(lengths) == 2 * len(set(lengths))  # two windowed layers, each length once


def test_understanding_batches_windows_too_and_copies_are_whole():
    """The tower of the pipeline's backbone, not only that of training; a copy must not reach back to its original."""
    from blip3o.presets import build_tiny

    model = build_tiny().model
    copied = copy.deepcopy(model)
    towers = (m.backbone.vlm.model.visual.blocks for m in (model, copied))
    for block, other in zip(*towers, strict=True):
        assert block.attn.forward.__func__.__name__ == "_attend_by_length"
        assert other.attn.forward.__self__ is other.attn
