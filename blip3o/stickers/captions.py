"""Texts about a scene: the GenEval prompt, short paraphrases, long dense captions."""

from __future__ import annotations

from .scenes import Scene

COUNT_WORDS = {2: "two", 3: "three", 4: "four"}


def article(words: str) -> str:
    """"a" or "an" in front, by the first letter as GenEval does."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plural(name: str) -> str:
    """GenEval's plural: "es" after s, else "s" ("knifes", "benchs", "sheeps"); skis and scissors stay."""
    if name in ("skis", "scissors"):
        return name
    return name + ("es" if name.endswith("s") else "s")


def phrase(name: str, color: str | None = None, count: int = 1) -> str:
    """"a red car", "three donuts"."""
    words = f"{color} {name if count == 1 else plural(name)}" if color else name if count == 1 else plural(name)
    return article(words) if count == 1 else f"{COUNT_WORDS[count]} {words}"


def prompt(scene: Scene) -> str:
    """The prompt in GenEval's grammar: "a photo of a red cup and a blue book"."""
    stickers = scene.stickers
    if scene.kind == "counting":
        return f"a photo of {phrase(stickers[0].class_name, None, len(stickers))}"
    if scene.kind == "position":
        first, second = (phrase(s.class_name) for s in stickers)
        return f"a photo of {first} {scene.relation} {second}"
    named = scene.kind in ("colors", "color_attr", "free")
    groups: dict[tuple[str, str | None], int] = {}
    for s in stickers:
        group = (s.class_name, s.color if named else None)
        groups[group] = groups.get(group, 0) + 1
    return "a photo of " + join([phrase(name, color, n) for (name, color), n in groups.items()])


def join(parts: list[str]) -> str:
    """"a", "a and b", "a, b and c"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
