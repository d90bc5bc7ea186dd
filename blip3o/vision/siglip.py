"""SigLIP and SigLIP2 towers of transformers, as target encoders and as eyes of a language model.

SigLIP2 comes in two forms: at a fixed resolution it is transformers' ``siglip_vision_model``, in its
native-resolution form (NaFlex) ``siglip2_vision_model``. Both are read alike here.
Dimension letters: B batch, S picture side, N patches, D width, p patch side.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from blip3o.errors import ConfigError, ShapeError
from blip3o.vision.encoders import tokens_to_grid

_KINDS: dict[str, tuple[type[Any], type[PreTrainedModel]]] = {
    "siglip_vision_model": (SiglipVisionConfig, SiglipVisionModel),
    "siglip2_vision_model": (Siglip2VisionConfig, Siglip2VisionModel),
}


class SiglipEncoder(nn.Module):
    """Patch tokens of a SigLIP tower.

    Args: values: transformers' configuration with its ``model_type``. layer: -1 the last hidden states, after the
        tower's final norm (for understanding); -2 the output of the last block but one, unnormed (a target), and so
        on. Raises: ConfigError.
    """

    def __init__(self, values: dict[str, Any], layer: int = -1) -> None:
        super().__init__()
        values = dict(values)
        kind = values.pop("model_type", "siglip_vision_model")
        if kind not in _KINDS:
            raise ConfigError(f"SigLIP model_type {kind!r} is unknown; use {' or '.join(_KINDS)}")
        config_class, model_class = _KINDS[kind]
        # The pooling head makes one vector per picture, which nobody asks for here.
        config = config_class(**values | {"vision_use_head": False})
        if not -config.num_hidden_layers <= layer <= -1:
            raise ConfigError(f"layer must be between -{config.num_hidden_layers} and -1, got {layer}")
        self.model = model_class._from_config(config, attn_implementation="sdpa")
        self.is_naflex, self.layer = kind == "siglip2_vision_model", layer
        self.width: int = config.hidden_size
        self.patch_size: int = config.patch_size
        # A tower at a fixed resolution takes others by interpolating its positions.
        self.image_size: int | None = None if self.is_naflex else config.image_size

    def tokens(self, images: Tensor) -> Tensor:
        """Normalised pictures (B, 3, height, width) -> row-major tokens (B, N, D). Raises: ShapeError."""
        height, width = images.shape[-2:]
        p = self.patch_size
        if height % p or width % p:
            raise ShapeError(f"a picture of {width}x{height} px does not divide into patches of {p} px")
        needs_states = {"output_hidden_states": self.layer != -1}
        if self.is_naflex:
            rows = images.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # (B, 3, h, p, w, p)
            rows = rows.permute(0, 2, 4, 3, 5, 1).flatten(1, 2).flatten(2)  # (B, N, p*p*3)
            shapes = torch.tensor([[height // p, width // p]], device=images.device)
            output = self.model(
                pixel_values=rows,
                pixel_attention_mask=torch.ones(rows.shape[:2], dtype=torch.long, device=images.device),
                spatial_shapes=shapes.expand(len(rows), -1),
                **needs_states,
            )
        else:
            other_size = (height, width) != (self.image_size, self.image_size)
            output = self.model(
                pixel_values=images, interpolate_pos_encoding=other_size, **needs_states
            )
        if self.layer == -1:
            return output.last_hidden_state
        return output.hidden_states[self.layer]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, D, h, w)."""
        return tokens_to_grid(self.tokens(images))
