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
