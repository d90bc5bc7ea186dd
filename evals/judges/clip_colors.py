"""Which of ten colours an object has, by CLIP, as djghosh13/geneval (commit af4902f) asks it.

CLIP ViT-L/14 of OpenAI with QuickGELU, which these weights were trained with. open_clip 3 builds `ViT-L-14` with the
ordinary GELU and merely warns, so the network is built here with `quick_gelu` set, whatever a config says. Per class
and colour three texts; each embedding is normalised, their mean is normalised again; logit = 100 x cosine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.errors import JudgeError, MissingRequirementError, UsageError, shown
from evals.io.digests import file_digest
from evals.judges.mask2former import autocast
from evals.models.hub import local_snapshot

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
HUB_ID = "timm/vit_large_patch14_clip_224.openai"
"""OpenAI's ViT-L/14 in the format of open_clip."""

ARCHITECTURE = "ViT-L-14-quickgelu"
WEIGHTS_NAME = "open_clip_model.safetensors"
CONFIG_NAME = "open_clip_config.json"
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_CROPS_AT_ONCE = 64


@dataclass(frozen=True)
class ClipWeights:
    """`file`: safetensors with open_clip's names. `config`: its open_clip_config.json, None for ViT-L/14."""

    file: Path
    config: Path | None
    digest: str
    source: str


def find_clip(spec: str) -> ClipWeights:
    """The weights of a folder, a safetensors file or a hub id ("" means OpenAI's ViT-L/14).

    Raises: MissingRequirementError with what to fetch; UsageError for something else.
    """
    path = Path(spec).expanduser()
    if spec and path.is_file():
        if path.suffix != ".safetensors":
            raise UsageError(
                f"clip={shown(spec)} is no safetensors file: pickles and TorchScript are not loaded; "
                f"`hf download {HUB_ID} {WEIGHTS_NAME}` fetches the same weights"
            )
        return _weights(path, None, str(path))
    if spec and not path.is_dir() and (spec.startswith((".", "/", "~")) or spec.count("/") != 1):
        raise UsageError(f"clip={shown(spec)} is no file, folder or hub id")
    folder = path if spec and path.is_dir() else local_snapshot(spec or HUB_ID, None)
    file = folder / WEIGHTS_NAME
    if not file.is_file():
        raise MissingRequirementError(
            f"{folder} holds no {WEIGHTS_NAME}: `hf download {HUB_ID} {WEIGHTS_NAME} {CONFIG_NAME}` fetches it, "
            "or give clip=FILE"
        )
    config = folder / CONFIG_NAME
    return _weights(file, config if config.is_file() else None, spec or HUB_ID)


def _weights(file: Path, config: Path | None, source: str) -> ClipWeights:
    return ClipWeights(file, config, file_digest(file), source)


class ClipColors:
    """The loaded classifier. The text embeddings of a class are computed once."""

    def __init__(self, model: Any, transform: Any, tokenize: Any, device: str, dtype: str) -> None:
        self._model, self._transform, self._tokenize = model, transform, tokenize
        self._device, self._dtype = device, dtype
        self._texts: dict[str, Tensor] = {}

    @classmethod
    def load(cls, weights: ClipWeights, device: str, dtype: str) -> ClipColors:
        """Raises JudgeError when the file is damaged or of another architecture."""
        import open_clip
        from open_clip.factory import load_checkpoint
        from open_clip.model import CLIP

        try:
            config = _model_config(weights.config)
            model = CLIP(**{**config, "quick_gelu": True})
            load_checkpoint(model, str(weights.file), strict=True)
        except Exception as error:  # safetensors, torch and open_clip each have their own
            reason = " ".join(str(error).split())[:200]
            raise JudgeError(
                f"the colour classifier {weights.file} cannot be loaded ({reason}): fetch it again"
            ) from error
        size = config["vision_cfg"]["image_size"]
        transform = open_clip.image_transform(
            size, is_train=False, mean=_MEAN, std=_STD, interpolation="bicubic", resize_mode="shortest"
        )
        tokenize = open_clip.SimpleTokenizer(context_length=config["text_cfg"]["context_length"])
        return cls(model.float().eval().to(device), transform, tokenize, device, dtype)

    def logits(
        self, crops: Sequence[Image.Image], class_names: Sequence[str]
    ) -> list[tuple[float, ...]]:
        """Ten logits per crop (`evals.judges.color_crops`) of an object of the class, in the order of `COLORS`."""
        import torch

        rows: list[tuple[float, ...]] = []
        for start in range(0, len(crops), _CROPS_AT_ONCE):
            part = crops[start : start + _CROPS_AT_ONCE]
            names = class_names[start : start + _CROPS_AT_ONCE]
            pixels = torch.stack([self._transform(crop) for crop in part]).to(self._device)
            with torch.inference_mode(), autocast(self._device, self._dtype):
                images = self._model.encode_image(pixels, normalize=True).float()
            texts = torch.stack([self._class_texts(name) for name in names])  # (n, 10, D)
            rows += [tuple(row) for row in (100.0 * torch.einsum("nd,ncd->nc", images, texts)).tolist()]
        return rows

    def _class_texts(self, name: str) -> Tensor:
        """(10, D): one direction per colour."""
        import torch

        if name not in self._texts:
            texts = [t.format(color=color, name=name) for color in COLORS for t in TEMPLATES]
            tokens = self._tokenize(texts).to(self._device)
            with torch.inference_mode(), autocast(self._device, self._dtype):
                found = self._model.encode_text(tokens, normalize=True).float()
            mean = found.view(len(COLORS), len(TEMPLATES), -1).mean(dim=1)
            self._texts[name] = torch.nn.functional.normalize(mean, dim=-1)
        return self._texts[name]


def _model_config(path: Path | None) -> dict[str, Any]:
    """embed_dim, vision_cfg and text_cfg for open_clip's CLIP class."""
    import open_clip

    if path is None:
        config = open_clip.get_model_config(ARCHITECTURE)
    else:
        config = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
    if config is None or set(config) - {"quick_gelu"} != {"embed_dim", "vision_cfg", "text_cfg"}:
        raise ValueError(f"{path} is not the configuration of a plain CLIP")
    return dict(config)


def joint_digest(*parts: str) -> str:
    """One digest of several."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
