"""Target encoders as folders: the tower, its pooling, the space that is generated, and how pictures are prepared.

``config.json`` names the ``kind``: ``open_clip``, ``eva_clip`` (the released models), ``siglip`` (SigLIP and
SigLIP2) or ``vae``; ``feature_space/`` is optional. Dimension letters: B batch, S picture side, C channels, h, w grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn

from blip3o.checkpoint_files import iter_tensors
from blip3o.config import build_part
from blip3o.errors import ConfigError, WeightsError
from blip3o.storage import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    load_strict,
    read_json,
    read_tensors,
    save_module,
    write_json,
)
from blip3o.vision.encoders import EvaConfig, EvaEncoder, OpenClipEncoder, pool_grid
from blip3o.vision.feature_space import FeatureSpace
from blip3o.vision.preprocess import UNIT_MEAN, UNIT_STD, Preprocess
from blip3o.vision.siglip import SiglipEncoder

if TYPE_CHECKING:
    from blip3o.vision.autoencoder import Autoencoder

KINDS = ("open_clip", "eva_clip", "siglip", "vae")
SPACE_FOLDER = "feature_space"
# Where a released training run keeps the tower that it was trained against.
RELEASED_PREFIX = "model.gen_vision_tower.vision_tower.model."


class Target(nn.Module):
    """Pictures -> the features that the generation head learns to make.

    Args: config: what ``build_encoder`` made the encoder from. Values of a pixel tensor are as ``preprocess`` gives
        them. The tower is frozen by its user, not here.
    """

    def __init__(
        self,
        encoder: nn.Module,
        preprocess: Preprocess,
        config: Mapping[str, Any],
        space: FeatureSpace | None = None,
        pooling: str = "none",
    ) -> None:
        super().__init__()
        self.encoder, self.preprocess, self.config = encoder, preprocess, dict(config)
        self.space, self.pooling = space, pooling

    def forward(self, pixels: Tensor) -> Tensor:
        """Prepared pictures (B, 3, S, S) -> features (B, C, h, w)."""
        features = pool_grid(self.encoder(pixels), self.pooling)
        return features if self.space is None else self.space(features)

    @torch.no_grad()
    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures of any size and mode -> features (B, C, h, w)."""
        parameter = next(self.encoder.parameters())
        return self(self.preprocess(images).to(parameter.device, parameter.dtype))

    def save_pretrained(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write a folder that ``load_target`` reads."""
        folder = Path(folder)
        config = {**self.config, "pooling": self.pooling, "preprocess": self.preprocess.to_dict()}
        if config["kind"] == "vae":
            from blip3o.vision.autoencoder import Autoencoder

            assert isinstance(self.encoder, Autoencoder)
            self.encoder.save_pretrained(folder, dtype)  # diffusers' own files
            write_json(folder / CONFIG_NAME, config)
        else:
            save_module(folder, self.encoder, config, dtype)
        if self.space is not None:
            self.space.save_pretrained(folder / SPACE_FOLDER)


def build_encoder(config: Mapping[str, Any]) -> nn.Module:
    """A tower with random weights from the keys of its kind. Raises: ConfigError.

    ``open_clip``: model (embed_dim, vision_cfg), layer. ``eva_clip``: eva (EvaConfig). ``siglip``: model
    (transformers' configuration), layer.
    """
    kind = config.get("kind")
    if kind == "open_clip":
        return OpenClipEncoder.from_config(config["model"], config.get("layer", -2))
    if kind == "eva_clip":
        return EvaEncoder(build_part(EvaConfig, config.get("eva"), "eva"))
    if kind == "siglip":
        return SiglipEncoder(config["model"], config.get("layer", -2))
    raise ConfigError(f"target encoder kind {kind!r} is unknown; choose one of {', '.join(KINDS)}")


def default_preprocess(config: Mapping[str, Any], encoder: nn.Module) -> Preprocess:
    """Where a folder does not say: the tower's own size; CLIP's statistics for EVA, -1 to 1 for the others."""
    if isinstance(encoder, EvaEncoder):
        return Preprocess(size_px=encoder.config.image_size)
    size = config.get("size_px")
    if isinstance(encoder, OpenClipEncoder):
        size = size or config["model"]["vision_cfg"]["image_size"]
    elif isinstance(encoder, SiglipEncoder):
        size = size or encoder.image_size
    if size is None:
        raise ConfigError("the target encoder needs preprocess.size_px: its tower takes any size")
    return Preprocess(size_px=size, mean=UNIT_MEAN, std=UNIT_STD)


def load_target(folder: Path, dtype: torch.dtype | None = None) -> Target:
    """The target encoder in a folder, or the EVA tower inside a released checkpoint, in ``dtype`` (default float32).

    Raises: WeightsError, ConfigError.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG_NAME)
    if "gen_vision_tower" in config:
        return _from_released(folder, dtype)
    if config.get("kind") not in KINDS:
        raise ConfigError(
            f"{folder} is no target encoder: kind {config.get('kind')!r} in its {CONFIG_NAME}, which must be one of "
            f"{', '.join(KINDS)}"
        )
    if config.get("kind") == "vae":
        from blip3o.vision.autoencoder import Autoencoder

        encoder: nn.Module = Autoencoder.from_folder(folder, config, dtype)
    else:
        encoder = build_encoder(config)
        load_strict(encoder, read_tensors(folder / WEIGHTS_NAME), folder / WEIGHTS_NAME)
    preprocess = (
        build_part(Preprocess, config["preprocess"], "preprocess")
        if "preprocess" in config
        else default_preprocess(config, encoder)
    )
    space_folder = folder / SPACE_FOLDER
    space = FeatureSpace.from_pretrained(space_folder) if space_folder.is_dir() else None
    own = {k: v for k, v in config.items() if k not in ("pooling", "preprocess")}
    pooling = config.get("pooling", "early_pool2d_4" if own["kind"] == "eva_clip" else "none")
    encoder = encoder.to(dtype)
    return Target(encoder, preprocess, own, space, pooling).requires_grad_(False).eval()


def autoencoder_target(autoencoder: Autoencoder) -> Target:
    """A VAE that is at hand already, as target encoder; pictures of its own size, in [-1, 1]."""
    size = autoencoder.config.image_size
    if size is None:
        raise ConfigError("the VAE names no picture size; give its decoder folder an image_size")
    prepare = Preprocess(size_px=size, mean=UNIT_MEAN, std=UNIT_STD)
    return Target(autoencoder, prepare, {"kind": "vae"})


def _from_released(folder: Path, dtype: torch.dtype | None) -> Target:
    """The tower that a released training run saved along. Raises: WeightsError where it did not."""
    values = read_json(folder / CONFIG_NAME)
    tensors = {
        name.removeprefix(RELEASED_PREFIX): tensor
        for name, tensor in iter_tensors(folder, lambda name: name.startswith(RELEASED_PREFIX))
    }
    if not tensors:
        raise WeightsError(
            f"{folder} holds no target encoder; fetch the EVA-CLIP weights that the model was trained with and "
            "`blip3o convert FILE target_encoder --layout target-encoder`"
        )
    return eva_target(tensors, folder, values.get("gen_pooling", "early_pool2d_4"), dtype)


def eva_target(
    tensors: Mapping[str, Tensor], source: Path | str, pooling: str = "early_pool2d_4",
    dtype: torch.dtype | None = None,
) -> Target:  # fmt: skip
    """The EVA tower of the released models from its plain tensors; sizes are read off them. Raises: WeightsError."""
    try:
        width = tensors["cls_token"].shape[-1]
        hidden = tensors["blocks.0.mlp.fc1.weight"].shape[0]
        patch = tensors["patch_embed.proj.weight"].shape[-1]
        patches = tensors["pos_embed"].shape[1] - 1
    except KeyError as error:
        raise WeightsError(f"{source} lacks {error}: it is no EVA-CLIP tower") from None
    layers = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    head_width = EvaConfig().head_width
    config = EvaConfig(
        image_size=round(patches**0.5) * patch,
        patch_size=patch,
        width=width,
        layers=layers,
        head_width=head_width if width % head_width == 0 else width,
        mlp_ratio=(hidden + 0.5) / width,  # int(width * ratio) is the hidden width again
    )
    with torch.device("meta"):
        encoder = EvaEncoder(config)
    encoder = encoder.to_empty(device="cpu").to(dtype)
    load_strict(encoder, tensors, source)
    target = Target(
        encoder, Preprocess(size_px=config.image_size), {"kind": "eva_clip", "eva": asdict(config)}, None, pooling
    )
    return target.requires_grad_(False).eval()
