"""VAE latents as the alternative target, and the way back to pixels."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models import AutoencoderDC, AutoencoderKL
from torch import Tensor

from blip3o.config import build_part
from blip3o.decoder import DecodeSettings, PixelDecoder
from blip3o.errors import ConfigError, ShapeError
from blip3o.storage import (
    CONFIG_NAME,
    load_diffusers_part,
    quiet_diffusers,
    read_json,
    save_diffusers_part,
    write_json,
)


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """``image_size``: side in pixels of the pictures that are made; None: what the VAE was made for."""

    image_size: int | None = None


class Autoencoder(PixelDecoder):
    """A diffusers AutoencoderKL, or the AutoencoderDC of SANA, as target encoder and as pixel decoder.

    Latents are shifted and scaled by the VAE's own configuration, so that they have about unit variance.
    """

    kind = "vae"
    draws_noise = False

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderDC,
        config: AutoencoderConfig = AutoencoderConfig(),
    ) -> None:
        super().__init__()
        self.vae = vae
        self.width: int = vae.config["latent_channels"]
        size = config.image_size or vae.config.get("sample_size")
        self.config = replace(config, image_size=size)

    @property
    def feature_channels(self) -> int:
        return self.width

    @property
    def _shift(self) -> float:
        return self.vae.config.get("shift_factor") or 0.0

    def forward(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) in [-1, 1] -> mean latents (B, C, h, w)."""
        encoded = self.vae.encode(images.to(self.vae.dtype))
        latents = encoded.latent_dist.mode() if "latent_dist" in encoded else encoded.latent
        return (latents - self._shift) * self.vae.config["scaling_factor"]

    def _decode(self, features: Tensor, settings: DecodeSettings) -> Tensor:
        """Deterministic: noise and steps have nothing to act on."""
        if features.shape[1] != self.width:
            raise ShapeError(
                f"latents must be (batch, {self.width}, h, w), got {tuple(features.shape)}"
            )
        latents = features.to(self.vae.dtype) / self.vae.config["scaling_factor"] + self._shift
        return self.vae.decode(latents).sample.float().add(1).div(2).clamp(0, 1)

    def save_pretrained(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG_NAME, {"kind": self.kind, **asdict(self.config)})
        with quiet_diffusers():
            save_diffusers_part(self.vae, folder / "vae", dtype)

    @classmethod
    def from_folder(
        cls, folder: Path, config: dict[str, Any], dtype: torch.dtype | None = None
    ) -> Autoencoder:
        """Raises: WeightsError, ConfigError."""
        folder = Path(folder)
        size = {k: v for k, v in config.items() if k == "image_size"}
        name = read_json(folder / "vae" / CONFIG_NAME).get("_class_name", "AutoencoderKL")
        kinds = {kind.__name__: kind for kind in (AutoencoderKL, AutoencoderDC)}
        if name not in kinds:
            raise ConfigError(f"{folder / 'vae'}: {name!r} is not supported; use {' or '.join(kinds)}")
        vae = load_diffusers_part(kinds[name], folder / "vae", dtype)
        return cls(vae, build_part(AutoencoderConfig, size, "decoder")).eval()
