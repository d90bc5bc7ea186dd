"""The pixel decoder of the released models: an SDXL-type UNet that reads image features instead of text.

Dimension letters: B batch, N feature tokens, C feature channels, S picture side, s latent side.
"""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import SchedulerMixin
from diffusers.models import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from blip3o.config import build_part
from blip3o.decoder import DecodeSettings, PixelDecoder
from blip3o.errors import ConfigError
from blip3o.flow.sampler import guide, sample_noise
from blip3o.storage import (
    CONFIG_NAME,
    load_diffusers_part,
    quiet_diffusers,
    read_json,
    save_diffusers_part,
    write_json,
)
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


def build_scheduler(config: dict[str, Any]) -> Any:
    """diffusers' scheduler that a configuration names by ``_class_name`` (default EulerDiscreteScheduler).

    Raises: ConfigError if it is no scheduler of noise levels that diffusers has.
    """
    name = config.get("_class_name", "EulerDiscreteScheduler")
    kind: Any = getattr(diffusers, name, None) if isinstance(name, str) else None
    is_scheduler = isinstance(kind, type) and issubclass(kind, SchedulerMixin)
    if not is_scheduler or not hasattr(kind, "scale_model_input"):
        raise ConfigError(
            f"scheduler {name!r} is none of diffusers' schedulers for this UNet; for instance EulerDiscreteScheduler, "
            "DDIMScheduler or DPMSolverMultistepScheduler"
        )
    return kind.from_config(config)


@dataclass(frozen=True, kw_only=True)
class LatentDecoderConfig:
    """Sampling defaults of the decoder; those of the released models.

    ``image_size`` None: what the UNet was made for (1024 px in the released models).
    """

    image_size: int | None = None
    sampling_steps: int = 50
    guidance_scale: float = 3.0


class LatentDecoder(PixelDecoder):
    """Latent diffusion conditioned on feature tokens, then a VAE.

    Cross-attention reads the tokens, their mean takes the place of SDXL's pooled text, and the size
    conditioning is that of an uncropped square picture.
    """

    kind = "latent_unet"
    takes_guidance = True
    needs_null_features = True

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        config: LatentDecoderConfig = LatentDecoderConfig(),
        scheduler_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.unet, self.vae = unet, vae
        self.scheduler = build_scheduler(dict(scheduler_config or SCHEDULER_CONFIG))
        self.vae_factor = 2 ** (len(vae.config["block_out_channels"]) - 1)
        size = config.image_size or unet.config["sample_size"] * self.vae_factor
        self.config = replace(config, image_size=size)
        if size % self.vae_factor:
            raise ConfigError(
                f"decoder image_size {size} is not divisible by the VAE's factor {self.vae_factor}"
            )

    @property
    def feature_channels(self) -> int:
        width = self.unet.config["cross_attention_dim"]
        return width if isinstance(width, int) else width[0]

    def condition(
        self, features: Tensor, null_features: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens (B or 2B, N, C), the conditioned half first, and SDXL's added conditions of the UNet."""
        tokens = grid_to_tokens(features)
        if null_features is not None:
            null = grid_to_tokens(null_features).to(tokens).expand(len(features), -1, -1)
            tokens = torch.cat([tokens, null])
        tokens = tokens.to(self.unet.device, self.unet.dtype)
        size = self.config.image_size
        # height and width, the corner of the crop, height and width again: an uncropped picture
        time_ids = tokens.new_tensor([[size, size, 0, 0, size, size]]).expand(len(tokens), -1)
        return tokens, {"text_embeds": tokens.mean(dim=1), "time_ids": time_ids}

    def _decode(self, features: Tensor, settings: DecodeSettings) -> Tensor:
        scale = settings.guidance_scale
        scale = self.config.guidance_scale if scale is None else scale
        is_guided = scale != 1.0
        if is_guided and settings.null_features is None:
            raise ConfigError(
                "decoder guidance needs null_features, the features of the empty prompt"
            )
        tokens, added = self.condition(features, settings.null_features if is_guided else None)
        # One scheduler for all calls: setting its steps also resets the state it keeps.
        scheduler = self.scheduler
        scheduler.set_timesteps(settings.num_inference_steps or self.config.sampling_steps)
        draws = "generator" in inspect.signature(scheduler.step).parameters
        extra = {"generator": list(settings.generators)} if draws else {}
        side = self.config.image_size // self.vae_factor
        noise = sample_noise((self.unet.config["in_channels"], side, side), settings.generators)
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
            latents = scheduler.step(predicted, timestep, latents, **extra).prev_sample
        return self.pictures(latents)

    def pictures(self, latents: Tensor) -> Tensor:
        """Latents (B, 4, s, s) -> pictures (B, 3, S, S) in [0, 1], float32."""
        latents = latents.to(self.vae.dtype) / self.vae.config["scaling_factor"]
        # One picture at a time: the decoder of the VAE needs several GB per 1024 px picture.
        pictures = [self.vae.decode(latent[None]).sample.float() for latent in latents]
        return torch.cat(pictures).add(1).div(2).clamp(0, 1)

    def save_pretrained(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG_NAME, {"kind": self.kind, **asdict(self.config)})
        with quiet_diffusers():
            for name, part in (("unet", self.unet), ("vae", self.vae)):
                save_diffusers_part(part, folder / name, dtype)
            self.scheduler.save_pretrained(folder / "scheduler")

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
        scheduler = {
            k: v for k, v in read_json(scheduler_file).items() if k == "_class_name" or k[:1] != "_"
        }
        return cls(
            load_diffusers_part(UNet2DConditionModel, folder / "unet", dtype),
            load_diffusers_part(AutoencoderKL, folder / "vae", dtype),
            build_part(LatentDecoderConfig, values, "decoder"),
            scheduler,
        ).eval()
