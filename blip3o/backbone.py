"""The autoregressive vision-language backbone behind one small interface.

Dimension letters: B batch, L tokens, D width.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.models.qwen2_5_vl import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from blip3o.backbone_attention import ATTENTION_NAME
from blip3o.errors import ConfigError, DataError
from blip3o.vision.window_attention import batch_equal_windows


class BackboneOutput(NamedTuple):
    """Hidden states after the final norm (B, L, D), and the key/value cache if one was asked for."""

    hidden_states: Tensor
    cache: Any


class PictureInputs(TypedDict, total=False):
    """Pictures in prompts: patch rows (patches, C*t*p*p) of all of them, and their grids (pictures, 3)."""

    pixel_values: Tensor
    image_grid_thw: Tensor


class Backbone(nn.Module, abc.ABC):
    """What the unified model asks of an autoregressive backbone."""

    hidden_size: int
    image_token_id: int

    @property
    @abc.abstractmethod
    def text_config(self) -> Any:
        """The language model's configuration in transformers' names."""

    @abc.abstractmethod
    def embed(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
    ) -> Tensor:
        """Input embeddings (B, L, D), pictures in place of their placeholder tokens."""

    @abc.abstractmethod
    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        cache: Any = None,
        use_cache: bool = False,
    ) -> BackboneOutput:
        """Causal forward; attention_mask covers the cache, too. Positions are (B, L), or (3, B, L) where the
        backbone's own positions have three axes."""

    @abc.abstractmethod
    def own_positions(
        self, input_ids: Tensor, attention_mask: Tensor, image_grid_thw: Tensor | None = None
    ) -> Tensor:
        """Positions that the backbone uses when it answers: (B, L), or (3, B, L) with pictures on three axes."""

    @abc.abstractmethod
    def logits(self, hidden_states: Tensor) -> Tensor:
        """(..., D) -> (..., vocabulary)."""

    @abc.abstractmethod
    def text_logits(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
    ) -> Tensor:
        """Next-token logits (B, L, vocabulary) with the backbone's own positions, for understanding."""


def place_pictures(
    embeddings: Tensor,
    places: Tensor,
    pixel_values: Tensor,
    image_grid_thw: Tensor | None,
    see: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Embeddings (B, L, D) with the tokens of pictures, in order, where ``places`` (B, L) is true.

    Raises: DataError if patches and grids, or places and picture tokens, differ in number.
    """
    if image_grid_thw is None:
        raise DataError(
            "pixel_values need image_grid_thw, one row (time, height, width) per picture"
        )
    if int(image_grid_thw.prod(dim=-1).sum()) != len(pixel_values):
        raise DataError(
            f"image_grid_thw describes {int(image_grid_thw.prod(dim=-1).sum())} patches, "
            f"pixel_values has {len(pixel_values)}"
        )
    features = see(pixel_values, image_grid_thw).to(embeddings.dtype)
    if int(places.sum()) != len(features):
        raise DataError(
            f"the prompts hold {int(places.sum())} image placeholder tokens, the pictures give "
            f"{len(features)}; a picture needs one placeholder per merged patch"
        )
    return embeddings.masked_scatter(places[..., None], features)


class QwenBackbone(Backbone):
    """Qwen2.5-VL of any size, by the classes of transformers.

    Image generation uses the same plain position on all three axes of M-RoPE, also where pictures are
    in the prompt; answering questions uses the model's own positions.
    """

    def __init__(
        self,
        config: Qwen2_5_VLConfig,
        attn_implementation: str = ATTENTION_NAME,
        vlm: Qwen2_5_VLForConditionalGeneration | None = None,
    ) -> None:
        """Args: vlm: a model that is loaded already, in place of one with random weights."""
        super().__init__()
        self.vlm = vlm or Qwen2_5_VLForConditionalGeneration._from_config(
            config, attn_implementation=attn_implementation
        )
        batch_equal_windows(self.vlm.model.visual)
        self.hidden_size = self.text_config.hidden_size
        self.image_token_id = config.image_token_id
        # transformers gathers these from the direct children of a model; hand on those of the inner one.
        self.all_tied_weights_keys = {
            f"vlm.{name}": f"vlm.{source}"
            for name, source in self.vlm.all_tied_weights_keys.items()
        }
        self._no_split_modules = set(self.vlm._no_split_modules)
        self._skip_keys_device_placement = set(self.vlm._skip_keys_device_placement)

    @property
    def vision_config(self) -> Any:
        return self.vlm.config.vision_config

    @property
    def text_config(self) -> Any:
        return self.vlm.config.text_config

    def embed(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
    ) -> Tensor:
        """Input embeddings (B, L, D); pictures, in order, replace the placeholder tokens.

        Args: input_ids (B, L); pixel_values (patches, C*t*p*p) of all pictures, image_grid_thw (pictures, 3).
        Raises: DataError if placeholders and picture tokens differ in number.
        """
        embeddings = self.vlm.get_input_embeddings()(input_ids)
        if pixel_values is None:
            return embeddings + self._unseen() if self._sees_in_every_batch() else embeddings
        return place_pictures(
            embeddings, input_ids == self.image_token_id, pixel_values, image_grid_thw, self._see
        )

    def _sees_in_every_batch(self) -> bool:
        """While the vision tower learns, every batch passes through it: processes that wait for each other's gradients
        or shards must all do the same, whether or not their own records show a picture."""
        if not (self.training and torch.is_grad_enabled()):
            return False
        return any(p.requires_grad for p in self.vlm.model.visual.parameters())

    def _unseen(self) -> Tensor:
        """A blank picture of one token, times zero."""
        vision = self.vision_config
        side = vision.spatial_merge_size
        row = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        device = next(self.vlm.get_input_embeddings().parameters()).device
        blank = torch.zeros(side**2, row, device=device)
        return 0.0 * self._see(blank, torch.tensor([[1, side, side]], device=device)).sum()

    def _see(self, pixel_values: Tensor, image_grid_thw: Tensor) -> Tensor:
        """Patch rows and grids -> picture tokens of all pictures, merged patches in order."""
        visual = self.vlm.model.visual
        features = visual(pixel_values.to(visual.dtype), grid_thw=image_grid_thw)
        return getattr(features, "pooler_output", features)

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        cache: Any = None,
        use_cache: bool = False,
    ) -> BackboneOutput:
        """inputs_embeds (B, L, D); attention_mask (B, cached + L); position_ids (B, L) or (3, B, L)."""
        if use_cache and cache is None:
            cache = DynamicCache(config=self.text_config)
        output = self.vlm.model.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids.expand(3, -1, -1),
            past_key_values=cache,
            use_cache=use_cache or cache is not None,
        )
        return BackboneOutput(output.last_hidden_state, output.past_key_values)

    def own_positions(
        self, input_ids: Tensor, attention_mask: Tensor, image_grid_thw: Tensor | None = None
    ) -> Tensor:
        """M-RoPE positions (3, B, L): text counts on, a picture spans height and width."""
        positions: Tensor = self.vlm.model.get_rope_index(
            input_ids,
            self._token_types(input_ids),
            image_grid_thw,
            attention_mask=attention_mask,
        )[0]
        return positions

    def logits(self, hidden_states: Tensor) -> Tensor:
        """(..., D) -> (..., vocabulary)."""
        return self.vlm.lm_head(hidden_states)

    def text_logits(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
    ) -> Tensor:
        """Next-token logits (B, L, vocabulary) with the model's own positions, for understanding."""
        return self.vlm(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            image_grid_thw=image_grid_thw,
            mm_token_type_ids=self._token_types(input_ids),
            use_cache=False,
        ).logits

    def _token_types(self, input_ids: Tensor) -> Tensor:
        """1 at picture placeholders, 0 at text: transformers asks for it to place pictures."""
        return (input_ids == self.image_token_id).int()


# Language model and SigLIP tower in one configuration: text_config, vision_config, image_token_id.
TEXT_VISION = "text_vision"


def build_backbone(values: dict[str, Any]) -> Backbone:
    """The backbone named by ``model_type`` in a configuration dict.

    ``qwen2_5_vl``; a language model by its own type (``llama``, ``qwen3``, ...), which sees no pictures; or
    ``text_vision``, such a model (text_config) with a SigLIP tower (vision_config). Raises: ConfigError.
    """
    from blip3o.text_backbone import TEXT_MODELS, TextBackbone

    values = dict(values)
    kind = values.pop("model_type", None)
    if kind == "qwen2_5_vl":
        return QwenBackbone(Qwen2_5_VLConfig(**values))
    if kind in TEXT_MODELS:
        return TextBackbone({**values, "model_type": kind})
    if kind == TEXT_VISION:
        known = {"text_config", "vision_config", "image_token_id"}
        lacking, unknown = sorted(known - set(values)), sorted(set(values) - known)
        if lacking or unknown:
            raise ConfigError(
                f"a {TEXT_VISION} backbone needs {', '.join(sorted(known))}; "
                + (f"{lacking[0]} is missing" if lacking else f"{unknown[0]} is unknown")
            )
        return TextBackbone(
            values["text_config"], values["vision_config"], values["image_token_id"]
        )
    known_kinds = ", ".join(("qwen2_5_vl", *TEXT_MODELS, TEXT_VISION))
    raise ConfigError(f"backbone model_type {kind!r} is not supported; use one of {known_kinds}")
