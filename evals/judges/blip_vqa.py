"""BLIP-VQA as judge: a small vision-language model that answers questions about photographs in free text.

Model: Li et al., BLIP, arXiv:2201.12086; weights `Salesforce/blip-vqa-capfilt-large` (BSD-3-Clause) through
transformers. Answers are generated as in its evaluation (salesforce/BLIP, configs/vqa.yaml and models/blip_vqa.py):
three beams, at most ten tokens. They are handed on as they are; DPG-Bench counts "yes" and nothing else.

Each picture goes through the vision tower once for all its questions. Questions of equal length share a forward pass:
transformers (5.23) does not mask the padding of questions where the decoder attends to them, so a padded question gets
another answer than the same question alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from evals.api import Identity, ModelOptions
from evals.errors import JudgeError, MissingRequirementError, UsageError, shown, suggest
from evals.io.digests import folder_digest
from evals.judges.pairs import unique_pictures

HUB_ID = "Salesforce/blip-vqa-capfilt-large"
PICTURES, QUESTIONS = 16, 64
"""Most pictures, and questions, of one forward pass; results do not depend on them."""
_DIGESTED = (".safetensors", ".json", ".txt")
_DTYPES = ("float32", "float16", "bfloat16")
T = TypeVar("T")


@dataclass(frozen=True)
class _Arguments:
    dtype: str = "float32"
    num_beams: int = 3
    max_new_tokens: int = 10
    revision: str | None = None


def create(spec: str, options: ModelOptions) -> BlipVqaJudge:
    """Factory for `--judge blip-vqa`, `blip-vqa:FOLDER` or `blip-vqa:owner/name`; `--set judge.args.X=...`."""
    from evals.models.hub import local_snapshot

    arguments = _read(options.extra)
    name = spec or HUB_ID
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if name.startswith((".", "/", "~")) or name.count("/") != 1:
            raise UsageError(f"judge folder {shown(name)} does not exist: give a folder or a hub id")
        folder = local_snapshot(name, arguments.revision)
    elif arguments.revision is not None:
        raise UsageError(f"judge folder {name} has no revisions, got {shown(arguments.revision)}")
    if not any(folder.glob("*.safetensors")):
        raise MissingRequirementError(
            f"judge folder {folder} has no .safetensors file: other formats can run code and are not read"
        )
    return BlipVqaJudge(folder, spec or "", options.device, arguments)


def _read(extra: Mapping[str, Any]) -> _Arguments:
    known = {"dtype": str, "num_beams": int, "max_new_tokens": int, "revision": str}
    for key, value in extra.items():
        if key not in known:
            raise UsageError(f"unknown key {shown(f'judge.args.{key}')}.{suggest(key, known)}")
        if type(value) is not known[key] or (known[key] is int and not 1 <= value <= 100):
            kind = "a whole number from 1 to 100" if known[key] is int else "a text"
            raise UsageError(f"judge.args.{key} = {shown(value)}: give {kind}")
    arguments = _Arguments(**extra)
    if arguments.dtype not in _DTYPES:
        raise UsageError(f"judge.args.dtype = {shown(arguments.dtype)}: give one of {', '.join(_DTYPES)}")
    return arguments


class BlipVqaJudge:
    """`evals.api.QuestionJudge` around transformers' BlipForQuestionAnswering."""

    def __init__(self, folder: Path, spec: str, device: str, arguments: _Arguments) -> None:
        self._folder, self._wanted_device, self._arguments = folder, device, arguments
        self._model: Any = None
        self._tokenizer: Any = None
        self._image_processor: Any = None
        label = f"blip-vqa:{spec if spec.count('/') == 1 else folder.name}" if spec else "blip-vqa"
        self.identity = Identity(
            name=label,
            version="1",
            digest=folder_digest(folder, _DIGESTED),
            domain="photos",
            settings={
                "dtype": arguments.dtype,
                "num_beams": arguments.num_beams,
                "max_new_tokens": arguments.max_new_tokens,
                "revision": arguments.revision,
            },
            batch_size=8,
        )

    def load(self) -> None:
        """Build the network. Raises JudgeError for weights that do not fit."""
        import torch
        from safetensors import SafetensorError
        from transformers import AutoTokenizer, BlipForQuestionAnswering, BlipImageProcessorPil

        from evals.models.devices import resolve_device

        self._device = resolve_device(self._wanted_device)
        local: dict[str, Any] = {"local_files_only": True}
        try:
            model, report = BlipForQuestionAnswering.from_pretrained(
                self._folder,
                dtype=getattr(torch, self._arguments.dtype),
                use_safetensors=True,
                output_loading_info=True,
                **local,
            )
            self._tokenizer = AutoTokenizer.from_pretrained(self._folder, trust_remote_code=False, **local)
            self._image_processor = BlipImageProcessorPil.from_pretrained(self._folder, **local)
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            line = " ".join(str(error).split())[:200]
            raise JudgeError(f"judge {self.identity.name!r} cannot be loaded from {self._folder}: {line}") from error
        missing = sorted(report["missing_keys"])
        if missing:
            raise JudgeError(
                f"judge {self.identity.name!r}: {self._folder} lacks {len(missing)} weights, the first is {missing[0]}"
            )
        self._model = model.to(self._device).eval()

    def close(self) -> None:
        self._model = self._tokenizer = self._image_processor = None

    def accuracy(self) -> Mapping[str, Any]:
        """Nobody has published how often it agrees with DPG-Bench's own judge."""
        return {}

    def ask(self, images: Sequence[Any], questions: Sequence[str]) -> Sequence[str]:
        """The generated text per (picture, question), lower case as the tokenizer writes it."""
        import torch

        if self._model is None:
            self.load()
        pictures, numbers = unique_pictures(images, questions)
        with torch.inference_mode():
            features = [row for part in _chunks(pictures, PICTURES) for row in self._see(part)]
            tokens = self._tokenizer(
                [str(question) for question in questions],
                truncation=True,
                max_length=self._model.config.text_config.max_position_embeddings,
            ).input_ids
            answers = [""] * len(tokens)
            by_length: dict[int, list[int]] = {}
            for place, ids in enumerate(tokens):
                by_length.setdefault(len(ids), []).append(place)
            for places in by_length.values():
                for part in _chunks(places, QUESTIONS):
                    rows = torch.stack([features[numbers[place]] for place in part])
                    texts = self._answer(rows, [tokens[place] for place in part])
                    for place, text in zip(part, texts, strict=True):
                        answers[place] = text
        return answers

    def _see(self, pictures: Sequence[Any]) -> Any:
        """Image features (pictures, patches + 1, width)."""
        pixels = self._image_processor(list(pictures), return_tensors="pt").pixel_values
        return self._model.vision_model(pixel_values=pixels.to(self._device, self._model.dtype))[0]

    def _answer(self, features: Any, tokens: list[list[int]]) -> list[str]:
        """As BlipForQuestionAnswering.generate does, from image features; questions of one length."""
        import torch

        model = self._model
        ids = torch.tensor(tokens, device=self._device)
        states = model.text_encoder(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            encoder_hidden_states=features,
            encoder_attention_mask=ids.new_ones(features.shape[:2]),
            return_dict=False,
        )[0]
        new = model.text_decoder.generate(
            input_ids=ids.new_full((len(ids), 1), model.decoder_start_token_id),
            eos_token_id=model.config.text_config.sep_token_id,
            pad_token_id=model.config.text_config.pad_token_id,
            encoder_hidden_states=states,
            encoder_attention_mask=torch.ones_like(ids),
            num_beams=self._arguments.num_beams,
            max_new_tokens=self._arguments.max_new_tokens,
            do_sample=False,
        )
        return [t.strip() for t in self._tokenizer.batch_decode(new, skip_special_tokens=True)]


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
