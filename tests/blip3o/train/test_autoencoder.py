"""The stage that makes the sticker VAE."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from blip3o.decoder import load_decoder
from blip3o.errors import ShapeError
from blip3o.stickers import SceneConfig
from blip3o.train.autoencoder import (
    VAE_CONFIG,
    AutoencoderStage,
    build_vae,
    coarse_error,
    psnr,
    standardise,
)
from blip3o.train.loop import LoopConfig, fit
from blip3o.train.world_data import Scenes


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes("train", SceneConfig.level("easy"), 4)


def test_it_fits_in_a_megabyte_and_has_the_tokens_of_the_other_target() -> None:
    vae = build_vae()
    assert sum(p.numel() for p in vae.parameters()) * 2 < 1_000_000
    latents = vae.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mode()
    assert latents.shape == (1, 16, 8, 8)
    again = build_vae()
    assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), again.parameters(), strict=True))


def test_a_few_steps_lower_the_error_and_the_result_is_a_target_and_a_decoder(scenes, tmp_path: Path) -> None:
    vae = build_vae()
    stage = AutoencoderStage(vae, lambda step: scenes(0))
    first = stage.loss(scenes(0), torch.Generator().manual_seed(0))[1]
    config = LoopConfig(steps=12, lr=3e-3, warmup_steps=1, bf16=False, ema_decay=0.5, log_every=4)
    fit(stage, config, tmp_path / "stage")
    last = stage.loss(scenes(0), torch.Generator().manual_seed(0))[1]
    assert last["l1"] < 0.8 * first["l1"] and last["psnr"] > first["psnr"]
    autoencoder = standardise(vae, scenes(0).pixels)
    with torch.no_grad():
        latents = autoencoder(scenes(0).pixels)
    assert abs(latents.mean()) < 1e-3 and abs(latents.std() - 1) < 1e-3
    autoencoder.save_pretrained(tmp_path / "decoder", torch.float16)
    loaded = load_decoder(tmp_path / "decoder")
    assert loaded.config.image_size == VAE_CONFIG["sample_size"]
    # Hardly trained, its latents are small and the first norms enlarge what half precision rounds off.
    assert (loaded.decode(latents) - autoencoder.decode(latents)).abs().mean() < 0.02


def test_the_kl_term_is_that_of_the_library(scenes) -> None:
    vae = build_vae()
    numbers = AutoencoderStage(vae, scenes).loss(scenes(0), torch.Generator())[1]
    posterior = vae.encode(scenes(0).pixels).latent_dist
    per_number = posterior.kl().mean() / posterior.mean[0].numel()
    assert numbers["kl"] == pytest.approx(per_number.item(), rel=1e-4)


def test_the_coarse_error_sees_hues_and_not_what_averages_out() -> None:
    grey = torch.full((1, 3, 16, 16), 0.5)
    assert coarse_error(grey).item() == pytest.approx(2 * 0.25)  # blocks of two sizes, no hue
    red = torch.zeros(1, 3, 16, 16)
    red[:, 0] = 0.3
    # per channel 0.09 / 3 in blocks of both sizes; the hue is (0.2, -0.1, -0.1)
    assert coarse_error(red).item() == pytest.approx(2 * 0.03 + 4 * 0.02)
    checks = torch.ones(1, 3, 16, 16)
    checks[..., ::2] = -1
    assert coarse_error(checks).item() == 0


def test_psnr_is_the_formula() -> None:
    picture = torch.zeros(1, 3, 2, 2)
    assert psnr(picture + 0.2, picture) == pytest.approx(20.0, abs=1e-4)  # 10 log10(2^2 / 0.2^2)
    with pytest.raises(ShapeError, match="one shape"):
        psnr(picture, picture[..., :1])
