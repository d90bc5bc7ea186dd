"""A CLIP model as judge of fit between picture and text: `--judge clip`, `clip:FOLDER` or `clip:owner/name`.

Through transformers, weights as safetensors from a folder or the hub's cache. Default `openai/clip-vit-large-patch14`,
torchmetrics' default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.api import Identity, ModelOptions
from evals.errors import JudgeError, MissingRequirementError, UsageError, shown
from evals.io.digests import folder_digest

HUB_ID = "openai/clip-vit-large-patch14"
_DIGESTED = (".safetensors", ".json", ".txt")


@dataclass(frozen=True)
class Similarity:
    """Cosine of a picture and a text; ``is_cut``: the text was longer than the encoder reads."""

    cosine: float
    is_cut: bool


class ClipJudge:
    """`similarity` of pictures and texts. Reading the folder is cheap; ``load`` builds the network."""

    def __init__(self, folder: Path, label: str, device: str) -> None:
        self._folder, self._wanted_device, self.encoder = folder, device, label.rpartition("/")[2]
        self._model: Any = None
        self._processor: Any = None
        self._tokenizer: Any = None
        self.identity = Identity(
            name=f"clip:{label}",
            version="1",
            digest=folder_digest(folder, _DIGESTED),
            domain="photos",
            batch_size=16,
        )

    def load(self) -> None:
        """Raises JudgeError for weights that do not fit."""
        from safetensors import SafetensorError
        from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

        from evals.models.devices import resolve_device

        self._device = resolve_device(self._wanted_device)
        try:
            model, report = CLIPModel.from_pretrained(
                self._folder, use_safetensors=True, output_loading_info=True, local_files_only=True
            )
            self._tokenizer = AutoTokenizer.from_pretrained(
                self._folder, trust_remote_code=False, local_files_only=True
            )
            self._processor = CLIPImageProcessorPil.from_pretrained(self._folder, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            line = " ".join(str(error).split())[:200]
            raise JudgeError(f"judge {self.identity.name!r} cannot be loaded from {self._folder}: {line}") from error
        missing = sorted(report["missing_keys"])
        if missing:
            raise JudgeError(
                f"judge {self.identity.name!r}: {self._folder} lacks {len(missing)} weights, the first is {missing[0]}"
            )
        self._model = model.float().to(self._device).eval()

    def close(self) -> None:
        self._model = self._processor = self._tokenizer = None

    def accuracy(self) -> Mapping[str, Any]:
        """Cosines are not right or wrong."""
        return {}

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
    from evals.models.hub import local_snapshot

    extra = dict(options.extra)
    revision = extra.pop("revision", None)
    if extra:
        raise UsageError(f"unknown key {shown(f'judge.args.{next(iter(extra))}')}. Known: revision.")
    name = spec or HUB_ID
    folder = Path(name).expanduser()
    if folder.is_dir():
        label = folder.resolve().name
    elif name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UsageError(f"judge folder {shown(name)} does not exist: give a folder or a hub id")
    else:
        folder, label = local_snapshot(name, revision), name
    if not any(folder.glob("*.safetensors")):
        raise MissingRequirementError(
            f"judge folder {folder} has no .safetensors file: other formats can run code and are not read"
        )
    return ClipJudge(folder, label, options.device)
