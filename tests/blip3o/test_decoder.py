"""Pixel decoders: seeds, batches, saving, and the settings of the released one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel

from blip3o.decoder import FlowPixelDecoder, FlowPixelDecoderConfig, load_decoder
from blip3o.errors import ConfigError, ShapeError, WeightsError
from blip3o.latent_decoder import SCHEDULER_CONFIG, LatentDecoder, LatentDecoderConfig
from blip3o.storage import read_json, write_json
from blip3o.vision.autoencoder import Autoencoder, AutoencoderConfig


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.fixture(scope="module")
def flow() -> FlowPixelDecoder:
    torch.manual_seed(0)
    config = FlowPixelDecoderConfig(
        image_size=16, feature_channels=5, feature_size=4, block_out_channels=(8, 16), norm_groups=4
    )
    return FlowPixelDecoder(config).eval()


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, latent_channels=4, scaling_factor=0.13025,
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def latent(vae) -> LatentDecoder:
    torch.manual_seed(2)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), block_out_channels=(16, 32), layers_per_block=1,
        cross_attention_dim=12, attention_head_dim=(2, 4), use_linear_projection=True, norm_num_groups=8,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=12 + 48,
    )  # fmt: skip
    return LatentDecoder(unet, vae, LatentDecoderConfig(image_size=16, sampling_steps=3)).eval()


def test_a_picture_depends_on_its_own_seed_only(flow, latent) -> None:
    for decoder, features in ((flow, torch.randn(3, 5, 4, 4)), (latent, torch.randn(3, 12, 2, 2))):
        null = {"null_features": torch.zeros(1, 12, 2, 2)} if decoder is latent else {}
        together = decoder.decode(features, generators=generators(1, 2, 3), **null)
        alone = decoder.decode(features[2:], generators=generators(3), **null)
        assert together.shape == (3, 3, 16, 16) and together.min() >= 0 and together.max() <= 1
        torch.testing.assert_close(together[2:], alone, atol=1e-4, rtol=0)
        other = decoder.decode(features[2:], generators=generators(4), **null)
        assert (other - alone).abs().max() > 0.01


def test_a_perfect_network_paints_the_picture(flow, monkeypatch) -> None:
    picture = torch.rand(2, 3, 16, 16) * 2 - 1
    monkeypatch.setattr(FlowPixelDecoder, "forward", lambda self, x, sigma, features: picture)
    for steps in (1, 5):
        drawn = flow.sample(torch.zeros(2, 5, 4, 4), generators(1, 2), steps)
        torch.testing.assert_close(drawn, picture, atol=1e-5, rtol=0)
    # Nothing is added to the loss but the error of the clean picture.
    assert flow.loss(picture, torch.zeros(2, 5, 4, 4)).item() == 0


def test_the_loss_repeats_injected_draws(flow) -> None:
    picture, features = torch.rand(2, 3, 16, 16) * 2 - 1, torch.randn(2, 5, 4, 4)
    draws = {"u": torch.tensor([0.2, 0.7]), "noise": torch.randn_like(picture)}
    assert flow.loss(picture, features, **draws) == flow.loss(picture, features, **draws)
    assert flow.loss(picture, features) != flow.loss(picture, features)


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_saved_is_loaded(flow, latent, vae, tmp_path: Path, dtype) -> None:
    cases = {
        "flow": (flow, torch.randn(1, 5, 4, 4), {}),
        "latent": (latent, torch.randn(1, 12, 2, 2), {"null_features": torch.zeros(1, 12, 2, 2)}),
        "vae": (Autoencoder(vae), torch.randn(1, 4, 8, 8), {}),
    }
    for name, (decoder, features, null) in cases.items():
        decoder.save_pretrained(tmp_path / name, dtype)
        loaded = load_decoder(tmp_path / name)
        assert type(loaded) is type(decoder)
        before, after = (d.decode(features, generators=generators(1), **null) for d in (decoder, loaded))
        assert (before - after).abs().max() <= (0 if dtype is None else 0.02)


def test_the_released_folder_has_no_config_of_ours(latent, tmp_path: Path) -> None:
    latent.save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    for part in ("unet", "vae"):
        file = tmp_path / part / "diffusion_pytorch_model.safetensors"
        file.rename(file.with_name("diffusion_pytorch_model.bf16.safetensors"))
    loaded = load_decoder(tmp_path)
    assert isinstance(loaded, LatentDecoder)
    # The UNet's own size: 8 latents of 2 px here, 128 of 8 px in the released models.
    assert loaded.config == LatentDecoderConfig(image_size=16, sampling_steps=50, guidance_scale=3.0)


def test_conditioning_of_the_latent_decoder(latent, monkeypatch) -> None:
    seen = []
    forward = UNet2DConditionModel.forward

    def spy(self, sample, timestep, **kwargs):
        seen.append(kwargs)
        return forward(self, sample, timestep, **kwargs)

    monkeypatch.setattr(UNet2DConditionModel, "forward", spy)
    features, null = torch.randn(2, 12, 2, 2), torch.randn(1, 12, 2, 2)
    latent.decode(features, generators=generators(1, 2), null_features=null)
    tokens, added = seen[0]["encoder_hidden_states"], seen[0]["added_cond_kwargs"]
    assert tokens.shape == (4, 4, 12)
    assert torch.equal(tokens[0, 1], features[0, :, 0, 1])  # row-major, conditioned half first
    assert torch.equal(tokens[2], tokens[3])
    assert torch.equal(added["text_embeds"], tokens.mean(dim=1))
    assert added["time_ids"].tolist() == [[16, 16, 0, 0, 16, 16]] * 4
    assert len(seen) == 3
    with pytest.raises(ConfigError, match="needs null_features"):
        latent.decode(features, generators=generators(1, 2))
    seen.clear()
    latent.decode(features, generators=generators(1, 2), guidance_scale=1.0)
    assert seen[0]["encoder_hidden_states"].shape == (2, 4, 12)


def test_decoding_is_the_plain_loop_of_the_published_pipeline(latent) -> None:
    """Written out once more from what Emu2-Gen's pipeline does: conditioned half first, epsilon guidance, Euler."""
    features, null = torch.randn(1, 12, 2, 2), torch.randn(1, 12, 2, 2)
    scheduler = EulerDiscreteScheduler.from_config(SCHEDULER_CONFIG)
    scheduler.set_timesteps(7)
    tokens = torch.stack([features[0].flatten(1).T, null[0].flatten(1).T])  # (2, 4, 12)
    added = {"text_embeds": tokens.mean(1), "time_ids": torch.tensor([[16.0, 16, 0, 0, 16, 16]] * 2)}
    x = torch.randn(1, 4, 8, 8, generator=generators(9)[0]) * scheduler.init_noise_sigma
    with torch.no_grad():
        for t in scheduler.timesteps:
            both = scheduler.scale_model_input(torch.cat([x, x]), t)
            noise = latent.unet(both, t, encoder_hidden_states=tokens, added_cond_kwargs=added).sample
            x = scheduler.step(noise[1:] + 3.0 * (noise[:1] - noise[1:]), t, x).prev_sample
        expected = (latent.vae.decode(x / 0.13025).sample / 2 + 0.5).clamp(0, 1)
    drawn = latent.decode(
        features, generators=generators(9), num_inference_steps=7, guidance_scale=3.0, null_features=null
    )
    torch.testing.assert_close(drawn, expected, atol=1e-6, rtol=1e-6)


def test_the_scheduler_is_that_of_the_released_decoder() -> None:
    scheduler = EulerDiscreteScheduler.from_config(SCHEDULER_CONFIG)
    scheduler.set_timesteps(50)
    assert float(scheduler.init_noise_sigma) == pytest.approx(13.158, abs=1e-3)


def test_a_deep_compression_autoencoder_is_read_like_the_other(tmp_path: Path) -> None:
    torch.manual_seed(3)
    vae = AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=4, encoder_block_types="ResBlock",
        decoder_block_types="ResBlock", encoder_block_out_channels=(8, 16), decoder_block_out_channels=(8, 16),
        encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1), encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()), scaling_factor=0.5,
    ).eval()  # fmt: skip
    autoencoder = Autoencoder(vae, AutoencoderConfig(image_size=16))
    pictures = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        latents = autoencoder(pictures)
        torch.testing.assert_close(latents, 0.5 * vae.encode(pictures).latent)
    autoencoder.save_pretrained(tmp_path)
    loaded = load_decoder(tmp_path)
    assert loaded.config.image_size == 16
    assert torch.equal(loaded.decode(latents), autoencoder.decode(latents))
    config_file = tmp_path / "vae" / "config.json"
    write_json(config_file, {**read_json(config_file), "_class_name": "VQModel"})
    with pytest.raises(ConfigError, match="'VQModel' is not supported; use AutoencoderKL or AutoencoderDC"):
        load_decoder(tmp_path)


def test_any_scheduler_of_diffusers_can_be_named(latent, tmp_path: Path) -> None:
    features, null = torch.randn(1, 12, 2, 2), torch.zeros(1, 12, 2, 2)
    pictures = []
    for kind in ("Euler", "DDIM", "DPMSolverMultistep", "EulerAncestral"):
        name = f"{kind}DiscreteScheduler" if kind.startswith("Euler") else f"{kind}Scheduler"
        config = {**SCHEDULER_CONFIG, "_class_name": name}
        decoder = LatentDecoder(latent.unet, latent.vae, latent.config, config)
        decoder.save_pretrained(tmp_path / name)
        loaded = load_decoder(tmp_path / name)
        assert type(loaded.scheduler).__name__ == name
        first, again = (d.decode(features, generators=generators(1), null_features=null) for d in (decoder, loaded))
        assert torch.equal(first, again) and first.isfinite().all()
        pictures.append(first)
    assert all(not torch.equal(pictures[0], other) for other in pictures[1:])
    for name in ("AutoencoderKL", "FlowMatchEulerDiscreteScheduler", "NoScheduler"):
        with pytest.raises(ConfigError, match=f"scheduler '{name}' is none of diffusers' schedulers"):
            LatentDecoder(latent.unet, latent.vae, latent.config, {"_class_name": name})


def test_the_scheduler_is_built_once_and_forgets_earlier_pictures(latent, monkeypatch) -> None:
    monkeypatch.setattr("blip3o.latent_decoder.build_scheduler", lambda config: pytest.fail("built again"))
    features, null = torch.randn(1, 12, 2, 2), torch.zeros(1, 12, 2, 2)
    first = latent.decode(features, generators=generators(1), null_features=null)
    latent.decode(features, generators=generators(2), null_features=null, num_inference_steps=2)
    assert torch.equal(first, latent.decode(features, generators=generators(1), null_features=null))


def test_faults_of_a_folder_are_named(flow, tmp_path: Path) -> None:
    flow.save_pretrained(tmp_path)
    config = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", {**config, "kind": "magic"})
    with pytest.raises(ConfigError, match="decoder kind 'magic' is unknown"):
        load_decoder(tmp_path)
    write_json(tmp_path / "config.json", {**config, "colour": 1})
    with pytest.raises(ConfigError, match="colour"):
        load_decoder(tmp_path)
    write_json(tmp_path / "config.json", {**config, "feature_channels": 6})
    with pytest.raises(WeightsError, match="conv_in.weight has shape"):
        load_decoder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="model.safetensors is missing"):
        load_decoder(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 62}, "image_size 62 must be divisible"),
        ({"feature_size": 7}, "feature_size 7 must divide the inner side 32"),
        ({"block_out_channels": (60, 64)}, "60 is not divisible by norm_groups 32"),
        ({"sigma_rule": "cosine"}, "'cosine' is unknown"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FlowPixelDecoderConfig(**changes)


def test_wrong_inputs_are_refused(flow) -> None:
    with pytest.raises(ShapeError, match=r"features must be \(batch, 5, 4, 4\)"):
        flow.sample(torch.zeros(1, 6, 4, 4), generators(1))
    with pytest.raises(ShapeError, match="as many generators"):
        flow.sample(torch.zeros(2, 5, 4, 4), generators(1))
    with pytest.raises(ConfigError, match="takes no guidance, got guidance_scale 3"):
        flow.decode(torch.zeros(1, 5, 4, 4), generators=generators(1), guidance_scale=3.0)
