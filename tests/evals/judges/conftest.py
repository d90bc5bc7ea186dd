"""Random networks of the real architectures, small enough for every test run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def _detector_config(num_queries: int = 12):
    from transformers import Mask2FormerConfig, SwinConfig

    from blip3o.stickers import CLASSES

    backbone = SwinConfig(
        embed_dim=8,
        depths=[1, 1, 2, 1],
        num_heads=[1, 2, 2, 4],
        window_size=3,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return Mask2FormerConfig(
        backbone_config=backbone.to_dict(),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=2,
        decoder_layers=3,
        num_attention_heads=4,
        num_queries=num_queries,
        id2label=dict(enumerate(CLASSES)),
    )


def make_detector(folder: Path, seed: int = 0) -> Path:
    """Random weights; heads are sharpened so that masks differ and some scores pass GenEval's thresholds."""
    import torch
    from transformers import Mask2FormerForUniversalSegmentation

    torch.manual_seed(seed)
    model = Mask2FormerForUniversalSegmentation(_detector_config()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for name, parameter in model.named_parameters():
            if "relative_position_bias_table" in name or "queries_features" in name:
                parameter.normal_()
            elif "mask_embedder" in name or "mask_projection" in name:
                parameter.mul_(8)
        model.class_predictor.weight.mul_(40)
    model.save_pretrained(folder)
    return folder


def make_clip(folder: Path, seed: int = 0) -> Path:
    import torch
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    torch.manual_seed(seed)
    model = CLIP(**config, quick_gelu=True).eval()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return folder


@pytest.fixture(scope="session")
def detector_folder(tmp_path_factory) -> Path:
    return make_detector(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def small_inputs(monkeypatch) -> None:
    """Inputs of 96 x 160 pixels in place of 800 x 1333: the same rules, a fiftieth of the time."""
    from evals.judges import mask2former, mask2former_images

    def prepare(image, padding="grey", device="cpu"):
        return mask2former_images.prepare(image, padding, device, short_side=96, long_side=160)

    monkeypatch.setattr(mask2former, "prepare", prepare)


@pytest.fixture
def make_tiny_detector():
    return make_detector


@pytest.fixture
def make_tiny_clip():
    return make_clip
