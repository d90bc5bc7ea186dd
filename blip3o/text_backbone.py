"""Language models without a vision tower of their own as backbones, alone or with a SigLIP tower in front.

Llama and its family, Qwen2, Qwen3, Mistral: whatever transformers runs as a causal language model with one
plain position per token. With a tower this is the shape of upstream's branch Qwen3-Siglip2: the tower's last
hidden states through a two-layer GELU projector, one token per patch.
Dimension letters: B batch, L tokens, D width, P patches of all pictures, p patch side.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedModel

from blip3o.backbone import Backbone, BackboneOutput, place_pictures
from blip3o.backbone_attention import ATTENTION_NAME
from blip3o.errors import ConfigError, DataError
from blip3o.vision.siglip import SiglipEncoder

TEXT_MODELS = ("llama", "qwen2", "qwen3", "mistral")


class VisionGrid(NamedTuple):
    """How the pipeline cuts pictures for a tower with one token per patch."""

    patch_size: int
    spatial_merge_size: int = 1
    temporal_patch_size: int = 1


class TextBackbone(Backbone):
    """Args: text: configuration of the language model with its ``model_type``; vision: of a SigLIP tower, or None;
    image_token_id: placeholder of a picture's tokens, needed with a tower; lm: a language model that is loaded
    already, in place of one with random weights. Raises: ConfigError."""

    def __init__(
        self,
        text: dict[str, Any],
        vision: dict[str, Any] | None = None,
        image_token_id: int | None = None,
        attn_implementation: str = ATTENTION_NAME,
        lm: PreTrainedModel | None = None,
    ) -> None:
        super().__init__()
        text = dict(text)
        kind = text.pop("model_type", None)
        if kind not in TEXT_MODELS:
            raise ConfigError(
                f"text_config.model_type {kind!r} is not supported; use one of {', '.join(TEXT_MODELS)}"
            )
        config = AutoConfig.for_model(kind, **text)
        self.lm: Any = lm or AutoModelForCausalLM.from_config(
            config, attn_implementation=attn_implementation
        )
        self.hidden_size = config.hidden_size
        self.vision: SiglipEncoder | None = None
        # No token stands for a picture where there is no tower: -1 is no id.
        self.image_token_id = -1
        if vision is not None:
            if image_token_id is None:
                raise ConfigError("a backbone with vision_config needs image_token_id")
            self.vision, self.image_token_id = SiglipEncoder(vision), image_token_id
            self.projector = nn.Sequential(
                nn.Linear(self.vision.width, self.hidden_size),
                nn.GELU(),
                nn.Linear(self.hidden_size, self.hidden_size),
            )
        self.all_tied_weights_keys = {
            f"lm.{name}": f"lm.{source}" for name, source in self.lm.all_tied_weights_keys.items()
        }
        self._no_split_modules = set(self.lm._no_split_modules or ())
        self._skip_keys_device_placement = set(self.lm._skip_keys_device_placement or ())

    @property
    def vision_config(self) -> VisionGrid | None:
        """None where the backbone sees no pictures."""
        return None if self.vision is None else VisionGrid(self.vision.patch_size)

    @property
    def text_config(self) -> Any:
        return self.lm.config

    def see(self, pixel_values: Tensor, image_grid_thw: Tensor) -> Tensor:
        """Patch rows (P, 3*p*p) of pictures, (pictures, 3) grids -> picture tokens (P, D). Raises: DataError."""
        if self.vision is None:
            raise DataError(
                "this model's backbone has no vision tower, so it takes no pictures; leave them out"
            )
        p, tokens, start = self.vision.patch_size, [], 0
        grids = image_grid_thw.tolist()
        for first, (_, height, width) in enumerate(grids):
            if first and grids[first] == grids[first - 1]:
                continue  # pictures of one size in a row went through together
            count = 1
            while first + count < len(grids) and grids[first + count] == grids[first]:
                count += 1
            rows = pixel_values[start : start + count * height * width]
            start += len(rows)
            images = rows.reshape(count, height, width, 3, p, p).permute(0, 3, 1, 4, 2, 5)
            images = images.reshape(count, 3, height * p, width * p)
            dtype = next(self.projector.parameters()).dtype
            tokens.append(self.vision.tokens(images.to(dtype)).flatten(0, 1))
        return self.projector(torch.cat(tokens))

    def embed(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
    ) -> Tensor:
        """Input embeddings (B, L, D); pictures, in order, replace the placeholder tokens. Raises: DataError."""
        embeddings = self.lm.get_input_embeddings()(input_ids)
        if pixel_values is None:
            return embeddings
        return place_pictures(
            embeddings, input_ids == self.image_token_id, pixel_values, image_grid_thw, self.see
        )

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        cache: Any = None,
        use_cache: bool = False,
    ) -> BackboneOutput:
        """inputs_embeds (B, L, D); attention_mask (B, cached + L); position_ids (B, L)."""
        if use_cache and cache is None:
            cache = DynamicCache(config=self.lm.config)
        output = self.lm.base_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=use_cache or cache is not None,
        )
        return BackboneOutput(output.last_hidden_state, output.past_key_values)

    def own_positions(
        self, input_ids: Tensor, attention_mask: Tensor, image_grid_thw: Tensor | None = None
    ) -> Tensor:
        """Plain positions (B, L), counted from each sample's first real token."""
        return (attention_mask.cumsum(dim=1) - 1).clamp(min=0)

    def logits(self, hidden_states: Tensor) -> Tensor:
        """(..., D) -> (..., vocabulary)."""
        return self.lm.get_output_embeddings()(hidden_states)

    def text_logits(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
    ) -> Tensor:
        """Next-token logits (B, L, vocabulary), for understanding."""
        embeddings = self.embed(input_ids, pixel_values, image_grid_thw)
        positions = self.own_positions(input_ids, attention_mask)
        return self.logits(self(embeddings, attention_mask, positions).hidden_states)
