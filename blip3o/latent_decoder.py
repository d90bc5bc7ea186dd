"""The pixel decoder of the released models: an SDXL-type UNet that reads image features instead of text.

Dimension letters: B batch, N feature tokens, C feature channels, S picture side, s latent side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from torch import Tensor, nn

from blip3o.config import build_part
from blip3o.errors import ConfigError, ShapeError
from blip3o.flow.sampler import guide, sample_noise
from blip3o.storage import CONFIG_NAME, load_diffusers_part, quiet_diffusers, read_json, write_json
from blip3o.vision.encoders import grid_to_tokens

# The scheduler of Emu2-Gen's decoder, which the released models use unchanged.
SCHEDULER_CONFIG: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "use_karras_sigmas": False,
}


def build_scheduler(num_inference_steps: int, config: dict[str, Any]) -> EulerDiscreteScheduler:
    """A scheduler with its steps set; it keeps state, so each sampling run builds its own."""
    scheduler = EulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(num_inference_steps)
    return scheduler


@dataclass(frozen=True, kw_only=True)
class LatentDecoderConfig:
    """Sampling defaults of the decoder; those of the released models."""

    image_size: int = 1024
    sampling_steps: int = 50
    guidance_scale: float = 3.0


class LatentDecoder(nn.Module):
    """Latent diffusion conditioned on feature tokens, then a VAE.

    Cross-attention reads the tokens, their mean takes the place of SDXL's pooled text, and the size
    conditioning is that of an uncropped square picture.
    """

    kind = "latent_unet"

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        config: LatentDecoderConfig = LatentDecoderConfig(),
        scheduler_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.unet, self.vae, self.config = unet, vae, config
        self.scheduler_config = dict(scheduler_config or SCHEDULER_CONFIG)
        self.vae_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        if config.image_size % self.vae_factor:
            raise ConfigError(
                f"decoder image_size {config.image_size} is not divisible by the VAE's factor {self.vae_factor}"
            )

    @torch.no_grad()
    def decode(
        self,
        features: Tensor,
        *,
        generators: Sequence[torch.Generator],
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        null_features: Tensor | None = None,
    ) -> Tensor:
        """Features (B, C, h, w) -> pictures (B, 3, S, S) in [0, 1].

        Args: null_features (1 or B, C, h, w): features of the empty prompt, needed for guidance; they are an
            explicit argument, so that a picture does not depend on which was made first.
        Raises: ConfigError, ShapeError.
        """
        batch = len(features)
        if len(generators) != batch:
            raise ShapeError(
                f"{batch} feature grids need as many generators, got {len(generators)}"
            )
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        steps = num_inference_steps or self.config.sampling_steps
        tokens = grid_to_tokens(features)  # (B, N, C)
        is_guided = scale != 1.0
        if is_guided:
            if null_features is None:
                raise ConfigError(
                    "decoder guidance needs null_features, the features of the empty prompt"
                )
            null = grid_to_tokens(null_features).expand(batch, -1, -1)
            tokens = torch.cat([tokens, null])  # conditioned half first
        tokens = tokens.to(self.unet.device, self.unet.dtype)
        size = self.config.image_size
        time_ids = tokens.new_tensor([[size, size, 0, 0, size, size]]).expand(len(tokens), -1)
        added = {"text_embeds": tokens.mean(dim=1), "time_ids": time_ids}
        scheduler = build_scheduler(steps, self.scheduler_config)
        side = size // self.vae_factor
        noise = sample_noise((self.unet.config.in_channels, side, side), generators)
        latents = noise.to(tokens) * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            doubled = torch.cat([latents, latents]) if is_guided else latents
            doubled = scheduler.scale_model_input(doubled, timestep)
            predicted = self.unet(
                doubled, timestep, encoder_hidden_states=tokens, added_cond_kwargs=added
            ).sample
            if is_guided:
                conditioned, null_half = predicted.chunk(2)
                predicted = guide(null_half, conditioned, scale)
            latents = scheduler.step(predicted, timestep, latents).prev_sample
        latents = latents.to(self.vae.dtype) / self.vae.config.scaling_factor
        # One picture at a time: the decoder of the VAE needs several GB per 1024 px picture.
        pictures = [self.vae.decode(latent[None]).sample.float() for latent in latents]
        return torch.cat(pictures).add(1).div(2).clamp(0, 1)

    def save_pretrained(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG_NAME, {"kind": self.kind, **asdict(self.config)})
        with quiet_diffusers():
            self.unet.save_pretrained(folder / "unet", safe_serialization=True)
            self.vae.save_pretrained(folder / "vae", safe_serialization=True)
            EulerDiscreteScheduler.from_config(self.scheduler_config).save_pretrained(
                folder / "scheduler"
            )

    @classmethod
    def from_folder(
        cls, folder: Path, config: dict[str, Any] | None = None, dtype: torch.dtype | None = None
    ) -> LatentDecoder:
        """Our own folder, or the ``diffusion-decoder`` folder of a released model (which has no config.json).

        Raises: ConfigError, WeightsError.
        """
        folder = Path(folder)
        values = {key: value for key, value in (config or {}).items() if key != "kind"}
        # An SDXL-type VAE overflows in float16; its weights were published in bfloat16.
        dtype = torch.bfloat16 if dtype is torch.float16 else dtype
        scheduler_file = folder / "scheduler" / "scheduler_config.json"
        scheduler = {k: v for k, v in read_json(scheduler_file).items() if not k.startswith("_")}
        return cls(
            load_diffusers_part(UNet2DConditionModel, folder / "unet", dtype),
            load_diffusers_part(AutoencoderKL, folder / "vae", dtype),
            build_part(LatentDecoderConfig, values, "decoder"),
            scheduler,
        ).eval()
