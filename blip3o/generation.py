"""Prompts and pictures -> image features -> pictures. Functions of explicit parts; the pipeline is their shell.

Dimension letters: B batch, Q queries, H hidden size, C feature channels, h and w grid, S picture side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from blip3o.backbone import PictureInputs
from blip3o.decoder import PixelDecoder
from blip3o.flow.sampler import AfterStep
from blip3o.inputs import InputBuilder
from blip3o.prompts import UNCONDITIONAL, VISION_BLOCK, Prompts, text_mark
from blip3o.settings import DrawSettings
from blip3o.unified import Blip3oModel

# The empty prompt's features are part of the model's behaviour, not of a picture: their noise is fixed.
NULL_SEED = 0


def encode_prompts(
    model: Blip3oModel,
    inputs: InputBuilder,
    prompts: Prompts,
    texts: Sequence[str],
    pictures: Sequence[Sequence[Image.Image]],
    size_px: int | None,
    device: torch.device,
) -> Tensor:
    """Query states (B, Q, H) of captions, or of instructions about pictures; equal prompts are read once.

    Args: pictures: those of each text; size_px: square that they are fitted into (None: the model's own setting).
    Raises: DataError for a prompt longer than the backbone reads.
    """
    keys = [(text, tuple(map(id, own))) for text, own in zip(texts, pictures, strict=True)]
    distinct = list(dict.fromkeys(keys))
    first = [keys.index(key) for key in distinct]
    rows = [
        inputs.encode(prompts.generation(text_mark(0), VISION_BLOCK * len(pictures[i])), [texts[i]])
        for i in first
    ]
    patches = inputs.patches([picture for i in first for picture in pictures[i]], size_px)
    rows = inputs.spread(rows, patches)
    inputs.check_length(rows, reserved=model.config.num_queries + 1)
    ids, mask = inputs.pad(rows, side="right")
    tensors: PictureInputs = {} if patches is None else patches.tensors(device, model.dtype)
    states = model.encode_condition(ids.to(device), mask.to(device), **tensors)
    return states[torch.tensor([distinct.index(key) for key in keys], device=states.device)]


def check_prompts(
    model: Blip3oModel,
    inputs: InputBuilder,
    prompts: Prompts,
    texts: Sequence[str],
    pictures: Sequence[Image.Image],
    size_px: int | None,
) -> None:
    """Raises: DataError, as ``encode_prompts`` does, for the first text that is too long together with ``pictures``."""
    patches = inputs.patches(pictures, size_px)
    block = VISION_BLOCK * len(pictures)
    rows = []
    for text in texts:
        rows += inputs.spread([inputs.encode(prompts.generation(text_mark(0), block), [text])], patches)
    inputs.check_length(rows, reserved=model.config.num_queries + 1)


def encode_empty_prompt(model: Blip3oModel, inputs: InputBuilder, device: torch.device) -> Tensor:
    """Query states (1, Q, H) of the raw text " ", which a latent decoder takes for "no prompt"."""
    ids, mask = inputs.pad([inputs.encode(UNCONDITIONAL, [])], side="right")
    return model.encode_condition(ids.to(device), mask.to(device))


def sample(
    model: Blip3oModel,
    condition: Tensor,
    generators: Sequence[torch.Generator],
    settings: DrawSettings,
    after_step: AfterStep | None = None,
) -> Tensor:
    """Image features (B, C, h, w) of query states (B, Q, H); one generator per row draws its noise.

    With ``compat`` released the noise is drawn in the model's precision, as upstream does.
    """
    is_half = model.dtype in (torch.float16, torch.bfloat16)
    noise = None
    if is_half and model.config.compat == "released":
        shape = model.feature_shape
        noise = torch.stack([torch.randn(shape, generator=g, dtype=model.dtype) for g in generators])
    return model.sample_features(
        condition,
        generators=generators,
        noise=noise,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        after_step=after_step,
    )


def decode(
    decoder: PixelDecoder,
    features: Tensor,
    generators: Sequence[torch.Generator],
    settings: DrawSettings,
    null_features: Tensor | None,
) -> Tensor:
    """Pictures (B, 3, S, S) in [0, 1]; the generators go on where the features' noise ended."""
    return decoder.decode(
        features,
        generators=generators,
        num_inference_steps=settings.decoder_steps,
        guidance_scale=settings.decoder_guidance_scale,
        null_features=null_features,
    )
