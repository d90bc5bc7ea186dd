"""Backbone, queries and generation head put together.

Dimension letters: B batch, L prompt tokens, Q queries, H hidden size, C channels, h and w feature grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from blip3o.backbone import Backbone, build_backbone
from blip3o.config import Blip3oConfig
from blip3o.dit import DiT
from blip3o.errors import ConfigError, ShapeError
from blip3o.flow.sampler import AfterStep, Solver
from blip3o.heads.base import Draws, GenerationHead, GenerationOutput, SampleSettings
from blip3o.heads.kinds import build_network, drive
from blip3o.queries import LatentQueries
from blip3o.strict_loading import StrictLoading


class Blip3oModel(StrictLoading, PreTrainedModel):  # type: ignore[misc]  # from_pretrained takes less
    """Unified model: prompts -> query states -> image features, and text understanding in the backbone."""

    config: Blip3oConfig
    config_class = Blip3oConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    # The network of the head is kept under one of these, see ``network_name``.
    dit: DiT
    generator: nn.Module
    if TYPE_CHECKING:
        # transformers' own hide their signatures
        to = nn.Module.to  # type: ignore[assignment]
        eval = nn.Module.eval

    def __init__(self, config: Blip3oConfig, backbone: Backbone | None = None) -> None:
        """Args: backbone: one that is loaded already, in place of one with random weights."""
        super().__init__(config)
        self.backbone = backbone or build_backbone(config.backbone_config)
        if self.backbone.hidden_size != config.condition_dim:
            raise ConfigError(
                f"dit_config.condition_dim {config.condition_dim} must equal the hidden size "
                f"{self.backbone.hidden_size} of the backbone"
            )
        self.queries = LatentQueries(config.num_queries, self.backbone.hidden_size)
        # The DiT keeps the name it has in released checkpoints; any other network is ``generator``.
        setattr(self, self.network_name, build_network(config))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Parts of ours initialise themselves when built; the backbone has transformers' own rule."""

    @property
    def execution_device(self) -> torch.device:
        """Where inputs are expected; parts that are offloaded come to it when they are needed."""
        hook = getattr(self.queries, "_hf_hook", None)
        device = getattr(hook, "execution_device", None)
        return self.queries.latent_queries.device if device is None else torch.device(device)

    @property
    def network_name(self) -> str:
        """Attribute under which the network of the generation head is kept."""
        return "dit" if self.config.head == "dit" else "generator"

    @property
    def head(self) -> GenerationHead:
        """The generation head over that network."""
        return drive(getattr(self, self.network_name), self.config)

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of the image features that the head makes."""
        return self.head.feature_shape

    # Prompts -> condition

    def embed_inputs(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        query_mask: Tensor | None = None,
    ) -> Tensor:
        """Input embeddings of a training sequence, queries in place of their placeholder tokens.

        Args: input_ids (B, L) with ``num_queries`` placeholders in a row per sample; query_mask (B, L),
            True at those placeholders (default: wherever the query token stands).
        Returns: (B, L, H). Raises: ShapeError if a sample's placeholders differ from ``num_queries``.
        """
        embeddings = self.backbone.embed(input_ids, pixel_values, image_grid_thw)
        places = input_ids == self.config.tokens.query if query_mask is None else query_mask
        counts = places.sum(dim=1)
        if bool((counts != self.config.num_queries).any()):
            raise ShapeError(
                f"each sequence needs {self.config.num_queries} query placeholders, got {counts.tolist()}"
            )
        queries = self.queries(len(input_ids)).to(embeddings.dtype)
        return embeddings.masked_scatter(places[..., None], queries)

    def _prefix(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Prompts moved to the left and closed by the image start token: ids and mask (B, P)."""
        if input_ids.ndim != 2 or attention_mask.shape != input_ids.shape:
            raise ShapeError(
                "input_ids and attention_mask must be (batch, tokens), got "
                f"{tuple(input_ids.shape)} and {tuple(attention_mask.shape)}"
            )
        real = attention_mask.bool()
        lengths = real.sum(dim=1)  # (B,)
        start = self.config.tokens.image_start
        order = torch.argsort((~real).int(), dim=1, stable=True)
        ids = input_ids.masked_fill(~real, start).gather(1, order)[:, : int(lengths.max())]
        ids = F.pad(
            ids, (0, 1), value=start
        )  # the token after a prompt's last one is the start token
        mask = torch.arange(ids.shape[1], device=ids.device) <= lengths[:, None]
        return ids, mask

    def encode_condition(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        *,
        query_only_backward: bool | None = None,
    ) -> Tensor:
        """Final hidden states at the queries, which follow each prompt and the image start token.

        Positions are counted per sample from its own first token, whatever side the padding is on, so a
        prompt's states do not depend on what else is in the batch.

        Args:
            input_ids: (B, L) prompts without the image start token; attention_mask (B, L), 1 at real tokens.
            pixel_values, image_grid_thw: pictures in the prompts, in order.
            query_only_backward: run the prompt without gradients into a key/value cache and only the
                queries with them. Exact as long as nothing but the queries learns here, because no prompt
                token sees a query. Default: whenever no parameter of the backbone asks for a gradient.
        Returns: (B, Q, H). Raises: ShapeError, DataError.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        ids, mask = self._prefix(input_ids, attention_mask)
        queries = self.queries(len(ids))
        query_mask = mask.new_ones(queries.shape[:2])
        attention_mask = torch.cat([mask, query_mask], dim=1).long()
        positions = torch.arange(ids.shape[1], device=ids.device).expand(len(ids), -1)
        query_positions = mask.sum(dim=1, keepdim=True) + torch.arange(
            queries.shape[1], device=ids.device
        )
        if query_only_backward is None:
            query_only_backward = torch.is_grad_enabled() and not any(
                p.requires_grad for p in self.backbone.parameters()
            )
        if query_only_backward:
            with torch.no_grad():
                prefix = self.backbone.embed(ids, pixel_values, image_grid_thw)
                cache = self.backbone(prefix, mask.long(), positions, use_cache=True).cache
            if cache is None or cache.get_seq_length() != ids.shape[1]:
                raise ConfigError(
                    "the backbone kept no keys and values of the prompt: a frozen backbone that recomputes activations "
                    "(gradient checkpointing) must be in evaluation mode, .eval()"
                )
            output = self.backbone(
                queries.to(prefix.dtype), attention_mask, query_positions, cache=cache
            )
            return output.hidden_states
        prefix = self.backbone.embed(ids, pixel_values, image_grid_thw)
        output = self.backbone(
            torch.cat([prefix, queries.to(prefix.dtype)], dim=1),
            attention_mask,
            torch.cat([positions, query_positions], dim=1),
        )
        return output.hidden_states[:, -queries.shape[1] :]

    # Training

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        target: Tensor | None = None,
        *,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        condition: Tensor | None = None,
        u: Tensor | None = None,
        noise: Tensor | None = None,
        drop: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> GenerationOutput:
        """Loss of the image features ``target`` given prompts (or their query states).

        Args:
            input_ids, attention_mask, pixel_values, image_grid_thw: see ``encode_condition``.
            target: (B, C, h, w) clean features.
            condition: (B, Q, H) query states made before; replaces the prompts.
            u, noise, drop, generator: see ``Draws``; a regression head has no use for them.
        """
        if target is None:
            raise ShapeError(
                "the training forward needs target features (batch, channels, height, width)"
            )
        if condition is None:
            if input_ids is None:
                raise ShapeError("the training forward needs input_ids or a condition")
            condition = self.encode_condition(
                input_ids, attention_mask, pixel_values, image_grid_thw
            )
        return self.head.loss(condition, target, Draws(u, noise, drop, generator))

    def text_loss(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        reduction: str = "mean",
    ) -> Tensor:
        """Cross-entropy of the next token where labels are not -100; labels (B, L) equal the ids there."""
        logits = self.backbone.text_logits(input_ids, attention_mask, pixel_values, image_grid_thw)
        return F.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), reduction=reduction
        )

    # Sampling

    @torch.no_grad()
    def sample_features(
        self,
        condition: Tensor,
        *,
        generators: Sequence[torch.Generator] | None = None,
        noise: Tensor | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        solver: Solver = "euler",
        on_step: Any = None,
        after_step: AfterStep | None = None,
    ) -> Tensor:
        """Image features (B, C, h, w), float32, for conditions (B, Q, H).

        Noise comes from one CPU generator per sample, or is given; see ``FlowHead.sample`` for on_step, and
        ``integrate`` for after_step. A regression head draws nothing, and refuses guidance and steps.
        Raises: ConfigError, ShapeError.
        """
        settings = SampleSettings(
            generators, noise, num_inference_steps, guidance_scale, solver, on_step, after_step
        )
        return self.head.sample(condition, settings)


AutoConfig.register(Blip3oConfig.model_type, Blip3oConfig, exist_ok=True)
AutoModel.register(Blip3oConfig, Blip3oModel, exist_ok=True)
