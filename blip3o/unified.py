"""Backbone, queries and diffusion transformer put together.

Dimension letters: B batch, L prompt tokens, Q queries, H hidden size, C channels, h and w feature grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from blip3o.backbone import build_backbone
from blip3o.config import Blip3oConfig
from blip3o.dit import DiT, EncodedCondition
from blip3o.errors import ConfigError, ShapeError
from blip3o.flow.loss import velocity_loss
from blip3o.flow.path import interpolate, sigma_to_timestep
from blip3o.flow.sampler import AfterStep, Solver, guide, integrate, sample_noise, sampling_sigmas
from blip3o.flow.timesteps import sigma_from_uniform
from blip3o.queries import LatentQueries
from blip3o.strict_loading import StrictLoading


@dataclass
class GenerationOutput:
    """One training forward of the generation side; everything a replay or a log needs.

    loss (); prediction and x_sigma (B, C, h, w); condition (B, Q, H) after dropout; timestep (B,).
    """

    loss: Tensor
    prediction: Tensor
    x_sigma: Tensor
    condition: Tensor
    timestep: Tensor


class Blip3oModel(StrictLoading, PreTrainedModel):
    """Unified model: prompts -> query states -> image features, and text understanding in the backbone."""

    config_class = Blip3oConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: Blip3oConfig) -> None:
        super().__init__(config)
        self.backbone = build_backbone(config.backbone_config)
        if self.backbone.hidden_size != config.dit.condition_dim:
            raise ConfigError(
                f"dit_config.condition_dim {config.dit.condition_dim} must equal the hidden size "
                f"{self.backbone.hidden_size} of the backbone"
            )
        self.queries = LatentQueries(config.num_queries, self.backbone.hidden_size)
        self.dit = DiT(config.dit)
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
    def feature_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of the image features that the diffusion transformer makes."""
        dit = self.dit.config
        return dit.in_channels, dit.input_size, dit.input_size

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
        """Flow-matching loss of the image features ``target`` given prompts (or their query states).

        Args:
            input_ids, attention_mask, pixel_values, image_grid_thw: see ``encode_condition``.
            target: (B, C, h, w) clean features.
            condition: (B, Q, H) query states made before; replaces the prompts.
            u: (B,) uniform numbers that choose the noise levels; noise like target; drop (B,), 1 where the
                condition is dropped. Those left out are drawn on the CPU from ``generator``.
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
        batch, flow = len(target), self.config.flow
        if u is None:
            u = torch.rand(batch, generator=generator)
        if noise is None:
            noise = torch.randn(target.shape, generator=generator)
        if drop is None:
            drop = torch.rand(batch, generator=generator) < flow.condition_dropout
        sigma = sigma_from_uniform(u.to(target.device), flow.distribution)
        point = interpolate(target, noise.to(target), sigma)
        condition = condition * (1 - drop.to(condition))[:, None, None]
        timestep = sigma_to_timestep(point.sigma)
        dtype = self.dit.patch_embedder.proj.weight.dtype
        prediction = self.dit(point.x_sigma.to(dtype), timestep, condition.to(dtype))
        loss = velocity_loss(prediction, point.velocity)
        return GenerationOutput(loss, prediction, point.x_sigma, condition, timestep)

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

        Both halves of classifier-free guidance go through the network in one forward; the condition
        without a prompt is all zeros. Noise comes from one CPU generator per sample, or is given.

        Args: on_step: called as (step, x, velocity of both halves (2B, C, h, w) or (B, ...) without guidance).
            after_step: see ``integrate``.
        With ``compat`` released, guidance and steps run in the network's precision, as upstream; else in float32.
        Raises: ConfigError, ShapeError.
        """
        flow, batch = self.config.flow, len(condition)
        steps = flow.num_inference_steps if num_inference_steps is None else num_inference_steps
        scale = flow.guidance_scale if guidance_scale is None else guidance_scale
        if noise is None:
            if generators is None:
                raise ConfigError("sampling needs noise, or one torch.Generator per sample")
            noise = sample_noise(self.feature_shape, generators)
        if noise.shape != (batch, *self.feature_shape):
            raise ShapeError(
                f"noise must be ({batch}, {', '.join(map(str, self.feature_shape))}), got {tuple(noise.shape)}; "
                "one generator per condition"
            )
        dtype = self.dit.patch_embedder.proj.weight.dtype
        is_guided = scale != 1.0
        working = dtype if self.config.compat == "released" else torch.float32
        encoded = (
            self._encode_guided(condition.to(dtype))
            if is_guided
            else self.dit.encode_condition(condition.to(dtype))
        )
        current: list[Tensor] = []  # the network's own output at this step, for on_step

        def velocity(x: Tensor, timestep: Tensor) -> Tensor:
            x = x.to(dtype)
            if not is_guided:
                current[:] = [self.dit(x, timestep, encoded).to(working)]
                return current[0]
            both = self.dit(torch.cat([x, x]), torch.cat([timestep, timestep]), encoded)
            both = both.to(working)
            current[:] = [both]
            return guide(*both.chunk(2), scale)

        def report(step: int, x: Tensor, _: Tensor) -> None:
            on_step(step, x, current[0])

        features = integrate(
            velocity,
            noise.to(condition.device, working),
            sampling_sigmas(steps, flow.sampling_shift),
            solver=solver,
            truncate_timesteps=self.config.compat == "released",
            on_step=report if on_step is not None else None,
            after_step=after_step,
        )
        return features.float()

    def _encode_guided(self, condition: Tensor) -> EncodedCondition:
        """Condition of the doubled batch: B times the zero condition, encoded once, then the real ones."""
        batch = len(condition)
        encoded = self.dit.encode_condition(torch.cat([torch.zeros_like(condition[:1]), condition]))
        index = torch.cat([torch.zeros(batch, dtype=torch.long), torch.arange(1, batch + 1)])
        index = index.to(condition.device)
        return EncodedCondition(
            encoded.pooled[index],
            tuple((key[index], value[index]) for key, value in encoded.keys_values),
            None,
        )


AutoConfig.register(Blip3oConfig.model_type, Blip3oConfig, exist_ok=True)
AutoModel.register(Blip3oConfig, Blip3oModel, exist_ok=True)
