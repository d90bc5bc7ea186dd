"""Image features -> pixels: diffusion decoders behind one protocol.

Dimension letters: B batch, C feature channels, h and w feature grid, S picture side.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models import UNet2DModel
from torch import Tensor, nn

from blip3o.errors import ConfigError, ShapeError
from blip3o.flow.loss import mean_squared_error
from blip3o.flow.path import clean_to_velocity, interpolate, sigma_to_timestep
from blip3o.flow.sampler import integrate, sample_noise, sampling_sigmas
from blip3o.flow.timesteps import SigmaDistribution, SigmaRule, sigma_from_uniform
from blip3o.storage import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    load_strict,
    read_json,
    read_tensors,
    save_module,
)


class PixelDecoder(nn.Module, abc.ABC):
    """What the pipeline asks of a decoder; a kind implements ``_decode``, ``save_pretrained``, ``from_folder``.

    ``kind`` names it in config.json; ``draws_noise`` and ``takes_guidance`` say which settings it uses, and what it
    does not use is refused; ``needs_null_features``: guidance needs the features of the empty prompt.
    """

    kind: ClassVar[str]
    draws_noise: ClassVar[bool] = True
    takes_guidance: ClassVar[bool] = False
    needs_null_features: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def feature_channels(self) -> int:
        """Channels of the features that it reads."""

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
        """features (B, C, h, w) and one CPU generator per picture -> pictures (B, 3, S, S) in [0, 1], float32.

        Args: num_inference_steps, guidance_scale: default the decoder's own. null_features (1 or B, C, h, w):
            features of the empty prompt; an explicit argument, so that a picture does not depend on which was made
            first. Raises: ConfigError, ShapeError.
        """
        if features.ndim != 4:
            raise ShapeError(
                f"features must be (batch, channels, height, width), got {tuple(features.shape)}"
            )
        if self.draws_noise and len(generators) != len(features):
            raise ShapeError(
                f"{len(features)} feature grids need as many generators, got {len(generators)}"
            )
        if num_inference_steps is not None and num_inference_steps < 1:
            raise ConfigError(f"decoder steps must be at least 1, got {num_inference_steps}")
        if guidance_scale not in (None, 1.0) and not self.takes_guidance:
            raise ConfigError(
                f"the {self.kind} decoder takes no guidance, got guidance_scale {guidance_scale}; leave it out"
            )
        settings = DecodeSettings(generators, num_inference_steps, guidance_scale, null_features)
        return self._decode(features, settings)

    @abc.abstractmethod
    def _decode(self, features: Tensor, settings: DecodeSettings) -> Tensor:
        """As ``decode``, with settings that are checked."""

    @abc.abstractmethod
    def save_pretrained(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write a folder that ``load_decoder`` reads; ``dtype`` narrows floating weights."""

    @classmethod
    @abc.abstractmethod
    def from_folder(
        cls, folder: Path, config: dict[str, Any], dtype: torch.dtype | None = None
    ) -> PixelDecoder:
        """Load weights beside an already read config. Raises: ConfigError, WeightsError."""


class DecodeSettings(NamedTuple):
    """Settings of one call of ``PixelDecoder.decode``; None is the decoder's own default."""

    generators: Sequence[torch.Generator] = ()
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    null_features: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class FlowPixelDecoderConfig:
    """A small convolutional decoder; the defaults have about 5 million parameters at 64 px."""

    image_size: int = 64
    feature_channels: int = 48
    feature_size: int = 8
    unshuffle: int = 2
    block_out_channels: tuple[int, ...] = (64, 128, 160)
    layers_per_block: int = 1
    mid_attention: bool = False
    norm_groups: int = 32
    sampling_steps: int = 8
    sigma_rule: SigmaRule = "uniform"
    sigma_shift: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "block_out_channels", tuple(self.block_out_channels))
        side, levels = self.image_size // self.unshuffle, len(self.block_out_channels) - 1
        if self.image_size % self.unshuffle or side % 2**levels:
            raise ConfigError(
                f"decoder.image_size {self.image_size} must be divisible by unshuffle {self.unshuffle} "
                f"times 2^{levels} (one halving per block)"
            )
        if side % self.feature_size:
            raise ConfigError(
                f"decoder.feature_size {self.feature_size} must divide the inner side {side} "
                f"(image_size {self.image_size} / unshuffle {self.unshuffle})"
            )
        for channels in self.block_out_channels:
            if channels % self.norm_groups:
                raise ConfigError(
                    f"decoder.block_out_channels {channels} is not divisible by norm_groups {self.norm_groups}"
                )
        SigmaDistribution(rule=self.sigma_rule, shift=self.sigma_shift)  # refuses unknown rules


class FlowPixelDecoder(PixelDecoder):
    """Flow-matching UNet over pixels: noisy picture and feature grid -> clean picture.

    The picture is folded ``unshuffle`` x ``unshuffle`` into channels, the features are repeated onto
    the same grid and concatenated. The network predicts the clean picture, which at this size trains
    better than the velocity. No text and no guidance: the features decide what is drawn, the noise how.
    """

    kind = "flow_pixel"

    def __init__(self, config: FlowPixelDecoderConfig) -> None:
        super().__init__()
        self.config = config
        folded = 3 * config.unshuffle**2
        levels = len(config.block_out_channels)
        self.unet = UNet2DModel(
            sample_size=config.image_size // config.unshuffle,
            in_channels=folded + config.feature_channels,
            out_channels=folded,
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=("UpBlock2D",) * levels,
            block_out_channels=config.block_out_channels,
            layers_per_block=config.layers_per_block,
            norm_num_groups=config.norm_groups,
            add_attention=config.mid_attention,
        )
        # Convolutions in float32 on a CPU are more than ten times slower in the default memory layout.
        self.unet.to(memory_format=torch.channels_last)

    @property
    def feature_channels(self) -> int:
        return self.config.feature_channels

    def forward(self, noisy_image: Tensor, sigma: Tensor, features: Tensor) -> Tensor:
        """Clean picture from a noisy one.

        Args: noisy_image (B, 3, S, S), data in [-1, 1] plus noise; sigma (B,) in [0, 1]; features (B, C, h, w).
        Returns: (B, 3, S, S). Raises: ShapeError.
        """
        size, grid = self.config.image_size, self.config.feature_size
        if noisy_image.shape[1:] != (3, size, size):
            raise ShapeError(
                f"picture must be (batch, 3, {size}, {size}), got {tuple(noisy_image.shape)}"
            )
        if features.shape[1:] != (self.config.feature_channels, grid, grid):
            raise ShapeError(
                f"features must be (batch, {self.config.feature_channels}, {grid}, {grid}), "
                f"got {tuple(features.shape)}"
            )
        folded = F.pixel_unshuffle(noisy_image, self.config.unshuffle)  # (B, 3*u*u, S/u, S/u)
        spread = F.interpolate(features, size=folded.shape[-2:], mode="nearest")
        x = torch.cat([folded, spread.to(folded.dtype)], dim=1).to(self.unet.dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        clean = self.unet(x, sigma_to_timestep(sigma), return_dict=False)[0]
        return F.pixel_shuffle(clean, self.config.unshuffle)

    def loss(
        self,
        image: Tensor,
        features: Tensor,
        *,
        generator: torch.Generator | None = None,
        u: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Mean squared error of the predicted clean picture at random noise levels.

        Args: image (B, 3, S, S) in [-1, 1]; features (B, C, h, w). ``u`` (B,) uniform numbers that choose
            the noise level and ``noise`` like image may be injected; otherwise they come from ``generator``
            (CPU; None means the global one).
        """
        if u is None:
            u = torch.rand(len(image), generator=generator)
        if noise is None:
            noise = torch.randn(image.shape, generator=generator)
        distribution = SigmaDistribution(rule=self.config.sigma_rule, shift=self.config.sigma_shift)
        sigma = sigma_from_uniform(u, distribution).to(image.device)
        point = interpolate(image, noise.to(image), sigma)
        return mean_squared_error(self(point.x_sigma, sigma, features), image)

    @torch.no_grad()
    def sample(
        self, features: Tensor, generators: Sequence[torch.Generator], steps: int | None = None
    ) -> Tensor:
        """Pictures (B, 3, S, S) in [-1, 1] from features (B, C, h, w), one CPU generator per picture."""
        if len(generators) != len(features):
            raise ShapeError(
                f"{len(features)} feature grids need as many generators, got {len(generators)}"
            )
        size = self.config.image_size
        noise = sample_noise((3, size, size), generators).to(features.device)

        def velocity(x: Tensor, timestep: Tensor) -> Tensor:
            sigma = timestep / 1000
            return clean_to_velocity(x, self(x, sigma, features).float(), sigma)

        sigmas = sampling_sigmas(steps or self.config.sampling_steps)
        return integrate(velocity, noise, sigmas).clamp(-1, 1)

    def _decode(self, features: Tensor, settings: DecodeSettings) -> Tensor:
        drawn = self.sample(features, settings.generators, settings.num_inference_steps)
        return drawn.add(1).div(2)

    def save_pretrained(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        save_module(Path(folder), self, {"kind": self.kind, **asdict(self.config)}, dtype)

    @classmethod
    def from_folder(
        cls, folder: Path, config: dict[str, Any], dtype: torch.dtype | None = None
    ) -> FlowPixelDecoder:
        """Load weights beside an already read config. Raises: ConfigError, WeightsError."""
        values = {k: v for k, v in config.items() if k != "kind"}
        try:
            model = cls(FlowPixelDecoderConfig(**values))
        except TypeError as error:
            raise ConfigError(f"{folder}/config.json: {error}") from None
        load_strict(model, read_tensors(folder / WEIGHTS_NAME), folder / WEIGHTS_NAME)
        return model.to(dtype).eval()


# Kind -> where its class is; another decoder (of SANA type, say) joins by adding a line.
DECODERS = {
    "flow_pixel": "blip3o.decoder:FlowPixelDecoder",
    "latent_unet": "blip3o.latent_decoder:LatentDecoder",
    "vae": "blip3o.vision.autoencoder:Autoencoder",
}


def load_decoder(folder: Path, dtype: torch.dtype | None = None) -> PixelDecoder:
    """The decoder in a folder, of the kind its config.json names, in ``dtype`` (default float32).

    Raises: ConfigError, WeightsError.
    """
    folder = Path(folder)
    if not (folder / CONFIG_NAME).is_file() and (folder / "unet").is_dir():
        config: dict[str, Any] = {"kind": "latent_unet"}  # the layout of the released models
    else:
        config = read_json(folder / CONFIG_NAME)
    kind = config.get("kind")
    if kind not in DECODERS:
        raise ConfigError(
            f"{folder / CONFIG_NAME}: decoder kind {kind!r} is unknown; known: {', '.join(DECODERS)}"
        )
    module, name = DECODERS[kind].split(":")
    found: type[PixelDecoder] = getattr(import_module(module), name)
    return found.from_folder(folder, config, dtype)
