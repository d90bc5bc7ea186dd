"""A CLIP model as judge of fit between picture and text: `--judge clip`, `clip:FOLDER` or `clip:owner/name`.

Through transformers, weights as safetensors from a folder or the hub's cache. Default `openai/clip-vit-large-patch14`,
torchmetrics' default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evals.api import ModelOptions
from evals.errors import UsageError
from evals.judges.pretrained import (
    PretrainedJudge,
    Weights,
    find_weights,
    read_arguments,
    refuse_pickles,
)

HUB_ID = "openai/clip-vit-large-patch14"


@dataclass(frozen=True)
class _Arguments:
    revision: str | None = None


@dataclass(frozen=True)
class Similarity:
    """Cosine of a picture and a text; ``is_cut``: the text was longer than the encoder reads."""

    cosine: float
    is_cut: bool


class ClipJudge(PretrainedJudge):
    """`similarity` of pictures and texts. Reading the folder is cheap; ``load`` builds the network."""

    network = "CLIPModel"
    processor = "CLIPImageProcessorPil"

    def __init__(self, weights: Weights, device: str) -> None:
        super().__init__(weights, f"clip:{weights.label}", device, batch_size=16)
        self.encoder = weights.label.rpartition("/")[2]

    def similarity(self, images: Sequence[Any], texts: Sequence[str]) -> list[Similarity]:
        """One per (picture, text) pair, in order; it depends on the pair alone."""
        import torch

        if len(images) != len(texts):
            raise UsageError(f"{len(images)} pictures with {len(texts)} texts: give one text each")
        if not images:
            return []
        if self._model is None:
            self.load()
        limit = self._model.config.text_config.max_position_embeddings
        whole = self._tokenizer(list(texts), truncation=False)["input_ids"]
        tokens = self._tokenizer(
            list(texts), truncation=True, max_length=limit, padding=True, return_tensors="pt"
        )
        pixels = self._processor(images=[i.convert("RGB") for i in images], return_tensors="pt")
        with torch.inference_mode():
            out = self._model(
                input_ids=tokens["input_ids"].to(self._device),
                attention_mask=tokens["attention_mask"].to(self._device),
                pixel_values=pixels["pixel_values"].to(self._device),
            )
        # The embeddings come normalised.
        cosines = (out.image_embeds * out.text_embeds).sum(-1).double().cpu().tolist()
        return [
            Similarity(cosine, len(ids) > limit) for cosine, ids in zip(cosines, whole, strict=True)
        ]


def create(spec: str, options: ModelOptions) -> ClipJudge:
    """Raises MissingRequirementError for weights that are not on this machine, UsageError for a wrong name."""
    weights = find_weights(spec or HUB_ID, read_arguments(options.extra, _Arguments).revision)
    refuse_pickles(weights)
    return ClipJudge(weights, options.device)
