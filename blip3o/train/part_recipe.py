"""Recipes of a model's parts: target tower, autoencoder, pixel decoder, sticker judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from blip3o.config import suggestion
from blip3o.errors import ConfigError
from blip3o.train.data_spec import DataSpec
from blip3o.train.schedule import LoopConfig

PartKind = Literal["clip", "autoencoder", "decoder", "judge"]


@dataclass(frozen=True)
class PartSpec:
    """What learns, what is frozen and which losses count, in words; ``settings``: names and types of what a recipe may
    set, those of ``needed`` must be; ``kinds``: of data; ``needs_model``: whether it starts from a model's folder."""

    learns: str
    frozen: str
    losses: str
    settings: dict[str, type]
    needed: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ("captions", "reconstruction")
    needs_model: bool = False


PARTS: dict[str, PartSpec] = {
    "clip": PartSpec(
        "both CLIP towers, the projection to feature channels, a pixel decoder",
        "nothing",
        "contrastive + decoder_weight * the decoder's flow matching",
        {
            "clip": dict, "channels": int, "decoder": dict, "decoder_weight": float, "decoder_pictures": int,
            "vocab_size": int,
        },
        ("clip", "decoder"),
        ("captions",),
    ),
    "autoencoder": PartSpec(
        "encoder and decoder of a VAE",
        "nothing",
        "absolute error of pixels + edge_weight * that of their differences + kl_weight * KL divergence",
        {"vae": dict, "kl_weight": float, "edge_weight": float},
        ("vae",),
    ),
    "decoder": PartSpec(
        "the pixel decoder of a model",
        "its target encoder",
        "flow matching on features with noise of up to feature_noise standard deviations",
        {"feature_noise": float, "decoder": dict},
        needs_model=True,
    ),
    "judge": PartSpec(
        "detector and colour classifier of the sticker judge",
        "nothing",
        "detection with masks; colours",
        {"color_steps": int, "color_lr": float, "color_batch": int, "calibration_scenes": int, "first_scene": int},
        kinds=("captions",),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PartRecipe:
    """Everything that decides what a part learns.

    ``data``: as in a model's recipe; the judge's are levels of the sticker world. ``model``: the folder to start from
    (``decoder``: needed, a model with its target encoder; ``judge``: weights of one). ``settings``: see ``PARTS``.
    """

    stage: PartKind
    data: tuple[DataSpec, ...]
    loop: LoopConfig
    model: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 32
    workers: int = 4
    shuffle_block: int = 1024
    max_bad_share: float = 0.01

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigError("; ".join(problems))

    def _problems(self) -> Iterator[str]:
        """Every contradiction, so that they are mended in one go."""
        spec = PARTS[self.stage]
        for name, value in self.settings.items():
            wanted = spec.settings.get(name)
            if wanted is None:
                yield f"stage '{self.stage}' knows no settings.{name}{suggestion(name, list(spec.settings))}"
            elif isinstance(value, bool) or not isinstance(value, (int, float) if wanted is float else wanted):
                yield f"settings.{name} must be of type {wanted.__name__}, got {value!r}"
        for name in spec.needed:
            if name not in self.settings:
                yield f"stage '{self.stage}' needs settings.{name}"
        if spec.needs_model and self.model is None:
            yield f"stage '{self.stage}' needs model: the folder that it starts from"
        if self.loop.sharding != "ddp":
            yield f"loop.sharding {self.loop.sharding}: parts are small and only replicated (ddp)"
        if not self.data:
            yield "data is empty: name at least one data set"
        for data in self.data:
            if data.kind not in spec.kinds:
                yield (
                    f"data set '{data.name}' is of kind {data.kind}; stage '{self.stage}' takes "
                    f"{' or '.join(spec.kinds)}"
                )
            if self.stage == "judge" and data.layout != "stickers":
                yield f"data set '{data.name}': the judge learns on the sticker world alone (layout: stickers)"
            if not data.weight > 0 or not data.paths:
                yield f"data set '{data.name}' needs paths and a weight greater than 0"
        if self.batch_size < 1 or self.workers < 0 or self.shuffle_block < 1:
            yield (
                f"batch_size {self.batch_size}, workers {self.workers}, shuffle_block {self.shuffle_block}: "
                "at least 1, 0 and 1"
            )
