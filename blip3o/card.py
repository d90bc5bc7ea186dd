"""``blip3o.json`` beside the weights: how a model is to be used, readable without loading it; and file digests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from blip3o.config import build_part
from blip3o.errors import ConfigError, WeightsError
from blip3o.storage import file_digest, read_json, write_json
from blip3o.vision.preprocess import CLIP_MEAN, CLIP_STD, Fit

CARD_NAME = "blip3o.json"
DIGESTS_NAME = "digests.json"
MODES = ("ask", "generate", "reconstruct", "edit", "chat")


@dataclass(frozen=True, kw_only=True)
class Understanding:
    """How pictures are prepared for the backbone: a fixed square, or near their own size within a budget."""

    size_px: int | None = None
    fit: Fit = "square"
    min_pixels: int = 256 * 28 * 28
    max_pixels: int = 1605632
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        for name in ("min_pixels", "max_pixels"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} must be a whole number of pixels, at least 1; got {value!r}")
        if self.min_pixels > self.max_pixels:
            raise ConfigError(
                f"min_pixels {self.min_pixels} must not exceed max_pixels {self.max_pixels}"
            )

    def resized(self, min_pixels: int | None, max_pixels: int | None) -> Understanding:
        """With another budget of pixels. Raises: ConfigError for a model that reads squares of one size."""
        if min_pixels is None and max_pixels is None:
            return self
        if self.size_px is not None:
            raise ConfigError(
                f"this model reads every picture as a square of {self.size_px} px, so min_pixels and max_pixels do not "
                "apply; leave them out"
            )
        return replace(
            self,
            min_pixels=self.min_pixels if min_pixels is None else min_pixels,
            max_pixels=self.max_pixels if max_pixels is None else max_pixels,
        )


@dataclass(frozen=True, kw_only=True)
class PipelineCard:
    """``blip3o.json``: what a harness may want to know without loading weights, and how prompts are made.

    ``domain``: the pictures the model knows (``stickers``, ``photos``). ``dtype``: default precision.
    ``version``: raised when the weights change. ``modes``: what the weights were trained for, some of ``ask``,
    ``generate``, ``reconstruct``, ``edit``, ``chat``; empty where nobody said. ``licence``: what the weights inherit
    from their backbone, where known. The sampler's defaults and the picture size are written beside these from the
    model itself.
    """

    version: str = "1"
    domain: str = "photos"
    dtype: str = "float32"
    batch_size: int = 8
    is_random: bool = False
    prompts: dict[str, Any] = field(default_factory=dict)
    understanding: dict[str, Any] = field(default_factory=dict)
    reconstruction_size_px: int | None = None
    licence: str | None = None
    modes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "modes", tuple(self.modes))
        for mode in self.modes:
            if mode not in MODES:
                raise ConfigError(f"{CARD_NAME}: mode {mode!r} is unknown; known: {', '.join(MODES)}")
        if self.dtype not in ("float32", "float16", "bfloat16"):
            raise ConfigError(
                f"{CARD_NAME}: dtype {self.dtype!r} is unknown; use float32, float16 or bfloat16"
            )


# Keys of blip3o.json that repeat the model's own configuration for readers without torch.
DERIVED_KEYS = ("num_inference_steps", "guidance_scale", "height", "width", "compat", "format")


def read_card(folder: Path) -> PipelineCard:
    """``blip3o.json`` of a folder, or the defaults where there is none. Raises: WeightsError, ConfigError."""
    path = folder / CARD_NAME
    if not path.is_file():
        return PipelineCard()
    values = {key: value for key, value in read_json(path).items() if key not in DERIVED_KEYS}
    return build_part(PipelineCard, values, CARD_NAME)


def write_digests(folder: Path) -> None:
    """sha256 of every file that decides an output, in ``digests.json``."""
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != DIGESTS_NAME and not path.name.endswith((".md", ".log"))
    ]
    write_json(
        folder / DIGESTS_NAME,
        {path.relative_to(folder).as_posix(): file_digest(path) for path in files},
    )


def check_digests(folder: Path) -> None:
    """Compare the files with ``digests.json``, if there is one. Raises: WeightsError naming the first fault."""
    path = folder / DIGESTS_NAME
    if not path.is_file():
        return
    for name, digest in read_json(path).items():
        file = folder / name
        if not file.is_file():
            raise WeightsError(f"{file} is missing; fetch or install the model again")
        if file_digest(file) != digest:
            raise WeightsError(
                f"{file} is damaged or was changed (its sha256 is not the one in {DIGESTS_NAME}); "
                "fetch or install the model again, or save it with save_pretrained"
            )
