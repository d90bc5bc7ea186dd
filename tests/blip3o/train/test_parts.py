"""Recipes of parts: each is trained from archives by the one loop and leaves a folder that models are made of."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from blip3o.errors import ConfigError
from blip3o.pipeline import Blip3oPipeline
from blip3o.presets import build_tiny
from blip3o.train.part_recipe import PARTS, PartRecipe
from blip3o.train.recipe import load_recipe, recipe_from_dict
from blip3o.train.run_part import run_part
from blip3o.vision.targets import load_target

DECODER = {"image_size": 32, "feature_channels": 6, "feature_size": 4, "block_out_channels": [16, 16], "norm_groups": 8}
CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1},
}
VAE = {
    "sample_size": 32, "latent_channels": 4, "block_out_channels": [8, 8, 16], "norm_num_groups": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3,
}  # fmt: skip
SETTINGS = {
    "clip": {"clip": CLIP, "decoder": DECODER, "vocab_size": 300},
    "autoencoder": {"vae": VAE, "kl_weight": 1e-3},
    "decoder": {"feature_noise": 0.1},
}


def part(folder, stage, steps=2, **changes):
    return {
        "stage": stage,
        "data": [{"name": "pictures", "layout": "webdataset", "paths": [str(folder / "*.tar")]}],
        "settings": SETTINGS[stage],
        "batch_size": 4,
        "workers": 0,
        "loop": {"steps": steps, "lr": 1e-3, "warmup_steps": 0, "log_every": 1, "save_every_s": 0.0},
        **changes,
    }


def test_a_target_tower_its_decoder_and_a_vae_are_trained_from_archives(folder, tmp_path):
    made = run_part(recipe_from_dict(part(folder, "clip")), tmp_path / "clip")
    target = load_target(made / "target_encoder")
    features = target.encode([Image.new("RGB", (50, 40), "red"), Image.new("RGB", (32, 32), "blue")])
    assert features.shape == (2, 6, 4, 4)
    # a model with that tower and decoder, whose decoder then learns on alone
    from blip3o.decoder import FlowPixelDecoder

    pipeline = build_tiny()
    pipeline.target_encoder = target
    pipeline.decoder = FlowPixelDecoder.from_folder(
        made / "decoder", json.loads((made / "decoder/config.json").read_text())
    )
    pipeline.save_pretrained(tmp_path / "model")
    before = pipeline.decoder.state_dict()
    settings = part(folder, "decoder", model=str(tmp_path / "model"))
    after = Blip3oPipeline.from_pretrained(run_part(recipe_from_dict(settings), tmp_path / "decoder"))
    assert any(not torch.equal(before[k], v) for k, v in after.decoder.state_dict().items())
    assert all(torch.equal(v, pipeline.model.state_dict()[k]) for k, v in after.model.state_dict().items())
    assert after("a photo of a dog").images[0].size == (32, 32)
    # a VAE: encoder and decoder in one folder, its latents of variance 1
    vae = load_target(run_part(recipe_from_dict(part(folder, "autoencoder")), tmp_path / "vae"))
    assert vae.encode([Image.new("RGB", (32, 32), "red")]).shape == (1, 4, 8, 8)
    for name in ("clip", "decoder", "vae"):
        tally = json.loads((tmp_path / name / "data.json").read_text())["pictures"]
        assert tally["read"] >= 8 and tally["bad"] == 0


def test_an_interrupted_part_ends_as_an_undisturbed_one(folder, tmp_path):
    recipe = recipe_from_dict(part(folder, "autoencoder", steps=4))
    whole = run_part(recipe, tmp_path / "whole")
    from blip3o.train.autoencoder import AutoencoderStage

    original, calls = AutoencoderStage.loss, []

    def interrupted(self, batch, generator):
        calls.append(batch)
        if len(calls) == 4:  # one of them is the rehearsal that counts nothing here
            raise KeyboardInterrupt
        return original(self, batch, generator)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoencoderStage, "loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_part(recipe, tmp_path / "parts")
    resumed = run_part(recipe, tmp_path / "parts")
    for name in ("vae/diffusion_pytorch_model.safetensors", "vae/config.json"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes()


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        ("autoencoder", {"settings": {}}, "stage 'autoencoder' needs settings.vae"),
        ("autoencoder", {"settings": {"vae": VAE, "kl_wight": 1}}, "settings.kl_wight; did you mean kl_weight"),
        ("autoencoder", {"settings": {"vae": VAE, "kl_weight": "x"}}, "settings.kl_weight must be of type float"),
        ("decoder", {}, "stage 'decoder' needs model"),
        ("clip", {"batch_size": 0}, "batch_size 0"),
        ("clip", {"evaluate": {"every": 1, "prompts": ["a"]}}, "unknown key recipe.evaluate"),
        ("clip", {"data": []}, "data is empty"),
    ],
)
def test_wrong_part_recipes_are_refused(folder, stage, changes, message):
    with pytest.raises(ConfigError, match=message):
        recipe_from_dict(part(folder, stage, **changes))


def test_the_judge_learns_on_the_sticker_world_alone(folder):
    data = [{"name": "world", "layout": "stickers", "paths": ["full", "easy"]}]
    loop = {"steps": 1, "lr": 1e-3}
    assert isinstance(recipe_from_dict({"stage": "judge", "data": data, "loop": loop}), PartRecipe)
    with pytest.raises(ConfigError, match="the judge learns on the sticker world alone"):
        recipe_from_dict(part(folder, "clip") | {"stage": "judge", "settings": {}})


def test_every_part_is_told_of():
    assert set(PARTS) == {"clip", "autoencoder", "decoder", "judge"}
    with pytest.raises(ConfigError, match="stage 'decodr' is unknown.*did you mean decoder"):
        recipe_from_dict({"stage": "decodr", "loop": {"steps": 1, "lr": 1e-3}})
    with pytest.raises(ConfigError, match="neither a recipe nor a file"):
        load_recipe("autoencoder")
