"""Where the stickers of a scene stand, which sprites they are, and a background they stand out from."""

from __future__ import annotations

import colorsys
import math
from functools import lru_cache

from .rng import Stream
from .scenes import EASY_BACKGROUNDS, RGB, Background, Placement, SceneConfig, Sticker
from .sprites import Sprite, lab_of, sprite, sprites, vanishing

Box = tuple[float, float, float, float]

# Cell centres by number of objects, in reading order.
_CELLS: dict[int, tuple[tuple[float, float], ...]] = {
    1: ((0.5, 0.5),),
    2: ((0.25, 0.5), (0.75, 0.5)),
    3: ((0.26, 0.27), (0.74, 0.27), (0.5, 0.74)),
    4: ((0.26, 0.26), (0.74, 0.26), (0.26, 0.74), (0.74, 0.74)),
}
_RELATION_CELLS: dict[str, tuple[tuple[float, float], ...]] = {
    "left of": ((0.25, 0.5), (0.75, 0.5)),
    "right of": ((0.75, 0.5), (0.25, 0.5)),
    "above": ((0.5, 0.25), (0.5, 0.75)),
    "below": ((0.5, 0.75), (0.5, 0.25)),
}


def relations(a: Box, b: Box) -> list[str]:
    """GenEval's relations of box a to box b (x1, y1, x2, y2): offset of centres, shrunk by a tenth of the sizes."""
    return [name for name, strength in relation_strengths(a, b).items() if strength > 0.5]


def clear_relation(a: Box, b: Box) -> str | None:
    """The one relation of a to b that nobody would dispute, or None when they stand diagonally or too close."""
    strengths = relation_strengths(a, b)
    held = [name for name, strength in strengths.items() if strength > 0.5]
    return held[0] if len(held) == 1 and strengths[held[0]] > 0.6 else None


def relation_strengths(a: Box, b: Box) -> dict[str, float]:
    """Relation -> its component of the shrunk, normalised offset; a relation holds above 0.5."""
    offset = [(a[i] + a[i + 2] - b[i] - b[i + 2]) / 2 for i in (0, 1)]
    reach = [0.1 * (abs(a[i + 2] - a[i]) + abs(b[i + 2] - b[i])) for i in (0, 1)]
    length = math.hypot(*offset)
    shrunk = [math.copysign(max(abs(o) - r, 0.0), o) for o, r in zip(offset, reach, strict=True)]
    if length == 0 or max(map(abs, shrunk)) < 1e-3:
        return dict.fromkeys(("left of", "right of", "above", "below"), 0.0)
    x, y = shrunk[0] / length, shrunk[1] / length
    return {"left of": -x, "right of": x, "above": -y, "below": y}


def arrange(
    stream: Stream,
    kind: str,
    objects: list[tuple[str, str | None]],
    relation: str | None,
    config: SceneConfig,
) -> tuple[tuple[Sticker, ...], Background]:
    """Choose sprites, places and background for (class, colour) objects."""
    chosen = _choose_sprites(stream, kind, objects, config)
    places = None
    if config.free_layout:
        places = _free(stream, chosen, relation, config)
    if places is None:
        places = _grid(stream, chosen, relation, config)
    stickers = tuple(
        Sticker(name, color, s.style, s.id, place)
        for (name, color), s, place in zip(objects, chosen, places, strict=True)
    )
    return stickers, pick_background(stream, stickers, config)


def _choose_sprites(
    stream: Stream, kind: str, objects: list[tuple[str, str | None]], config: SceneConfig
) -> list[Sprite]:
    """One style per scene; objects of one class share a sprite unless ``mixed_sprites`` says otherwise."""
    style = stream.choice(config.styles)
    mixed = stream.uniform() < config.mixed_sprites
    chosen: dict[str, Sprite] = {}
    result = []
    for name, _ in objects:
        options = sprites(name, style)[: 1 if config.first_sprite_only else None]
        if mixed or name not in chosen:
            chosen[name] = stream.choice(options)
        result.append(chosen[name])
    return result


def _grid(
    stream: Stream, chosen: list[Sprite], relation: str | None, config: SceneConfig
) -> list[Placement]:
    """Fixed cells with a little jitter; objects stand left to right, top to bottom in order of mention."""
    cells = _RELATION_CELLS[relation] if relation else _CELLS[len(chosen)]
    low, high = config.sizes[len(chosen) - 1]
    places = []
    for (cx, cy), s in zip(cells, chosen, strict=True):
        size = stream.uniform(low, high)
        dx, dy = (stream.uniform(-config.jitter, config.jitter) for _ in range(2))
        places.append(_inside(cx + dx, cy + dy, size, s))
    return places


def _inside(cx: float, cy: float, size: float, s: Sprite) -> Placement:
    w, h = (size * side / 2 for side in s.aspect)
    return Placement(
        round(min(max(cx, w), 1 - w), 4), round(min(max(cy, h), 1 - h), 4), round(size, 4)
    )


def centred(sticker: Sticker, cx: float, cy: float) -> Placement:
    """The sticker's size at another centre, kept inside the picture."""
    source = sprite(sticker.class_name, sticker.style, sticker.sprite)
    return _inside(cx, cy, sticker.placement.size, source)


def _free(
    stream: Stream, chosen: list[Sprite], relation: str | None, config: SceneConfig
) -> list[Placement] | None:
    """Random places with at most ``max_overlap`` of the smaller box covered; None after too many tries."""
    low, high = config.sizes[len(chosen) - 1]
    for _ in range(12):
        places: list[Placement] = []
        boxes: list[Box] = []
        for s in chosen:
            for _ in range(12):
                size = stream.uniform(low, high)
                w, h = (size * side / 2 for side in s.aspect)
                place = _inside(stream.uniform(w, 1 - w), stream.uniform(h, 1 - h), size, s)
                box = (place.cx - w, place.cy - h, place.cx + w, place.cy + h)
                if all(_overlap(box, other) <= config.max_overlap for other in boxes):
                    places.append(place)
                    boxes.append(box)
                    break
            else:
                break
        if len(places) < len(chosen):
            continue
        if relation is None:
            return places
        strengths = relation_strengths(boxes[0], boxes[1])
        second = max(v for name, v in strengths.items() if name != relation)
        if strengths[relation] > 0.62 and second < 0.38:  # margins that rounding to pixels cannot eat
            return places
    return None


def _overlap(a: Box, b: Box) -> float:
    """Share of the smaller box that the other covers."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


@lru_cache(maxsize=65_536)
def _vanishing(name: str, style: str, sprite_id: str, color: str | None, rgb: RGB) -> float:
    return vanishing(sprite(name, style, sprite_id), color, (rgb,))


def pick_background(
    stream: Stream, stickers: tuple[Sticker, ...], config: SceneConfig
) -> Background:
    """One against which no sticker's rim vanishes by more than a quarter; else the best one seen."""
    keys = list(dict.fromkeys((s.class_name, s.style, s.sprite, s.color) for s in stickers))
    if config.backgrounds == "easy":
        worst = [
            (max(_vanishing(*k, rgb) for k in keys), name, rgb) for name, rgb in EASY_BACKGROUNDS
        ]
        best = min(w for w, _, _ in worst)
        good = [(name, rgb) for w, name, rgb in worst if w <= max(0.25, best)]
        name, rgb = stream.choice(good)
        return Background(name, rgb, rgb)
    best_seen: tuple[float, Background] | None = None
    for _ in range(6):
        background = _any_background(stream)
        colors = {background.first, background.second}
        worst_rim = max(
            vanishing(sprite(name, style, i), color, colors) for name, style, i, color in keys
        )
        if best_seen is None or worst_rim < best_seen[0]:
            best_seen = (worst_rim, background)
        if worst_rim <= 0.25:
            break
    assert best_seen is not None
    return best_seen[1]


_NAMES: tuple[tuple[str, RGB], ...] = (
    ("white", (244, 244, 244)), ("light grey", (205, 208, 212)), ("grey", (138, 140, 144)),
    ("dark grey", (74, 76, 80)), ("black", (26, 26, 28)), ("cream", (243, 234, 208)),
    ("light red", (226, 150, 140)), ("dark red", (120, 40, 38)), ("light orange", (236, 184, 124)),
    ("brown", (116, 80, 50)), ("light yellow", (238, 228, 140)), ("olive", (126, 122, 56)),
    ("light green", (160, 212, 154)), ("dark green", (38, 92, 50)), ("turquoise", (96, 190, 186)),
    ("light blue", (156, 198, 232)), ("blue", (62, 108, 188)), ("dark blue", (32, 46, 98)),
    ("light purple", (190, 164, 224)), ("dark purple", (82, 48, 118)), ("pink", (238, 172, 202)),
)  # fmt: skip


def _any_background(stream: Stream) -> Background:
    first = _any_color(stream)
    if stream.uniform() < 0.4:
        return Background(_color_name(first), first, first)
    second = _any_color(stream)
    names = list(dict.fromkeys((_color_name(first), _color_name(second))))
    return Background(" and ".join(names), first, second, round(stream.uniform(0, 2 * math.pi), 3))


def _any_color(stream: Stream) -> RGB:
    """Any hue, from pale to fairly strong, from dark to light."""
    r, g, b = colorsys.hsv_to_rgb(
        stream.uniform(), stream.uniform(0, 0.65), stream.uniform(0.22, 1.0)
    )
    return round(255 * r), round(255 * g), round(255 * b)


def _color_name(rgb: RGB) -> str:
    """Nearest named background colour."""
    here = lab_of(rgb)
    return min(_NAMES, key=lambda item: float(((lab_of(item[1]) - here) ** 2).sum()))[0]
