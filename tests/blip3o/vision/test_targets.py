"""Target encoders as folders: every kind gives the same features after saving, and those of its library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import blip3o
from blip3o.errors import ConfigError, ShapeError, WeightsError
from blip3o.presets import _tiny_decoder
from blip3o.storage import read_json, write_json
from blip3o.vision.feature_space import FeatureSpace
from blip3o.vision.siglip import SiglipEncoder
from blip3o.vision.targets import Target, build_encoder, default_preprocess, load_target

SIGLIP = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 8}
CONFIGS = {
    "open_clip": {
        "kind": "open_clip", "layer": -2,
        "model": {"embed_dim": 16, "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 16, "layers": 2,
                                                  "head_width": 8}},
    },
    "eva_clip": {"kind": "eva_clip", "eva": {"image_size": 32, "patch_size": 4, "width": 16, "layers": 1,
                                             "head_width": 8, "mlp_ratio": 2.0}},
    "siglip2 fixed": {"kind": "siglip", "model": {**SIGLIP, "model_type": "siglip_vision_model", "image_size": 32}},
    "siglip2 naflex": {"kind": "siglip", "size_px": 32,
                       "model": {**SIGLIP, "model_type": "siglip2_vision_model", "num_patches": 16}},
}  # fmt: skip


def photos() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = ((50, 40, 3), (32, 64, 3))
    return [Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)) for size in sizes]


@pytest.mark.parametrize("name", CONFIGS)
def test_saved_is_loaded(name, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = CONFIGS[name]
    encoder = build_encoder(config).eval()
    pooling = "early_pool2d_4" if name == "eva_clip" else "none"
    space = FeatureSpace(16, 6) if name == "open_clip" else None
    target = Target(encoder, default_preprocess(config, encoder), config, space, pooling)
    target.save_pretrained(tmp_path)
    loaded = load_target(tmp_path)
    with torch.no_grad():
        before, after = target.encode(photos()), loaded.encode(photos())
    assert torch.equal(before, after)
    side = 2 if name == "eva_clip" else 4
    assert before.shape == (2, 6 if space else 16, side, side)
    assert not any(p.requires_grad for p in loaded.parameters())


def test_the_vae_is_a_target_encoder(tmp_path: Path) -> None:
    vae = _tiny_decoder("vae")
    from blip3o.vision.preprocess import UNIT_MEAN, UNIT_STD, Preprocess

    prepare = Preprocess(size_px=32, mean=UNIT_MEAN, std=UNIT_STD)
    target = Target(vae, prepare, {"kind": "vae"})
    target.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(load_target(tmp_path).encode(photos()), target.encode(photos()))


def test_siglip_gives_the_states_of_the_library() -> None:
    torch.manual_seed(0)
    encoder = SiglipEncoder({**SIGLIP, "image_size": 32}, layer=-2).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        states = encoder.model(pixel_values=images, output_hidden_states=True).hidden_states
        torch.testing.assert_close(encoder.tokens(images), states[-2])
        wide = encoder.tokens(torch.randn(1, 3, 32, 48))  # positions are interpolated
    assert wide.shape == (1, 24, 16)
    with pytest.raises(ShapeError, match="40x36 px does not divide into patches of 8 px"):
        encoder.tokens(torch.randn(1, 3, 36, 40))
    with pytest.raises(ConfigError, match="layer must be between -3 and -1, got 0"):
        SiglipEncoder(SIGLIP, layer=0)
    with pytest.raises(ConfigError, match="'clip_vision_model' is unknown; use siglip_vision_model or siglip2"):
        SiglipEncoder({**SIGLIP, "model_type": "clip_vision_model"})


def test_naflex_rows_are_those_of_its_image_processor() -> None:
    from transformers import Siglip2ImageProcessor

    torch.manual_seed(0)
    encoder = SiglipEncoder(CONFIGS["siglip2 naflex"]["model"]).eval()
    photo = photos()[0].resize((32, 32))
    processor = Siglip2ImageProcessor(patch_size=8, max_num_patches=16, do_resize=False)
    inputs = processor(images=photo, return_tensors="pt")
    images = torch.from_numpy(np.asarray(photo)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        theirs = encoder.model(**inputs).last_hidden_state
        torch.testing.assert_close(encoder.tokens(images), theirs, atol=1e-5, rtol=1e-5)


def test_the_bundled_target_encoder_loads() -> None:
    target = load_target(Path(blip3o.__file__).parent / "weights" / "nano" / "target_encoder")
    features = target.encode(photos())
    assert features.shape[0] == 2 and features.isfinite().all()
    assert target.preprocess.size_px == 64


def test_faults_of_a_folder_are_named(tmp_path: Path) -> None:
    config = CONFIGS["open_clip"]
    encoder = build_encoder(config)
    Target(encoder, default_preprocess(config, encoder), config).save_pretrained(tmp_path)
    values = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", {**values, "kind": "dino"})
    with pytest.raises(ConfigError, match="is no target encoder: kind .dino. in its config.json, which must be one of"):
        load_target(tmp_path)
    write_json(tmp_path / "config.json", {**values, "preprocess": {"size": 3}})
    with pytest.raises(ConfigError, match="unknown key preprocess.size"):
        load_target(tmp_path)
    write_json(tmp_path / "config.json", values)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="model.safetensors is missing"):
        load_target(tmp_path)
