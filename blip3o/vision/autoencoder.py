"""VAE latents as the alternative target, and the way back to pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from blip3o.errors import ShapeError
from blip3o.storage import CONFIG_NAME, quiet_diffusers, write_json


class Autoencoder(nn.Module):
    """A diffusers AutoencoderKL as target encoder and as pixel decoder.

    Latents are shifted and scaled by the VAE's own configuration, so that they have about unit variance.
    """

    kind = "vae"

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae
        self.width: int = vae.config.latent_channels

    @property
    def _shift(self) -> float:
        return self.vae.config.shift_factor or 0.0

    def forward(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) in [-1, 1] -> mean latents (B, C, h, w)."""
        latents = self.vae.encode(images.to(self.vae.dtype)).latent_dist.mode()
        return (latents - self._shift) * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(
        self,
        features: Tensor,
        *,
        generators: Sequence[torch.Generator] = (),
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        null_features: Tensor | None = None,
    ) -> Tensor:
        """Latents (B, C, h, w) -> pictures (B, 3, S, S) in [0, 1]. Deterministic: the other settings of the
        protocol have nothing to act on."""
        if features.ndim != 4 or features.shape[1] != self.width:
            raise ShapeError(
                f"latents must be (batch, {self.width}, h, w), got {tuple(features.shape)}"
            )
        latents = features.to(self.vae.dtype) / self.vae.config.scaling_factor + self._shift
        return self.vae.decode(latents).sample.float().add(1).div(2).clamp(0, 1)

    def save_pretrained(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG_NAME, {"kind": self.kind})
        with quiet_diffusers():
            vae = (
                self.vae if dtype is None else AutoencoderKL.from_config(self.vae.config).to(dtype)
            )
            if dtype is not None:
                vae.load_state_dict({k: v.to(dtype) for k, v in self.vae.state_dict().items()})
            vae.save_pretrained(folder / "vae", safe_serialization=True)

    @classmethod
    def from_folder(
        cls, folder: Path, config: dict[str, Any], dtype: torch.dtype | None = None
    ) -> Autoencoder:
        from blip3o.storage import load_diffusers_part

        return cls(load_diffusers_part(AutoencoderKL, Path(folder) / "vae", dtype)).eval()
