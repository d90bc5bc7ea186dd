"""Target encoders beyond the recorded EVA tower."""

from __future__ import annotations

import pytest
import torch
from open_clip.model import CLIP

from blip3o.errors import ConfigError, ShapeError
from blip3o.vision.encoders import (
    EvaConfig,
    EvaEncoder,
    OpenClipEncoder,
    grid_to_tokens,
    pool_grid,
    tokens_to_grid,
)

CLIP_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 24, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1},
}


def test_open_clip_features_are_the_chosen_block_without_class_token() -> None:
    torch.manual_seed(0)
    clip = CLIP(**CLIP_CONFIG).eval()
    images = torch.randn(2, 3, 24, 24)
    outputs = {}
    for i, block in enumerate(clip.visual.transformer.resblocks):
        block.register_forward_hook(lambda m, a, out, i=i: outputs.__setitem__(i, out))
    with torch.no_grad():
        clip.encode_image(images)
        expected = dict(outputs)
        for layer in (-1, -2, 0):
            encoder = OpenClipEncoder(clip.visual, layer)
            grid = encoder(images)
            assert grid.shape == (2, 32, 3, 3) and encoder.width == 32
            assert torch.equal(grid_to_tokens(grid), expected[layer % 3][:, 1:])


def test_open_clip_towers_load_under_their_own_names() -> None:
    clip = CLIP(**CLIP_CONFIG)
    encoder = OpenClipEncoder.from_config(CLIP_CONFIG)
    encoder.visual.load_state_dict(clip.visual.state_dict())


def test_timm_trunks_serve_as_well() -> None:
    encoder = OpenClipEncoder.from_config(
        {"embed_dim": 16, "vision_cfg": {"timm_model_name": "vit_tiny_patch16_224", "image_size": 224}}
    ).eval()
    with torch.no_grad():
        assert encoder(torch.zeros(1, 3, 224, 224)).shape == (1, 192, 14, 14)


def test_towers_without_intermediate_features_are_refused() -> None:
    with pytest.raises(ConfigError, match="Linear gives no intermediate features"):
        OpenClipEncoder(torch.nn.Linear(2, 2))


def test_the_released_tower_has_its_published_size() -> None:
    with torch.device("meta"):
        tower = EvaEncoder(EvaConfig())
    assert sum(p.numel() for p in tower.parameters()) == 4_350_208_256
    assert tower.blocks[0].mlp.fc1.out_features == 15360


def test_prenorm_blocks_normalise_their_input() -> None:
    config = EvaConfig(image_size=8, patch_size=4, width=8, layers=1, head_width=4, postnorm=False)
    tower = EvaEncoder(config)
    block, x = tower.blocks[0], torch.randn(1, 5, 8)
    attended = x + block.attn(block.norm1(x))
    torch.testing.assert_close(block(x), attended + block.mlp(block.norm2(attended)))


def test_pooling_averages_windows() -> None:
    grid = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert pool_grid(grid, "early_pool2d_2").flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pool_grid(grid, "none") is grid
    assert torch.equal(tokens_to_grid(grid_to_tokens(grid)), grid)
    with pytest.raises(ConfigError, match="'late' is unknown"):
        pool_grid(grid, "late")
    with pytest.raises(ShapeError, match="does not divide into 3x3"):
        pool_grid(grid, "early_pool2d_3")
    with pytest.raises(ShapeError, match="5 tokens do not form a square"):
        tokens_to_grid(torch.zeros(1, 5, 2))
