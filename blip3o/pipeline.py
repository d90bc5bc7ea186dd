"""The public face: every mode of a BLIP3-o in one object.

    pipe = Blip3oPipeline.from_pretrained("nano")
    pipe("a photo of a dog").images[0]                   # text to image
    pipe.edit(picture, "make the dog red").images[0]     # image and instruction to image
    pipe.ask(picture, "Is there a dog?")                 # image to text; ask(None, ...): text to text
    pipe.reconstruct(picture).images[0]                  # target encoder -> pixel decoder
    pipe.chat()                                          # a conversation that mixes all of it

What each mode computes is in ``generation``, ``answering`` and ``dialogue``; devices, files and the hub are in
``pipeline_base``. Dimension letters: B batch, Q queries, H hidden size, C feature channels, h and w grid, S side.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from blip3o import generation
from blip3o.answering import Answers, Batching, ChoiceScores, Question, Sampling
from blip3o.answering.questions import checked_choices, limits_of, stops_of
from blip3o.card import PipelineCard, Understanding, write_digests
from blip3o.config import Compat, build_part, check_compat
from blip3o.decoder import PixelDecoder
from blip3o.dialogue import SEED, Dialogue
from blip3o.errors import ConfigError, DataError, WeightsError
from blip3o.inputs import InputBuilder, Pictures, checked_texts, pictures_per_text
from blip3o.loading import load_parts
from blip3o.locate import find_folder
from blip3o.pipeline_base import TARGET_FOLDER, PipelineBase, StepCallback
from blip3o.presets import build_tiny, is_random
from blip3o.prompts import RECONSTRUCT, Prompts
from blip3o.settings import (
    DrawSettings,
    OutputType,
    check_count,
    check_output_type,
    per_picture_generators,
)
from blip3o.unified import Blip3oModel
from blip3o.vision.preprocess import to_images
from blip3o.vision.targets import Target

__all__ = [
    "Blip3oPipeline",
    "PipelineCard",
    "PipelineOutput",
    "Understanding",
    "find_folder",
    "write_digests",
]

logger = logging.getLogger(__name__)


@dataclass
class PipelineOutput(BaseOutput):
    """``images``, prompt by prompt: PIL pictures, or float32 in [0, 1] as NumPy (B, S, S, 3) or tensor (B, 3, S, S);
    the features with ``output_type="latent"``. ``features`` (B, C, h, w), float32: what they were decoded from."""

    images: Any
    features: Tensor


class Blip3oPipeline(PipelineBase):
    """Backbone, queries and generator with tokenizer and pixel decoder.

    Args: decoder may be None; then the pipeline answers questions but makes no pictures.
        target_encoder: what ``reconstruct`` looks through; None if it is not at hand.
    """

    def __init__(
        self,
        model: Blip3oModel,
        tokenizer: PreTrainedTokenizerBase,
        decoder: PixelDecoder | None,
        card: PipelineCard = PipelineCard(),  # noqa: B008 (frozen)
        target_encoder: Target | None = None,
    ) -> None:
        self.model, self.tokenizer, self.decoder, self.card = model.eval(), tokenizer, decoder, card
        self.prompts = build_part(Prompts, card.prompts, "prompts")
        self.understanding = build_part(Understanding, card.understanding, "understanding")
        if model.config.compat == "released":
            self.prompts = replace(self.prompts, is_closed=False)
        backbone = model.config.backbone_config
        self.inputs = InputBuilder(
            tokenizer,
            self.understanding,
            getattr(model.backbone, "vision_config", None),
            (backbone.get("text_config") or backbone).get("max_position_embeddings"),
        )
        self._answers = Answers(
            model, self.inputs, self.prompts, lambda: self.use_part("backbone")
        )
        self._target = target_encoder

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
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        torch_dtype: torch.dtype | None = None,
    ) -> Blip3oPipeline:
        """Load a folder, a preset (``nano``, ``tiny``, ``blip3o-4b``, ...) or a hub id.

        Hub ids are looked up on this machine only.

        Args:
            dtype: precision of the weights (default: the card's, else float32; released models float16); torch_dtype is
                diffusers' name for it.
            device: where all parts go; or device_map, max_memory and offload_folder, as in transformers, to spread a
                large model over devices, memory and disk.
            compat: ``released`` repeats the released inference code's choices.
            min_pixels, max_pixels: between which pictures are read near their own size (default: the card's); one
                merged patch of 28 x 28 px is a token of Qwen2.5-VL.
        Raises: WeightsError, ConfigError.
        """
        if dtype is not None and torch_dtype is not None:
            raise ConfigError(f"give dtype ({dtype}) or torch_dtype ({torch_dtype}), not both")
        dtype = torch_dtype if dtype is None else dtype
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ConfigError(f"dtype must be torch.float32, torch.float16 or torch.bfloat16, got {dtype!r}")
        if compat is not None:
            check_compat(compat)
        if device is not None and device_map is not None:
            raise ConfigError(f"give device ({device}) or device_map ({device_map}), not both")
        if is_random(str(source)):
            pipeline = build_tiny(name=str(source))
            if compat is not None:
                pipeline.model.config.compat = compat
                pipeline = cls(pipeline.model, pipeline.tokenizer, pipeline.decoder, pipeline.card)
        else:
            folder = find_folder(source, revision)
            parts = load_parts(
                folder, dtype=dtype, compat=compat, device_map=device_map,
                max_memory=max_memory, offload_folder=offload_folder,
            )  # fmt: skip
            pipeline = cls(parts.model, parts.tokenizer, parts.decoder, parts.card)
            if (folder / TARGET_FOLDER).is_dir():
                pipeline._target_source = folder / TARGET_FOLDER
            if parts.is_dispatched and parts.decoder is not None:
                parts.decoder.to(pipeline.device)
            pipeline._is_dispatched = parts.is_dispatched
        pipeline.set_pixels(min_pixels, max_pixels)
        if dtype is not None and device_map is None:
            pipeline.to(dtype)
        return pipeline if device is None else pipeline.to(device)

    def set_pixels(self, min_pixels: int | None = None, max_pixels: int | None = None) -> None:
        """Read pictures with another budget of pixels; None keeps a bound. Raises: ConfigError."""
        self.understanding = self.understanding.resized(min_pixels, max_pixels)
        self.inputs.understanding = self.understanding

    # Pictures

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        image: Pictures | Sequence[Pictures] = None,
        *,
        num_images_per_prompt: int = 1,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        decoder_steps: int | None = None,
        decoder_guidance_scale: float | None = None,
        height: int | None = None,
        width: int | None = None,
        output_type: OutputType = "pil",
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        return_dict: bool = True,
    ) -> PipelineOutput:
        """Pictures for prompts.

        Args:
            prompt: one caption or several. With ``image``, instructions to change or repeat it.
            image: one input picture for all prompts, or a list with one per prompt; an entry that is itself a list
                gives its prompt several.
            num_images_per_prompt: pictures of each prompt, which is read once for all of them.
            generator: one CPU generator per picture (prompt by prompt), which then draws all of its noise;
                or a single one, from which a seed per picture is drawn; None draws new seeds.
            guidance_scale, num_inference_steps: of the generator (guidance 1 switches it off); ``decoder_*`` of the
                pixel decoder. Default: the model's own.
            height, width: pixels; must be the model's picture size, if given.
            output_type: ``pil``, ``np``, ``pt``, or ``latent`` for the image features without decoding them.
            callback_on_step_end: called after each sampling step as (pipeline, step, timestep in 0..1000, dict) with
                the tensors named in ``callback_on_step_end_tensor_inputs``; a dict that it returns replaces them.
            return_dict: False gives the tuple (images, features), as in diffusers.
        Returns: PipelineOutput.
        Raises: ConfigError for a setting, DataError for a prompt or picture, WeightsError if the loaded parts cannot
            do it. Source: arXiv:2505.09568; sampling as in JiuhaiChen/BLIP3o at 4689ec3.
        """
        check_output_type(output_type)
        if output_type != "latent":
            self.require_decoder()
        settings = DrawSettings(
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            decoder_steps=decoder_steps,
            decoder_guidance_scale=decoder_guidance_scale,
        )
        check_count("num_images_per_prompt", num_images_per_prompt)
        self._check_size(height, width)
        texts = checked_texts(prompt, "prompt")
        generators = per_picture_generators(generator, len(texts) * num_images_per_prompt)
        pictures = pictures_per_text(image, len(texts), "image")
        device = self.use_part("backbone")
        condition = generation.encode_prompts(
            self.model,
            self.inputs,
            self.prompts,
            texts,
            pictures,
            self.card.reconstruction_size_px,
            device,
        ).repeat_interleave(num_images_per_prompt, dim=0)
        output = self._draw(
            condition,
            generators,
            settings,
            output_type,
            callback_on_step_end,
            callback_on_step_end_tensor_inputs,
        )
        return output if return_dict else output.to_tuple()  # type: ignore[return-value]

    def edit(
        self, image: Pictures | Sequence[Pictures], instruction: str | Sequence[str], **settings: Any
    ) -> PipelineOutput:
        """Pictures changed by instructions ("make the dog red"); arguments and errors as in a call.

        A model that was not trained for it still runs, with a warning: ``card.modes`` says what it learned.
        """
        texts = checked_texts(instruction, "instruction")
        entries = pictures_per_text(image, len(texts), "image")
        for number, own in enumerate(entries):
            if not own:
                raise DataError(f"instruction {number} has no picture to change; give one")
        if self.card.modes and "edit" not in self.card.modes:
            logger.warning(
                "this model was not trained to edit (it learned %s); expect a picture of its own",
                ", ".join(self.card.modes),
            )
        return self(texts, entries, **settings)

    def reconstruct(
        self,
        image: Image.Image | Sequence[Image.Image],
        *,
        through: Literal["target_encoder", "backbone"] = "target_encoder",
        **settings: Any,
    ) -> PipelineOutput:
        """Pictures again.

        ``target_encoder``: its features straight into the pixel decoder, the best that the generator could reach.
        ``backbone``: the model is shown the picture and asked to repeat it; settings as in a call.
        Args: generator, decoder_steps, decoder_guidance_scale, output_type: as in a call.
        Raises: WeightsError if the loaded parts lack the encoder or the decoder.
        """
        pictures = [image] if isinstance(image, Image.Image) else image
        if not pictures:
            raise DataError("there is no picture to reconstruct; give one or a list")
        entries = [own[0] for own in pictures_per_text(pictures, len(pictures), "image")]
        if through == "backbone":
            return self([RECONSTRUCT] * len(entries), entries, **settings)
        if through != "target_encoder":
            raise ConfigError(f"through {through!r} is unknown; choose target_encoder or backbone")
        return self._reconstruct(entries, **settings)

    @torch.no_grad()
    def _reconstruct(
        self,
        pictures: list[Image.Image],
        *,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        decoder_steps: int | None = None,
        decoder_guidance_scale: float | None = None,
        output_type: OutputType = "pil",
    ) -> PipelineOutput:
        check_output_type(output_type)
        self.require_decoder()
        target = self.target_encoder
        if target is None:
            raise WeightsError(
                f"this model's target encoder (folder {TARGET_FOLDER}/) is not loaded, so it cannot reconstruct "
                "through it; through='backbone' asks the model itself"
            )
        settings = DrawSettings(
            decoder_steps=decoder_steps, decoder_guidance_scale=decoder_guidance_scale
        )
        generators = per_picture_generators(generator, len(pictures))
        self.use_part("target")
        features = target.encode(pictures).float()
        return self._decode(features, generators, settings, output_type)

    def draw(
        self,
        condition: Tensor,
        generators: Sequence[torch.Generator],
        *,
        output_type: OutputType = "pil",
        callback_on_step_end: StepCallback | None = None,
        **settings: Any,
    ) -> PipelineOutput:
        """Pictures of query states (B, Q, H), one generator each: the second half of a call."""
        check_output_type(output_type)
        try:
            wanted = DrawSettings(**settings)
        except TypeError as error:
            raise ConfigError(f"unknown setting of a picture ({error})") from None
        return self._draw(
            condition, generators, wanted, output_type, callback_on_step_end, ("latents",)
        )

    @torch.no_grad()
    def _draw(
        self,
        condition: Tensor,
        generators: Sequence[torch.Generator],
        settings: DrawSettings,
        output_type: OutputType,
        callback: StepCallback | None,
        tensor_inputs: Sequence[str],
    ) -> PipelineOutput:
        self.use_part("generator")
        steps = settings.num_inference_steps or self.model.config.flow.num_inference_steps
        with self.progress_bar(total=steps) as bar:
            hook = self._step_hook(callback, tensor_inputs, bar)
            features = generation.sample(self.model, condition, generators, settings, hook)
        if output_type == "latent":
            return PipelineOutput(features, features)
        return self._decode(features, generators, settings, output_type)

    def _decode(
        self,
        features: Tensor,
        generators: Sequence[torch.Generator],
        settings: DrawSettings,
        output_type: OutputType,
    ) -> PipelineOutput:
        null = self._empty_prompt_features(settings, generators[0])
        self.use_part("decoder")
        decoder = self.require_decoder()
        pictures = generation.decode(decoder, features, generators, settings, null)
        return PipelineOutput(_as_output(pictures, features, output_type), features)

    def _empty_prompt_features(
        self, settings: DrawSettings, first: torch.Generator
    ) -> Tensor | None:
        """Features (1, C, h, w) of the raw text " ", which the latent decoder takes for "no prompt"; made once.

        Their noise has a fixed seed. The released code draws it from the stream of the first picture of a process,
        between that picture's own draws, so that what a seed means depends on which picture came first; ``compat``
        released repeats that.
        """
        if not self.require_decoder().needs_null_features or settings.decoder_guidance_scale == 1.0:
            return None
        if self._null_features is None:
            is_released = self.model.config.compat == "released"
            generator = first if is_released else torch.Generator("cpu").manual_seed(generation.NULL_SEED)
            device = self.use_part("backbone")
            condition = generation.encode_empty_prompt(self.model, self.inputs, device)
            self.use_part("generator")
            self._null_features = generation.sample(
                self.model, condition, [generator], DrawSettings()
            )
        return self._null_features

    def _check_size(self, height: int | None, width: int | None) -> None:
        for name, value in (("height", height), ("width", width)):
            if value is not None and self.image_size is not None and value != self.image_size:
                raise ConfigError(
                    f"{name} must be {self.image_size}, the size this model draws; got {value}"
                )

    # Text

    def ask(self, image: Pictures, question: str, *, max_new_tokens: int | None = None) -> str:
        """Answer a question about a picture, several, or none (text to text). Greedy."""
        return self.ask_batch([image], [question], max_new_tokens=max_new_tokens)[0]

    def ask_batch(
        self,
        images: Sequence[Pictures],
        questions: Sequence[str],
        *,
        max_new_tokens: int | Sequence[int | None] | None = None,
        stop: Sequence[str] | Sequence[Sequence[str]] = (),
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        batch_size: int | Literal["auto"] = "auto",
        share_pictures: bool = True,
        by_length: bool = True,
    ) -> list[str]:
        """One answer per question; ``images[i]`` are the pictures of ``questions[i]``, None for none.

        Args:
            max_new_tokens: longest answer, in tokens (default 128), of all or of each.
            stop: texts before which an answer ends, for all, or one such list per question.
            temperature: 0 takes the likeliest token; above, tokens are drawn, within ``top_k`` and ``top_p``.
            generator: one CPU generator per question, which draws all of its answer; or a single one, from which a
                seed per question is drawn; None draws new seeds. Unused at temperature 0.
            batch_size: questions read at once; ``auto`` fills the memory that is free. Halved when it runs out.
            share_pictures: questions about the same pictures (by their pixels) read them once.
            by_length: questions of similar length are read together.
        Raises: DataError for a question or picture, ConfigError for a setting, WeightsError for pictures where the
            backbone reads text only.
        """
        sampling = Sampling(temperature=temperature, top_p=top_p, top_k=top_k)
        batching = Batching(size=batch_size, shares_pictures=share_pictures, by_length=by_length)
        asked = self._questions(images, questions)
        limits, stops = limits_of(max_new_tokens, len(asked)), stops_of(stop, len(asked))
        generators: Sequence[torch.Generator | None] = [None] * len(asked)
        if not sampling.is_greedy:
            generators = per_picture_generators(generator, len(asked), "questions")
        rows = [
            replace(one, max_new_tokens=limit, stop=ends, generator=own)
            for one, limit, ends, own in zip(asked, limits, stops, generators, strict=True)
        ]
        return self._answers.answer(rows, sampling, batching)

    def score_choices(
        self,
        images: Sequence[Pictures],
        questions: Sequence[str],
        choices: Sequence[str] | Sequence[Sequence[str]],
        *,
        batch_size: int | Literal["auto"] = "auto",
        share_pictures: bool = True,
        by_length: bool = True,
    ) -> list[ChoiceScores]:
        """How likely each choice is as the beginning of the answer: log-likelihoods, summed over its tokens.

        Args: choices: texts for all questions, or one list of them per question; other arguments as in ``ask_batch``.
        Raises: as ``ask_batch``.
        """
        batching = Batching(size=batch_size, shares_pictures=share_pictures, by_length=by_length)
        asked = self._questions(images, questions)
        return self._answers.score(asked, checked_choices(choices, len(asked)), batching)

    def _questions(
        self, images: Sequence[Pictures], questions: Sequence[str]
    ) -> list[Question]:
        """Checked. Raises: DataError."""
        texts = checked_texts(questions, "question")
        if isinstance(images, Image.Image) or len(images) != len(texts):
            got = "one picture" if isinstance(images, Image.Image) else len(images)
            raise DataError(f"{len(texts)} questions need as many picture entries, got {got}")
        pictures = pictures_per_text(images, len(texts), "images")
        return [Question(text, own) for text, own in zip(texts, pictures, strict=True)]

    def chat(self, *, seed: int = SEED, use_cache: bool = True) -> Dialogue:
        """A conversation of many turns in text and pictures; see ``Dialogue``."""
        return Dialogue(self, seed=seed, use_cache=use_cache)


def _as_output(pictures: Tensor, features: Tensor, output_type: OutputType) -> Any:
    """(B, 3, S, S) in [0, 1] in the form that was asked for."""
    if output_type == "pil":
        return to_images(pictures)
    pictures = pictures.float().clamp(0, 1)
    if output_type == "pt":
        return pictures
    array: np.ndarray = pictures.permute(0, 2, 3, 1).cpu().numpy()
    return array
