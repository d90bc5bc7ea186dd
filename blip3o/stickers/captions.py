"""Texts about a scene: the GenEval prompt, short paraphrases, long dense captions. All of them are true of it."""

from __future__ import annotations

from .layout import clear_relation
from .rng import Stream
from .scenes import Scene, Sticker

LARGE = 0.6  # longest side, in fractions of the picture's side, above which a single object is called large
COUNT_WORDS = {1: "one", 2: "two", 3: "three", 4: "four"}
_FAR = {
    "left of": ("left of", "to the left of", "on the left side of"),
    "right of": ("right of", "to the right of", "on the right side of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_MEDIUM = ("a photo of", "a photo of", "a picture of", "an image of", "a sticker scene with", "")


def article(words: str) -> str:
    """ "a" or "an" in front, by the first letter as GenEval does."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plural(name: str) -> str:
    """GenEval's plural: "es" after s, else "s" ("knifes", "benchs", "sheeps"); skis and scissors stay."""
    if name in ("skis", "scissors"):
        return name
    return name + ("es" if name.endswith("s") else "s")


def phrase(name: str, color: str | None = None, count: int = 1) -> str:
    """ "a red car", "three donuts"."""
    words = name if count == 1 else plural(name)
    if color:
        words = f"{color} {words}"
    return article(words) if count == 1 else f"{COUNT_WORDS[count]} {words}"


def join(parts: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _groups(scene: Scene) -> dict[tuple[str, str | None], list[Sticker]]:
    """Stickers by (class, named colour), in order of mention."""
    named = scene.kind in ("colors", "color_attr", "free")
    groups: dict[tuple[str, str | None], list[Sticker]] = {}
    for s in scene.stickers:
        groups.setdefault((s.class_name, s.color if named else None), []).append(s)
    return groups


def prompt(scene: Scene) -> str:
    """The prompt in GenEval's grammar: "a photo of a red cup and a blue book"."""
    if scene.kind == "position":
        first, second = (phrase(s.class_name) for s in scene.stickers)
        return f"a photo of {first} {scene.relation} {second}"
    return "a photo of " + join([phrase(*key, len(group)) for key, group in _groups(scene).items()])


def short_caption(scene: Scene, seed: int = 0) -> str:
    """One of many short wordings of the prompt's content; ``seed`` asks for another one."""
    draw = Stream("short caption", seed, scene.split, scene.index, prompt(scene))
    medium = draw.choice(_MEDIUM)
    if scene.kind == "position":
        first, second = (phrase(s.class_name) for s in scene.stickers)
        relation = scene.relation or ""
        if draw.uniform() < 0.25:  # the same fact, told from the other object
            first, second, relation = second, first, OPPOSITE[relation]
        content = f"{first} {draw.choice(_FAR[relation])} {second}"
    else:
        groups = list(_groups(scene).items())
        if len(groups) == 2 and draw.uniform() < 0.25:
            groups.reverse()
        parts = [_wording(draw, key, len(group), len(groups)) for key, group in groups]
        content = join(parts)
        if len(parts) == 2 and draw.uniform() < 0.3:
            content = (
                f"{parts[0]} {draw.choice(('together with', 'with', 'along with'))} {parts[1]}"
            )
    if draw.uniform() < 0.2:
        content += f" on {article(scene.background.name)} background"
    return f"{medium} {content}".strip()


def _wording(draw: Stream, key: tuple[str, str | None], count: int, groups: int) -> str:
    name, color = key
    if count > 1:
        words = f"{color} {plural(name)}" if color else plural(name)
        options = [f"{COUNT_WORDS[count]} {words}", f"{count} {words}"]
        if groups == 1:
            options.append(f"a group of {COUNT_WORDS[count]} {words}")
        return draw.choice(options)
    if color:
        plain, rest = phrase(name, color), article(name)
        options = [plain, plain, plain, f"{article(color)}-colored {name}"]
        if groups == 1:
            options.append(f"{rest} that is {color}")
        return draw.choice(options)
    return phrase(name)


def region(sticker: Sticker) -> str:
    """Where a sticker stands: "on the left", "in the top right corner", "in the middle", ..."""
    return region_at(sticker.placement.cx, sticker.placement.cy)


def region_at(cx: float, cy: float) -> str:
    """The words for a centre, in fractions of the picture's sides."""
    across = "left" if cx < 0.37 else "right" if cx > 0.63 else ""
    down = "top" if cy < 0.37 else "bottom" if cy > 0.63 else ""
    if across and down:
        return f"in the {down} {across} corner"
    if across:
        return f"on the {across}"
    return f"at the {down}" if down else "in the middle"


def long_caption(scene: Scene, seed: int = 0) -> str:
    """A dense description: every object with its colour and place, their relations, the background."""
    draw = Stream("long caption", seed, scene.split, scene.index, prompt(scene))
    groups: dict[tuple[str, str | None], list[Sticker]] = {}
    for s in scene.stickers:
        groups.setdefault((s.class_name, s.color), []).append(s)
    total = [phrase(name, color, len(g)) for (name, color), g in groups.items()]
    opening = draw.choice(("The picture shows", "This image contains", "There is", "We see"))
    if opening == "There is" and len(next(iter(groups.values()))) > 1:
        opening = "There are"
    sentences = [f"{opening} {join(total)}."]
    for (name, color), group in groups.items():
        subject = f"{color} {name}" if color and len(groups) > 1 else name
        if len(group) == 1:
            size = "large " if group[0].placement.size > LARGE else ""
            sentences.append(draw.choice((
                f"The {size}{subject} is {region(group[0])}.",
                f"{region(group[0]).capitalize()} there is {article(f'{size}{subject}')}.",
            )))  # fmt: skip
        else:
            places = join([region(s) for s in group])
            sentences.append(f"The {COUNT_WORDS[len(group)]} {plural(subject)} are {places}.")
        if color is None:
            verb = "has its" if len(group) == 1 else "have their"
            noun = name if len(group) == 1 else plural(name)
            if draw.uniform() < 0.5:
                sentences.append(f"The {noun} {verb} usual colors.")
    single = [g[0] for g in groups.values() if len(g) == 1]
    for a, b in zip(single, single[1:], strict=False):
        relation = clear_relation(a.extent, b.extent)
        if relation and a.class_name != b.class_name:
            sentences.append(
                f"The {a.class_name} is {draw.choice(_FAR[relation])} the {b.class_name}."
            )
    ground = "plain" if scene.background.plain else "graded"
    sentences.append(
        draw.choice(
            (
                f"The background is {ground} {scene.background.name}.",
                f"Everything stands on {article(ground)} {scene.background.name} background.",
            )
        )  # fmt: skip
    )
    return " ".join(sentences)
