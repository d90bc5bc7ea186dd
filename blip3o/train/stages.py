"""What each stage learns, what is frozen, and which losses count.

| stage | learns | frozen | loss |
| --- | --- | --- | --- |
| clip | CLIP towers, channel projection, pixel decoder | - | contrastive + decoder_weight * decoder flow matching |
| decoder | pixel decoder | target tower | decoder flow matching on (slightly noisy) features |
| vision | backbone's vision tower | target tower | target tower's features, class and colour of every cell |
| understanding | vision-language backbone | - | next token on answers, descriptions and edited scenes |
| generation | latent queries, head | backbone, target tower | flow matching or squared error (sequential training) |
| generator | head | backbone, queries, target tower | the same, on conditions from disk |
| autoencoder (blip3o.train.autoencoder) | sticker VAE | - | absolute error of pixels and edges + KL |

``clip`` tunes the tower together with a decoder. A tower trained on captions alone keeps too little of an
object's shape in 64 tokens; with the reconstruction term the target is no longer a pure CLIP feature, and
every comparison of targets has to say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from blip3o.train.world_data import CellBatch, CellLabels, PictureBatch

if TYPE_CHECKING:
    from open_clip.model import CLIP
    from open_clip.transformer import VisionTransformer

    from blip3o.decoder import FlowPixelDecoder
    from blip3o.train.condition_cache import ConditionBatch
    from blip3o.train.feature_cache import FeatureBatch
    from blip3o.unified import Blip3oModel

Module = TypeVar("Module", bound=nn.Module)


def freeze(module: Module) -> Module:
    """No gradients, no dropout."""
    return module.requires_grad_(False).eval()


class ClipStage:
    """Contrastive training of both towers, tuned jointly with a pixel decoder through a narrow projection.

    ``projection``: Linear(width, C) from layer-normalised penultimate tokens to the channels the decoder sees.
    """

    name = "clip"
    is_divisible = False  # every caption is compared with every picture of the batch

    def __init__(
        self,
        clip: CLIP,
        projection: nn.Linear,
        decoder: FlowPixelDecoder,
        tokenizer: PreTrainedTokenizerBase,
        batches: Callable[[int], PictureBatch],
        decoder_weight: float,
        decoder_pictures: int,
    ) -> None:
        self.modules: Mapping[str, nn.Module] = {
            "clip": clip,
            "projection": projection,
            "decoder": decoder,
        }
        self.clip, self.projection, self.decoder = clip, projection, decoder
        self.tokenizer, self.batch = tokenizer, batches
        self.decoder_weight, self.decoder_pictures = decoder_weight, decoder_pictures

    def loss(
        self, batch: PictureBatch, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        text = clip_text_ids(self.tokenizer, batch.captions, self.clip.context_length)
        text = text.to(batch.pixels.device)
        image_features, tokens = clip_features(self.clip.visual, batch.pixels)
        text_features = self.clip.encode_text(text)
        logits = self.clip.logit_scale.exp().clamp(max=100) * (
            F.normalize(image_features.float(), dim=-1)
            @ F.normalize(text_features.float(), dim=-1).T
        )
        # Two scenes with the same caption are both right; sharing the target keeps them from being pushed apart.
        same = (text[:, None] == text[None]).all(-1).float()
        target = same / same.sum(1, keepdim=True)
        contrastive = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        n = self.decoder_pictures
        features = project_tokens(tokens[:n], self.projection)
        drawing = self.decoder.loss(batch.pixels[:n], features, generator=generator)
        correct = (logits.argmax(1) == torch.arange(len(logits), device=logits.device)).float().mean()
        numbers = {
            "contrastive": contrastive.item(),
            "decoder": drawing.item(),
            "retrieval": correct.item(),
        }
        return contrastive + self.decoder_weight * drawing, numbers


def clip_text_ids(
    tokenizer: PreTrainedTokenizerBase, captions: list[str], context_length: int
) -> Tensor:
    """Caption ids (B, context_length) ended by eos. open_clip pools text at the highest id, so ids are shifted such
    that eos is the highest: eos -> vocab size, pad -> 0."""
    ids = torch.zeros(len(captions), context_length, dtype=torch.long)
    for row, caption in zip(
        ids, tokenizer(captions, add_special_tokens=False)["input_ids"], strict=True
    ):
        kept = caption[: context_length - 1]
        row[: len(kept)] = torch.tensor(kept)
        row[len(kept)] = len(tokenizer)
    return ids


def clip_features(visual: VisionTransformer, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """open_clip visual tower -> pooled embedding (B, E) and the penultimate layer's patch tokens (B, width, h, w)."""
    out = visual.forward_intermediates(pixels, indices=[-2], output_fmt="NCHW")
    return out["image_features"], out["image_intermediates"][0]


def project_tokens(tokens: Tensor, projection: nn.Linear) -> Tensor:
    """(B, width, h, w) -> layer-normalised and projected (B, C, h, w), float32."""
    rows = F.layer_norm(tokens.float().movedim(1, -1), tokens.shape[1:2])
    return projection(rows).movedim(-1, 1)


class DecoderStage:
    """The pixel decoder on frozen features. ``feature_noise`` is the sd of noise added to the (unit-variance)
    features, because at inference they come from a sampler and are never exact."""

    name = "decoder"

    def __init__(
        self,
        decoder: FlowPixelDecoder,
        features_of: Callable[[Tensor], Tensor],
        batches: Callable[[int], PictureBatch],
        feature_noise: float,
    ) -> None:
        self.modules: Mapping[str, nn.Module] = {"decoder": decoder}
        self.frozen = [part for part in (features_of,) if isinstance(part, nn.Module)]
        self.decoder, self.features_of, self.batch, self.feature_noise = (
            decoder,
            features_of,
            batches,
            feature_noise,
        )

    def loss(
        self, batch: PictureBatch, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            features = self.features_of(batch.pixels)
        strength = self.feature_noise * torch.rand(len(features), 1, 1, 1, generator=generator)
        noise = strength * torch.randn(features.shape, generator=generator)
        features = features + noise.to(features)
        return self.decoder.loss(batch.pixels, features, generator=generator), {}


class VisionStage:
    """A start for the backbone's vision tower: every picture token must tell the features that the target tower has
    for its cell, the class and colour of the object there, and which cell it is.

    From next-token loss alone a small tower does not begin to name objects within thousands of pictures; the target
    tower has learned that by contrast, and hands it on densely. A tower with rotary positions only does not tell
    where it is either: before the place was taught, a linear reader found it in 0.54 of the tokens on objects, after
    100 steps in 0.98. ``heads`` are thrown away afterwards.

    Args: features_of: pictures (B, 3, S, S) -> (B, C, h, w) of the target tower, h and w multiples of ``grid``;
        patches_of: pictures -> the vision tower's patch rows and grid; hidden_size: width of its output tokens.
    """

    name = "vision"
    FEATURE_WEIGHT = 3.0

    def __init__(
        self,
        tower: nn.Module,
        features_of: Callable[[Tensor], Tensor],
        batches: Callable[[int], CellBatch],
        patches_of: Callable[[Tensor], tuple[Tensor, Tensor]],
        *,
        hidden_size: int,
        feature_size: int,
        grid: int,
    ) -> None:
        self.heads = nn.ModuleDict(
            {
                "features": nn.Linear(hidden_size, feature_size),
                "classes": nn.Linear(hidden_size, CellLabels.NUM_CLASSES),
                "colors": nn.Linear(hidden_size, CellLabels.NUM_COLORS),
                "places": nn.Linear(hidden_size, grid**2),
            }
        )
        self.modules: Mapping[str, nn.Module] = {"visual": tower, "heads": self.heads}
        self.frozen = [part for part in (features_of,) if isinstance(part, nn.Module)]
        self.tower, self.features_of, self.batch = tower, features_of, batches
        self.patches_of, self.grid = patches_of, grid

    def loss(self, batch: CellBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows, grid = self.patches_of(batch.pixels)
        tokens = self.tower(rows, grid_thw=grid).pooler_output  # (B * cells, H)
        with torch.no_grad():
            wanted = cell_features(self.features_of(batch.pixels).float(), self.grid)
        features = F.mse_loss(self.heads["features"](tokens).float(), wanted.flatten(0, 1))
        cells = torch.arange(self.grid**2, device=tokens.device)
        labels = {
            "classes": batch.classes.flatten(),
            "colors": batch.colors.flatten(),
            "places": cells.repeat(len(batch.pixels)),
        }
        shown = labels["classes"] < CellLabels.NO_CLASS
        loss, numbers = self.FEATURE_WEIGHT * features, {"features": features.item()}
        for key, known in labels.items():
            logits = self.heads[key](tokens).float()
            loss = loss + F.cross_entropy(logits, known)
            numbers[key] = (logits.argmax(-1) == known)[shown].float().mean().item()
        return loss, numbers


def cell_features(features: Tensor, grid: int) -> Tensor:
    """(B, C, h, w) -> layer-normalised per position and gathered per cell: (B, grid * grid, C * h * w / grid**2)."""
    batch, channels, height, width = features.shape
    rows = F.layer_norm(features.movedim(1, -1), (channels,))
    rows = rows.reshape(batch, grid, height // grid, grid, width // grid, channels)
    return rows.transpose(2, 3).reshape(batch, grid * grid, -1)


class GenerationStage:
    """Latent queries and head learn to draw features or latents; the backbone is frozen (the paper's sequential
    training). The objective is the model's own: flow matching, or regression.

    ``draws`` noise levels and noises are drawn for every caption: one pass of the backbone serves them all.
    """

    name = "generation"

    def __init__(
        self,
        model: Blip3oModel,
        batches: Callable[[int], Any],
        condition_of: Callable[[Any], Tensor],
        draws: int = 1,
    ) -> None:
        self.modules: Mapping[str, nn.Module] = {"model": model}
        self.model, self.batch, self.condition_of, self.draws = model, batches, condition_of, draws

    def loss(
        self, batch: FeatureBatch | ConditionBatch, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        # A regression head draws nothing, so the same caption again would be the same sample again.
        draws = self.draws if self.model.config.objective == "flow" else 1
        condition = self.condition_of(batch).repeat(draws, 1, 1)
        clean = batch.features.repeat(draws, 1, 1, 1)
        output = self.model(target=clean, condition=condition, generator=generator)
        if output.timestep is None:
            spread = clean.var(dim=0).mean()
            return output.loss, {"unexplained": (output.loss.detach() / spread).item()}
        error = (output.prediction.detach().float() - output.wanted).square()
        by_sample, noisy = error.mean(dim=(1, 2, 3)), output.timestep >= 500
        halves = {"mse_noisy": by_sample[noisy], "mse_clean": by_sample[~noisy]}
        return output.loss, {key: half.mean().item() for key, half in halves.items() if len(half)}


class GeneratorStage(GenerationStage):
    """The head alone goes on: backbone and queries are fixed, so every condition is a constant that was computed
    before (``blip3o.train.condition_cache``)."""

    name = "generator"

    def __init__(self, model: Blip3oModel, batches: Callable[[int], ConditionBatch]) -> None:
        super().__init__(model, batches, lambda batch: batch.condition)
