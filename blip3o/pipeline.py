"""The public face: text to image, image to image, questions about images.

Dimension letters: B batch, L tokens, Q queries, H hidden size, C feature channels, h and w grid, S picture side.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from blip3o.card import CARD_NAME, PipelineCard, Understanding, write_digests
from blip3o.config import Compat, build_part
from blip3o.decoder import PixelDecoder
from blip3o.errors import ConfigError, DataError, WeightsError
from blip3o.loading import load_parts
from blip3o.locate import find_folder
from blip3o.presets import build_tiny
from blip3o.prompts import RECONSTRUCT, UNCONDITIONAL, Prompts, without_special_tokens
from blip3o.storage import make_readable, quiet_transformers, write_json
from blip3o.unified import Blip3oModel
from blip3o.vision.preprocess import (
    fit_square,
    normalise,
    qwen_patches,
    qwen_size,
    to_images,
    to_rgb,
    to_unit_tensor,
)

IMAGE_PAD = "<|image_pad|>"
VISION_BLOCK = f"<|vision_start|>{IMAGE_PAD}<|vision_end|>"
# The empty prompt's features are part of the model's behaviour, not of a picture: their noise is fixed.
NULL_SEED = 0

Pictures = Image.Image | Sequence[Image.Image] | None


@dataclass
class PipelineOutput:
    """``images``: PIL pictures, prompt by prompt; ``features`` (B, C, h, w) they were decoded from."""

    images: list[Image.Image]
    features: Tensor


class Blip3oPipeline:
    """Backbone, queries and diffusion transformer with tokenizer and pixel decoder.

    Args: decoder may be None; then the pipeline answers questions but makes no pictures.
    """

    def __init__(
        self,
        model: Blip3oModel,
        tokenizer: PreTrainedTokenizerBase,
        decoder: PixelDecoder | None,
        card: PipelineCard = PipelineCard(),  # noqa: B008 (frozen)
    ) -> None:
        self.model, self.tokenizer, self.decoder, self.card = model.eval(), tokenizer, decoder, card
        self.prompts = build_part(Prompts, card.prompts, "prompts")
        self.understanding = build_part(Understanding, card.understanding, "understanding")
        if model.config.compat == "released":
            self.prompts = replace(self.prompts, is_closed=False)
        self._null_features: Tensor | None = None
        self._special_tokens = sorted(
            {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}, key=len, reverse=True
        )

    # Loading and saving

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        compat: Compat | None = None,
        revision: str | None = None,
        device_map: Any = None,
        max_memory: dict[Any, Any] | None = None,
        offload_folder: str | Path | None = None,
    ) -> Blip3oPipeline:
        """Load a folder, a preset (``nano``, ``tiny``, ``blip3o-4b``, ...) or a hub id.

        Hub ids are looked up on this machine only.

        Args:
            dtype: precision of the weights (default: the card's, else float32; released models float16).
            device: where all parts go; or device_map, max_memory and offload_folder, as in transformers, to spread a
                large model over devices, memory and disk.
            compat: ``released`` repeats the released inference code's choices.
        Raises: WeightsError, ConfigError.
        """
        if device is not None and device_map is not None:
            raise ConfigError(f"give device ({device}) or device_map ({device_map}), not both")
        if str(source) == "tiny":
            pipeline = build_tiny()
            if compat is not None:
                pipeline.model.config.compat = compat
                pipeline = cls(pipeline.model, pipeline.tokenizer, pipeline.decoder, pipeline.card)
        else:
            parts = load_parts(
                find_folder(source, revision), dtype=dtype, compat=compat, device_map=device_map,
                max_memory=max_memory, offload_folder=offload_folder,
            )  # fmt: skip
            pipeline = cls(parts.model, parts.tokenizer, parts.decoder, parts.card)
            if parts.is_dispatched and isinstance(parts.decoder, nn.Module):
                parts.decoder.to(pipeline.device)
        if dtype is not None and device_map is None:
            pipeline.to(dtype)
        return pipeline if device is None else pipeline.to(device)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write model, tokenizer, decoder, card and digests; ``dtype`` (float16) halves the files."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            name: tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
            for name, tensor in self.model.state_dict().items()
        }
        with quiet_transformers():
            self.model.save_pretrained(folder, state_dict=state)
            self.tokenizer.save_pretrained(folder)
        make_readable(folder)
        if self.decoder is not None:
            self.decoder.save_pretrained(folder / "decoder", dtype)
        flow, size = self.model.config.flow, self.image_size
        write_json(
            folder / CARD_NAME,
            {
                **asdict(self.card),
                "format": 1,
                "prompts": self.prompts.to_dict(),
                "understanding": asdict(self.understanding),
                "num_inference_steps": flow.num_inference_steps,
                "guidance_scale": flow.guidance_scale,
                "height": size,
                "width": size,
                "compat": self.model.config.compat,
            },
        )
        write_digests(folder)

    def to(self, target: str | torch.device | torch.dtype) -> Blip3oPipeline:
        """Move all parts to a device or a precision."""
        self.model.to(target)
        if isinstance(self.decoder, nn.Module):
            # An SDXL-type VAE overflows in float16; its weights were published in bfloat16.
            is_latent = (
                target is torch.float16 and getattr(self.decoder, "kind", "") == "latent_unet"
            )
            self.decoder.to(torch.bfloat16 if is_latent else target)
        self._null_features = None
        return self

    @property
    def device(self) -> torch.device:
        """Where inputs go; for a model spread over devices the one that runs its first layers."""
        return self.model.execution_device

    @property
    def image_size(self) -> int | None:
        """Side of the pictures in pixels; None where only the decoder's weights know it."""
        return getattr(getattr(self.decoder, "config", None), "image_size", None)

    # Generation

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        image: Pictures = None,
        *,
        num_images_per_prompt: int = 1,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        decoder_steps: int | None = None,
        decoder_guidance_scale: float | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> PipelineOutput:
        """Pictures for prompts.

        Args:
            prompt: one caption or several. With ``image``, instructions to change or repeat it.
            image: one input picture per prompt, or one for all.
            generator: one CPU generator per picture (prompt by prompt), which then draws all of its noise;
                or a single one, from which a seed per picture is drawn; None draws new seeds.
            guidance_scale, num_inference_steps: of the diffusion transformer; ``decoder_*`` of the pixel
                decoder. Default: the model's own.
            height, width: must be the model's picture size, if given.
        Raises: ConfigError, DataError, WeightsError if the pipeline has no decoder.
        """
        if self.decoder is None:
            raise WeightsError(
                "this model has no pixel decoder (folder decoder/), so it makes no pictures"
            )
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts or not all(isinstance(p, str) for p in prompts):
            raise DataError("prompt must be a text or a list of texts, and not empty")
        if num_images_per_prompt < 1:
            raise ConfigError(
                f"num_images_per_prompt must be at least 1, got {num_images_per_prompt}"
            )
        for name, value in (("height", height), ("width", width)):
            if value is not None and self.image_size is not None and value != self.image_size:
                raise ConfigError(
                    f"{name} must be {self.image_size}, the size this model draws; got {value}"
                )
        generators = per_picture_generators(generator, len(prompts) * num_images_per_prompt)
        pictures = self._one_per_prompt(image, len(prompts))
        condition = self._conditions(prompts, pictures).repeat_interleave(
            num_images_per_prompt, dim=0
        )
        features = self.model.sample_features(
            condition,
            generators=generators,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
        )
        decoded = self.decoder.decode(
            features,
            generators=generators,
            num_inference_steps=decoder_steps,
            guidance_scale=decoder_guidance_scale,
            null_features=self._empty_prompt_features(decoder_guidance_scale),
        )
        return PipelineOutput(to_images(decoded), features)

    def reconstruct(self, image: Pictures, **settings: Any) -> PipelineOutput:
        """Pictures again, through the backbone's eyes; settings as in a call."""
        pictures = [image] if isinstance(image, Image.Image) else list(image or [])
        return self([RECONSTRUCT] * len(pictures), pictures, **settings)

    def _one_per_prompt(self, image: Pictures, count: int) -> list[Image.Image] | None:
        if image is None:
            return None
        pictures = [image] * count if isinstance(image, Image.Image) else list(image)
        if len(pictures) != count:
            raise DataError(f"{count} prompts need as many input pictures, got {len(pictures)}")
        return pictures

    def _conditions(self, prompts: list[str], pictures: list[Image.Image] | None) -> Tensor:
        """Query states (B, Q, H); equal prompts go through the backbone once."""
        keys = [(text, id(pictures[i]) if pictures else 0) for i, text in enumerate(prompts)]
        distinct = list(dict.fromkeys(keys))
        rows = [keys.index(key) for key in distinct]
        block = VISION_BLOCK if pictures else ""
        texts = [self.prompts.generation(self.plain(prompts[row]), block) for row in rows]
        inputs: dict[str, Tensor] = {}
        if pictures:
            size = self.card.reconstruction_size_px
            texts, inputs = self._with_pictures(texts, [pictures[row] for row in rows], size)
        ids, mask = self._tokenise(texts, side="right")
        states = self.model.encode_condition(ids, mask, **inputs)
        return states[torch.tensor([distinct.index(key) for key in keys], device=states.device)]

    def _empty_prompt_features(self, guidance_scale: float | None) -> Tensor | None:
        """Features of the raw text " ", which the latent decoder takes for "no prompt"; made once."""
        if getattr(self.decoder, "kind", "") != "latent_unet" or guidance_scale == 1.0:
            return None
        if self._null_features is None:
            ids, mask = self._tokenise([UNCONDITIONAL], side="right")
            generator = torch.Generator("cpu").manual_seed(NULL_SEED)
            self._null_features = self.model.sample_features(
                self.model.encode_condition(ids, mask), generators=[generator]
            )
        return self._null_features

    # Understanding

    def ask(self, image: Pictures, question: str, *, max_new_tokens: int | None = None) -> str:
        """Answer a question about a picture, several, or none. Greedy."""
        return self.ask_batch([image], [question], max_new_tokens=max_new_tokens)[0]

    @torch.no_grad()
    def ask_batch(
        self,
        images: Sequence[Pictures],
        questions: Sequence[str],
        *,
        max_new_tokens: int | None = None,
    ) -> list[str]:
        """One answer per question; ``images[i]`` are the pictures of ``questions[i]``."""
        if len(images) != len(questions):
            raise DataError(
                f"{len(questions)} questions need as many picture entries, got {len(images)}"
            )
        texts, pictures = [], []
        for entry, question in zip(images, questions, strict=True):
            own = (
                [] if entry is None else [entry] if isinstance(entry, Image.Image) else list(entry)
            )
            pictures += own
            content: list[dict[str, str]] = [{"type": "image"} for _ in own]
            content.append({"type": "text", "text": self.plain(question)})
            messages = [
                {"role": "system", "content": [{"type": "text", "text": self.prompts.system}]},
                {"role": "user", "content": content},
            ]
            texts.append(
                self.tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True
                )
            )
        inputs: dict[str, Tensor] = {}
        if pictures:
            texts, inputs = self._with_pictures(texts, pictures)
        ids, mask = self._tokenise(texts, side="left")
        with quiet_transformers():
            new = self.model.backbone.generate(
                ids,
                mask,
                **inputs,
                max_new_tokens=max_new_tokens or 128,
                do_sample=False,
                eos_token_id=self.tokenizer.eos_token_id,
                pad_token_id=self._pad_id,
            )
        return [text.strip() for text in self.tokenizer.batch_decode(new, skip_special_tokens=True)]

    # Text and pictures -> tensors

    def plain(self, text: str) -> str:
        """User text that cannot act as special tokens."""
        return without_special_tokens(text, self._special_tokens)

    @property
    def _pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def _tokenise(self, texts: list[str], side: str) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, L), padded on ``side``."""
        rows = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        longest = max(len(row) for row in rows)
        ids = torch.full((len(rows), longest), self._pad_id)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            place = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
            ids[i, place], mask[i, place] = torch.tensor(row), 1
        return ids.to(self.device), mask.to(self.device)

    def _with_pictures(
        self, texts: list[str], pictures: list[Image.Image], size_px: int | None = None
    ) -> tuple[list[str], dict[str, Tensor]]:
        """Texts with one placeholder token per merged patch, and the patches of all pictures in order."""
        vision, settings = self.model.backbone.vision_config, self.understanding
        factor = vision.patch_size * vision.spatial_merge_size
        rows, grids = [], []
        for picture in pictures:
            side = size_px or settings.size_px
            if side is not None:
                fitted = fit_square(picture, side, settings.fit)
            else:
                picture = to_rgb(picture)
                target = qwen_size(*picture.size, factor, settings.min_pixels, settings.max_pixels)
                fitted = picture.resize(target, Image.Resampling.BICUBIC)
            tensor = normalise(to_unit_tensor([fitted]), settings.mean, settings.std)
            patches, grid = qwen_patches(
                tensor, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
            )
            rows.append(patches)
            grids.append(grid)
        counts = iter([int(grid.prod()) // vision.spatial_merge_size**2 for grid in grids])
        texts = [
            re.sub(re.escape(IMAGE_PAD), lambda _: IMAGE_PAD * next(counts), text) for text in texts
        ]
        inputs = {
            "pixel_values": torch.cat(rows).to(self.device, self.model.dtype),
            "image_grid_thw": torch.cat(grids).to(self.device),
        }
        return texts, inputs


def per_picture_generators(
    generator: torch.Generator | Sequence[torch.Generator] | None, count: int
) -> list[torch.Generator]:
    """One CPU generator per picture.

    From a single generator a seed per picture is drawn, so that picture k is the same however many are made.
    Raises: ConfigError.
    """
    if isinstance(generator, Sequence):
        if len(generator) != count:
            raise ConfigError(f"{count} pictures need one generator each, got {len(generator)}")
        return list(generator)
    if generator is None:
        generator = torch.Generator("cpu")
        generator.seed()
    if generator.device.type != "cpu":
        raise ConfigError(
            f"noise is drawn on the CPU, got a generator on {generator.device}; "
            "use torch.Generator('cpu').manual_seed(seed)"
        )
    seeds = [int(torch.randint(2**62, (), generator=generator)) for _ in range(count)]
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
