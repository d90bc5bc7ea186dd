"""Scenes as values: the settings of the world, what a picture shows and where."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from ..errors import ConfigError
from .names import STYLES, TAGS, TRAINING_STYLES

RGB = tuple[int, int, int]

#: name -> RGB of the plain backgrounds of the level "easy"
EASY_BACKGROUNDS: tuple[tuple[str, RGB], ...] = (
    ("light grey", (218, 222, 226)),
    ("cream", (244, 234, 208)),
    ("pale blue", (190, 214, 236)),
    ("pale green", (194, 220, 190)),
    ("slate grey", (84, 100, 120)),
)
KIND_WEIGHTS: tuple[tuple[str, float], ...] = (
    ("single_object", 0.14), ("two_object", 0.19), ("counting", 0.15),
    ("colors", 0.13), ("position", 0.19), ("color_attr", 0.20),
)  # fmt: skip


@dataclass(frozen=True)
class SceneConfig:
    """Everything that shapes a scene. Lengths are fractions of the picture's side.

    ``size_px`` only sets the resolution: the same scene is drawn at any size. ``sizes`` gives, by number of
    objects, the range of the longest side. ``level`` returns the two named settings.
    """

    name: str = "easy"
    size_px: int = 64
    styles: tuple[str, ...] = ("noto",)
    first_sprite_only: bool = True
    kinds: tuple[tuple[str, float], ...] = KIND_WEIGHTS
    count_range: tuple[int, int] = (2, 4)
    sizes: tuple[tuple[float, float], ...] = (
        (42 / 64, 46 / 64), (27 / 64, 28 / 64), (25 / 64, 27 / 64), (25 / 64, 27 / 64),
    )  # fmt: skip
    jitter: float = 1 / 64
    free_layout: bool = False
    max_overlap: float = 0.0
    backgrounds: str = "easy"  # "easy": the five plain ones; "any": plain or graded, any colour
    unnamed_tint: float = 0.0  # chance that an object whose colour the prompt leaves open is tinted
    mixed_sprites: float = 0.0  # chance that counted objects differ in sprite

    def __post_init__(self) -> None:
        problems = []
        if self.size_px < 16:
            problems.append(f"size_px {self.size_px} is below 16")
        if not self.styles or set(self.styles) - set(STYLES):
            problems.append(f"styles {self.styles} must be some of {', '.join(STYLES)}")
        if unknown := {k for k, _ in self.kinds} - {*TAGS, "free"}:
            problems.append(f"kinds {sorted(unknown)} must be some of {', '.join(TAGS)}, free")
        if not any(w > 0 for _, w in self.kinds) or any(w < 0 for _, w in self.kinds):
            problems.append("kinds needs weights of at least 0 and one above 0")
        if not 2 <= self.count_range[0] <= self.count_range[1] <= 4:
            problems.append(f"count_range {self.count_range} must lie within (2, 4)")
        if len(self.sizes) != 4 or any(not 0 < a <= b <= 0.95 for a, b in self.sizes):
            problems.append("sizes needs four (low, high) pairs with 0 < low <= high <= 0.95")
        if self.backgrounds not in ("easy", "any"):
            problems.append(f"backgrounds {self.backgrounds!r} must be easy or any")
        if problems:
            raise ConfigError("scene configuration: " + "; ".join(problems))

    @classmethod
    def level(cls, name: str, **changes: Any) -> SceneConfig:
        """The named level "easy" or "full", with fields changed as asked."""
        if name == "easy":
            return replace(cls(), **changes)
        if name == "full":
            full = cls(
                name="full",
                styles=TRAINING_STYLES,
                first_sprite_only=False,
                kinds=(*((k, 0.8 * w) for k, w in KIND_WEIGHTS), ("free", 0.2)),
                sizes=((0.4, 0.85), (0.3, 0.48), (0.26, 0.42), (0.24, 0.4)),
                free_layout=True,
                max_overlap=0.12,
                backgrounds="any",
                unnamed_tint=0.3,
                mixed_sprites=0.5,
            )
            return replace(full, **changes)
        raise ConfigError(f"unknown level {name!r} of the sticker world; levels are easy, full")

    @cached_property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of all fields."""
        return _digest(asdict(self))

    @cached_property
    def scene_key(self) -> str:
        """As ``digest`` without name and resolution: what decides a scene's content."""
        return _digest({k: v for k, v in asdict(self).items() if k not in ("name", "size_px")})


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Placement:
    """Centre and longest side, as fractions of the picture's side."""

    cx: float
    cy: float
    size: float


@dataclass(frozen=True)
class Sticker:
    """One object: a class in one of the ten colours (None: as drawn), in a style, by sprite id, at a place."""

    class_name: str
    color: str | None
    style: str
    sprite: str
    placement: Placement

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 as fractions of the picture's side, from the sprite's outline."""
        from .sprites import sprite

        w, h = sprite(self.class_name, self.style, self.sprite).aspect
        p = self.placement
        w, h = w * p.size / 2, h * p.size / 2
        return p.cx - w, p.cy - h, p.cx + w, p.cy + h


@dataclass(frozen=True)
class Background:
    """A plain colour, or a linear gradient from ``first`` to ``second`` along ``angle`` (radians)."""

    name: str
    first: RGB
    second: RGB
    angle: float = 0.0

    @property
    def plain(self) -> bool:
        return self.first == self.second


@dataclass(frozen=True)
class Scene:
    """What a picture shows. ``stickers`` are in the order in which the prompt mentions them.

    In kind "position" the first sticker stands ``relation`` the second. Colours count as named in the kinds
    "colors", "color_attr" and "free" only.
    """

    split: str
    index: int
    kind: str
    stickers: tuple[Sticker, ...]
    background: Background
    relation: str | None = None
    size_px: int = field(default=64, compare=False)

    def spec(self) -> dict[str, Any]:
        """GenEval metadata: tag, include, exclude (counting only), prompt."""
        from .captions import prompt

        spec = scene_spec(
            self.kind, [(s.class_name, s.color) for s in self.stickers], self.relation
        )
        return {**spec, "prompt": prompt(self)}


def scene_spec(
    kind: str, objects: list[tuple[str, str | None]], relation: str | None
) -> dict[str, Any]:
    """GenEval metadata without the prompt, from (class, colour) in the order of mention."""
    if kind == "counting":
        name, n = objects[0][0], len(objects)
        return {
            "tag": kind,
            "include": [{"class": name, "count": n}],
            "exclude": [{"class": name, "count": n + 1}],
        }
    if kind == "position":
        (placed, _), (reference, _) = objects
        return {
            "tag": kind,
            "include": [
                {"class": reference, "count": 1},
                {"class": placed, "count": 1, "position": [relation, 0]},
            ],
        }
    named = kind in ("colors", "color_attr", "free")
    groups: dict[tuple[str, str | None], int] = {}
    for name, color in objects:
        group = (name, color if named else None)
        groups[group] = groups.get(group, 0) + 1
    include = [
        {"class": name, "count": n, **({"color": color} if color else {})}
        for (name, color), n in groups.items()
    ]
    return {"tag": kind, "include": include}
