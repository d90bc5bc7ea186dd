"""The stage ``autoencoder``: a small VAE of the sticker world, whose latents are the target of VAE + flow matching.

64 px pictures become 8 x 8 latents of 16 channels, as many tokens as the CLIP features of ``nano`` have, so that
both targets cost the generator the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models import AutoencoderKL
from torch import Tensor, nn

from blip3o.errors import ShapeError
from blip3o.train.loop import LoopConfig
from blip3o.train.world_data import PictureBatch
from blip3o.vision.autoencoder import Autoencoder

# 0.47 M parameters, 0.95 MB in half precision. No attention: at 8 x 8 convolutions see the whole picture.
VAE_CONFIG: dict[str, Any] = {
    "sample_size": 64,
    "latent_channels": 16,
    "block_out_channels": (16, 24, 32, 48),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "mid_block_add_attention": False,
}
LOOP = LoopConfig(steps=8000, lr=1e-3, warmup_steps=100, ema_decay=0.998, seed=7)
KL_WEIGHT = 1e-4
EDGE_WEIGHT = 0.5
COARSE_WEIGHT = 1.0
COARSE_PX = (4, 8)


def build_vae(seed: int = LOOP.seed) -> AutoencoderKL:
    """The sticker VAE with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKL(**VAE_CONFIG)
    # Convolutions in float32 on a CPU are several times slower in the default memory layout.
    return vae.to(memory_format=torch.channels_last)


class AutoencoderStage:
    """Pictures through a few numbers and back.

    Loss: mean absolute error of pixels; ``edge_weight`` times that of their differences to the right and below, so
    that outlines stay sharp without a perceptual network; ``coarse_weight`` times ``coarse_error``, without which the
    commonest hue stands for all others for thousands of steps; ``kl_weight`` times the mean KL divergence per latent
    number from N(0, 1), which keeps latents in the range that flow matching starts from.
    """

    name = "autoencoder"

    def __init__(
        self,
        vae: AutoencoderKL,
        batches: Callable[[int], PictureBatch],
        kl_weight: float = KL_WEIGHT,
        edge_weight: float = EDGE_WEIGHT,
        coarse_weight: float = COARSE_WEIGHT,
    ) -> None:
        self.modules: Mapping[str, nn.Module] = {"vae": vae}
        self.vae, self.batch = vae, batches
        self.kl_weight, self.edge_weight, self.coarse_weight = kl_weight, edge_weight, coarse_weight

    def loss(
        self, batch: PictureBatch, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        pixels = batch.pixels.contiguous(memory_format=torch.channels_last)
        posterior = self.vae.encode(pixels).latent_dist
        mean, deviation = posterior.mean.float(), posterior.std.float()
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        drawn = self.vae.decode((mean + deviation * noise).to(pixels.dtype)).sample.float()
        error = F.l1_loss(drawn, pixels)
        edges = sum(F.l1_loss(drawn.diff(dim=d), pixels.diff(dim=d)) for d in (-1, -2))
        coarse = coarse_error(drawn - pixels)
        kl = 0.5 * (mean.square() + deviation.square() - 1 - 2 * deviation.log()).mean()
        numbers = {
            "l1": error.item(),
            "psnr": psnr(drawn.detach(), pixels),
            "coarse": coarse.item(),
            "kl": kl.item(),
            "latent_std": mean.detach().std().item(),
        }
        loss = error + self.edge_weight * edges + self.coarse_weight * coarse + self.kl_weight * kl
        return loss, numbers


def coarse_error(difference: Tensor) -> Tensor:
    """Mean squared difference of block averages, of every block size in COARSE_PX, plus four times that of their hue
    (what is left of a block when its grey is taken off). difference: (B, 3, S, S) -> scalar."""
    blocks = [F.avg_pool2d(difference, size) for size in COARSE_PX]
    hue = blocks[0] - blocks[0].mean(1, keepdim=True)
    total: Tensor = sum((block.square().mean() for block in blocks), 4 * hue.square().mean())
    return total


def psnr(drawn: Tensor, pictures: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures (B, 3, S, S) in [-1, 1]. Raises: ShapeError."""
    if drawn.shape != pictures.shape:
        raise ShapeError(
            f"pictures must have one shape, got {tuple(drawn.shape)} and {tuple(pictures.shape)}"
        )
    error = F.mse_loss(drawn.float().clamp(-1, 1), pictures.float())
    return float(10 * torch.log10(4 / error.clamp(min=1e-10)))


@torch.no_grad()
def standardise(vae: AutoencoderKL, pixels: Tensor) -> Autoencoder:
    """A trained VAE as target encoder and decoder: its latents shifted and scaled to mean 0 and variance 1.

    Args: pixels: training pictures (n, 3, S, S) in [-1, 1] to measure on. The two numbers are kept in the VAE's own
        configuration (``shift_factor``, ``scaling_factor``), where diffusers looks for them.
    """
    latents = torch.cat([vae.encode(part).latent_dist.mode() for part in pixels.split(64)]).float()
    vae.register_to_config(
        shift_factor=latents.mean().item(), scaling_factor=1 / max(latents.std().item(), 1e-6)
    )
    return Autoencoder(vae).eval()
