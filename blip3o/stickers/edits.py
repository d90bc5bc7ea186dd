"""Edit pairs: a scene, an instruction, and the scene after it. A pure function of (split, index, config)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import ConfigError
from .captions import phrase
from .layout import arrange, centred, clear_relation, pick_background
from .make import config_for, draw_content, picture_held_out
from .names import COLORS
from .rng import Stream
from .scenes import Background, Scene, SceneConfig, Sticker
from .splits import SPLITS

EDIT_KINDS: tuple[str, ...] = ("recolor", "remove", "add", "move")
_PLACES = {"left": (0.25, 0.5), "right": (0.75, 0.5), "top": (0.5, 0.25), "bottom": (0.5, 0.75)}


@dataclass(frozen=True)
class EditPair:
    """``target`` is ``source`` after ``instruction``; both share the background. ``kind`` is one of EDIT_KINDS.

    Both scenes have kind "free", so their specs name classes, counts and colours.
    """

    kind: str
    instruction: str
    source: Scene
    target: Scene


def make_edit(
    split: str, index: int, config: SceneConfig, kinds: tuple[str, ...] = EDIT_KINDS
) -> EditPair:
    """The edit pair number ``index`` of a split. Raises ConfigError for unknown splits or kinds.

    In the splits train, val, test_seen and unseen_style neither picture shows anything held out; in
    test_unseen the target does.
    """
    if not kinds or set(kinds) - set(EDIT_KINDS):
        raise ConfigError(f"edit kinds {kinds} must be some of {', '.join(EDIT_KINDS)}")
    config = config_for(split, index, config)
    draw = Stream("edit", split, index, config.scene_key, *kinds)
    kind, allowed = draw.choice(kinds), SPLITS[split]
    while True:
        before, after, words = _EDITS[kind](draw, config)
        if allowed == "seen" and (picture_held_out(before) or picture_held_out(after)):
            continue
        if allowed == "unseen" and not picture_held_out(after):
            continue
        background = pick_background(draw, tuple(dict.fromkeys(before + after)), config)
        return EditPair(
            kind, words, *(_scene(split, index, s, background, config) for s in (before, after))
        )


Edit = tuple[tuple[Sticker, ...], tuple[Sticker, ...], str]


def _scene(
    split: str,
    index: int,
    stickers: tuple[Sticker, ...],
    background: Background,
    config: SceneConfig,
) -> Scene:
    return Scene(split, index, "free", stickers, background, None, config.size_px)


def _stickers(draw: Stream, config: SceneConfig, kinds: tuple[str, ...]) -> tuple[Sticker, ...]:
    kind = draw.choice(kinds)
    objects, relation = draw_content(draw, kind, config)
    return arrange(draw, kind, objects, relation, config)[0]


def _name(sticker: Sticker) -> str:
    return (
        f"the {sticker.color} {sticker.class_name}"
        if sticker.color
        else f"the {sticker.class_name}"
    )


def _recolor(draw: Stream, config: SceneConfig) -> Edit:
    before = _stickers(draw, config, ("single_object", "colors", "two_object", "color_attr"))
    i = draw.integer(len(before))
    chosen = before[i]
    color = draw.choice([c for c in COLORS if c != chosen.color])
    after = (*before[:i], replace(chosen, color=color), *before[i + 1 :])
    words = draw.choice((
        f"make the {chosen.class_name} {color}", f"change the color of the {chosen.class_name} to {color}",
        f"turn {_name(chosen)} {color}", f"paint the {chosen.class_name} {color}",
    ))  # fmt: skip
    return before, after, words


def _remove(draw: Stream, config: SceneConfig) -> Edit:
    before = _stickers(draw, config, ("two_object", "color_attr"))
    i = draw.integer(2)
    verb = draw.choice(("remove", "delete", "take away", "erase"))
    return before, (before[1 - i],), f"{verb} {_name(before[i])}"


def _add(draw: Stream, config: SceneConfig) -> Edit:
    after = _stickers(draw, config, ("position",))
    new, old = after
    relation = clear_relation(new.extent, old.extent)
    words = phrase(new.class_name, new.color)
    if relation:
        words += f" {relation} the {old.class_name}"
    return (old,), after, f"{draw.choice(('add', 'put', 'place'))} {words}"


def _move(draw: Stream, config: SceneConfig) -> Edit:
    if draw.uniform() < 0.35:
        a, b = before = _stickers(draw, config, ("two_object", "color_attr"))
        swapped = (
            replace(a, placement=centred(a, b.placement.cx, b.placement.cy)),
            replace(b, placement=centred(b, a.placement.cx, a.placement.cy)),
        )
        words = draw.choice(
            (f"swap {_name(a)} and {_name(b)}", f"let {_name(a)} and {_name(b)} change places")
        )
        return before, swapped, words
    sticker = _stickers(draw, config, ("two_object", "color_attr"))[0]
    start, end = draw.sample(list(_PLACES), 2)
    old, new = (replace(sticker, placement=centred(sticker, *_PLACES[p])) for p in (start, end))
    verb = draw.choice(("move", "shift"))
    return (old,), (new,), f"{verb} {_name(sticker)} to the {end}"


_EDITS = {"recolor": _recolor, "remove": _remove, "add": _add, "move": _move}
