"""Settings of a call, checked before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from blip3o.errors import ConfigError

OutputType = Literal["pil", "np", "pt", "latent"]


@dataclass(frozen=True, kw_only=True)
class DrawSettings:
    """How pictures are sampled; None means the model's own.

    ``num_inference_steps`` and ``guidance_scale`` belong to the diffusion transformer, ``decoder_*`` to the pixel
    decoder. Raises: ConfigError for anything but whole steps of at least 1 and finite scales of at least 0.
    """

    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    decoder_steps: int | None = None
    decoder_guidance_scale: float | None = None

    def __post_init__(self) -> None:
        for name in ("num_inference_steps", "decoder_steps"):
            value = getattr(self, name)
            if value is not None:
                check_count(name, value)
        for name in ("guidance_scale", "decoder_guidance_scale"):
            value = getattr(self, name)
            if value is not None and not _is_scale(value):
                raise ConfigError(f"{name} must be a finite number of at least 0, got {value!r}")


def check_count(name: str, value: Any) -> None:
    """Raises: ConfigError unless the value is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}")
    if value < 1:
        raise ConfigError(f"{name} must be at least 1, got {value}")


def check_seed(value: Any) -> None:
    """Raises: ConfigError unless the value is a whole number that torch's generators take, counted on from 0."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ConfigError(f"seed must be a whole number from 0 to 2**63 - 1, got {value!r}")


def _is_scale(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0


def check_output_type(value: Any) -> None:
    if value not in get_args(OutputType):
        raise ConfigError(
            f"output_type {value!r} is unknown; choose pil, np, pt or latent (the image features)"
        )


def per_picture_generators(
    generator: torch.Generator | Sequence[torch.Generator] | None, count: int, noun: str = "pictures"
) -> list[torch.Generator]:
    """One CPU generator per picture, or whatever else is drawn.

    From a single generator a seed per picture is drawn, so that picture k is the same however many are made.
    Raises: ConfigError.
    """
    if isinstance(generator, Sequence):
        for entry in generator:
            _check_generator(entry)
        if len(generator) != count:
            raise ConfigError(f"{count} {noun} need one generator each, got {len(generator)}")
        return list(generator)
    if generator is None:
        generator = torch.Generator("cpu")
        generator.seed()
    _check_generator(generator)
    seeds = [int(torch.randint(2**62, (), generator=generator)) for _ in range(count)]
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def _check_generator(generator: Any) -> None:
    if not isinstance(generator, torch.Generator):
        raise ConfigError(
            f"generator must be a torch.Generator or a list of them, got {generator!r}; "
            "use torch.Generator('cpu').manual_seed(seed)"
        )
    if generator.device.type != "cpu":
        raise ConfigError(
            f"noise is drawn on the CPU, got a generator on {generator.device}; "
            "use torch.Generator('cpu').manual_seed(seed)"
        )
