"""Scenes made from nothing but (split, index, configuration); the same on every machine."""

from __future__ import annotations

from dataclasses import replace

from ..errors import ConfigError
from .layout import arrange, relations
from .names import CLASSES, COLORS, RELATIONS, UNSEEN_STYLE
from .rng import Stream
from .scenes import Scene, SceneConfig, Sticker, scene_spec
from .splits import SPLITS, is_held_out, shows_held_out


def config_for(split: str, index: int, config: SceneConfig) -> SceneConfig:
    """The configuration a split really uses: the unseen style where asked, never in training. Raises ConfigError."""
    if split not in SPLITS:
        raise ConfigError(
            f"unknown split {split!r} of the sticker world; splits are {', '.join(SPLITS)}"
        )
    if index < 0:
        raise ConfigError(f"scene index {index} is negative")
    if split == "unseen_style":
        config = replace(config, styles=(UNSEEN_STYLE,))
    elif split in ("train", "val", "judge") and UNSEEN_STYLE in config.styles:
        raise ConfigError(f"style {UNSEEN_STYLE!r} is held out and cannot be in split {split!r}")
    return config


def make_scene(split: str, index: int, config: SceneConfig) -> Scene:
    """The scene number ``index`` of a split; the same on every machine. Raises ConfigError."""
    config = config_for(split, index, config)
    stream = Stream("scene", split, index, config.scene_key)
    allowed = SPLITS[split]
    kinds = config.kinds
    if allowed == "unseen":
        kinds = tuple((k, w) for k, w in kinds if k not in ("single_object", "counting"))
        if not any(w > 0 for _, w in kinds):
            raise ConfigError(
                "single objects and counts are never held out: split test_unseen needs other kinds"
            )
    kind = stream.weighted(kinds)
    while True:
        objects, relation = draw_content(stream, kind, config)
        if allowed == "unseen" and not is_held_out(scene_spec(kind, objects, relation)):
            continue
        if allowed == "seen" and shows_held_out(objects):
            continue
        stickers, background = arrange(stream, kind, objects, relation, config)
        if allowed == "seen" and picture_held_out(stickers):
            continue
        return Scene(split, index, kind, stickers, background, relation, config.size_px)


def picture_held_out(stickers: tuple[Sticker, ...]) -> bool:
    """True when a picture of these stickers shows anything held out, by what is seen, not by its caption.

    Relations of all pairs of different classes follow GenEval's rule on the outlines.
    """
    boxes = [s.extent for s in stickers]
    seen = [
        (i, relation, j)
        for i, a in enumerate(stickers)
        for j, b in enumerate(stickers)
        if i < j and a.class_name != b.class_name
        for relation in relations(boxes[i], boxes[j])
    ]
    return shows_held_out([(s.class_name, s.color) for s in stickers], seen)


def draw_content(
    stream: Stream, kind: str, config: SceneConfig
) -> tuple[list[tuple[str, str | None]], str | None]:
    """Classes and colours in order of mention, and the relation."""
    relation = None
    if kind in ("two_object", "position", "color_attr"):
        names = stream.sample(CLASSES, 2)
    elif kind == "counting":
        low, high = config.count_range
        names = [stream.choice(CLASSES)] * (low + stream.integer(high - low + 1))
    elif kind == "free":
        names = []
        n = 1 + stream.integer(4)
        while len(names) < n:  # groups stay together, so that a prompt can count them
            name = stream.choice([c for c in CLASSES if c not in names])
            names += [name] * min(n - len(names), stream.choice((1, 1, 1, 2, 3)))
    else:
        names = [stream.choice(CLASSES)]
    if kind == "position":
        relation = stream.choice(RELATIONS)
    if kind == "color_attr":
        colors: list[str | None] = list(stream.sample(COLORS, 2))
    elif kind == "colors":
        colors = [stream.choice(COLORS)]
    else:
        chance = 0.5 if kind == "free" else config.unnamed_tint
        by_class = {
            n: stream.choice(COLORS) if stream.uniform() < chance else None
            for n in dict.fromkeys(names)
        }
        colors = [by_class[n] for n in names]
    return list(zip(names, colors, strict=True)), relation
