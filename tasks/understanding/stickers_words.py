"""Which of the 80 classes a text names, by a strict table of synonyms.

CHAIR (arXiv:1809.02156) reads captions through such a table; this one is our own, for the classes of the sticker
world. Strict: only words for the same thing, no kinds of it and no wholes or parts ("poodle" is not a dog here, "glass"
is not a wine glass); `person` alone has the everyday words for people. Longer terms are read first, so that a "hot dog"
is no dog, a "teddy bear" no bear and a "tv remote" no tv, and some compounds name no object at all.

"orange" is a fruit and a colour. It is the fruit in the plural, and in the singular when a determiner, a number word
or another colour stands before it and neither an object's name, a word for size or ground, nor "and" and a colour
follows: "an orange" and "a red orange", but "an orange cup", "the cup is orange", "a plain orange background".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "person": ("man", "woman", "boy", "girl", "child", "human", "lady", "guy", "men", "women", "people", "children"),
    "bicycle": ("bike",),
    "car": ("automobile",),
    "motorcycle": ("motorbike", "motor scooter"),
    "airplane": ("plane", "aeroplane", "aircraft"),
    "truck": ("lorry",),
    "boat": ("ship", "sailboat", "motorboat"),
    "traffic light": ("traffic signal", "stoplight"),
    "fire hydrant": ("hydrant",),
    "cat": ("kitten",),
    "dog": ("puppy",),
    "cow": ("cattle",),
    "backpack": ("rucksack", "knapsack"),
    "umbrella": ("parasol",),
    "handbag": ("purse",),
    "tie": ("necktie",),
    "suitcase": ("luggage",),
    "frisbee": ("flying disc", "flying disk"),
    "skis": ("ski",),
    "sports ball": ("ball", "soccer ball", "football", "basketball", "tennis ball"),
    "baseball bat": ("bat",),
    "baseball glove": ("baseball mitt",),
    "tennis racket": ("racket", "racquet", "tennis racquet"),
    "wine glass": ("wineglass",),
    "cup": ("mug", "teacup"),
    "hot dog": ("hotdog",),
    "donut": ("doughnut",),
    "couch": ("sofa",),
    "potted plant": ("plant", "houseplant"),
    "dining table": ("table",),
    "tv": ("television", "tv set", "television set"),
    "laptop": ("laptop computer", "notebook computer"),
    "computer mouse": ("mouse",),
    "tv remote": ("remote", "remote control", "tv remote control"),
    "computer keyboard": ("keyboard",),
    "cell phone": ("cellphone", "mobile phone", "smartphone", "phone"),
    "microwave": ("microwave oven",),
    "oven": ("stove",),
    "refrigerator": ("fridge",),
    "clock": ("alarm clock",),
    "scissors": ("pair of scissors",),
    "teddy bear": ("teddy", "stuffed bear"),
    "hair drier": ("hair dryer", "hairdryer", "blow dryer"),
}  # fmt: skip
"""Class -> other words for it, in the singular where there is one."""

# Compounds that hold the word for an object and do not name it.
_NO_OBJECT = (
    "bus stop", "car park", "train station", "toilet paper", "toilet seat", "dog house", "cat food", "dog food",
    "apple tree", "orange tree", "apple juice", "orange juice", "book shelf", "carrot cake", "table tennis",
    "bottle opener", "bird house", "bow tie",
)  # fmt: skip
_IRREGULAR = {
    "mouse": "mice", "computer mouse": "computer mice", "person": "persons", "sheep": "sheep", "luggage": "luggage",
    "cattle": "cattle", "aircraft": "aircraft", "men": "men", "women": "women", "people": "people",
    "children": "children", "scissors": "scissors", "skis": "skis",
}  # fmt: skip
_DETERMINERS = frozenset(
    "a an the one another this that each every single two three four 1 2 3 4".split()
)
_COLORED = ("colored", "coloured")
_NOT_A_FRUIT_BEFORE = frozenset(
    (*_COLORED, "background", "ground", "color", "colour", "large", "small", "big", "plain", "graded")
)
_WORD = re.compile(r"[^\W_]+")
_GENITIVE = re.compile(r"['\u2019]s\b")


def plurals(name: str) -> tuple[str, ...]:
    """Its plural in English, and as GenEval's prompts spell it ("knives" and "knifes")."""
    from blip3o.stickers.captions import plural

    if name in _IRREGULAR:
        english = _IRREGULAR[name]
    elif name.endswith(("s", "sh", "ch", "x")):
        english = f"{name}es"
    elif name.endswith("fe"):
        english = f"{name[:-2]}ves"
    elif name.endswith("y") and name[-2] not in "aeiou":
        english = f"{name[:-1]}ies"
    else:
        english = f"{name}s"
    return english, plural(name)


@lru_cache(maxsize=1)
def _terms() -> dict[tuple[str, ...], str | None]:
    """Words of a term -> its class, None for compounds that name no object."""
    from blip3o.stickers.names import CLASSES

    table: dict[tuple[str, ...], str | None] = {}
    for name in CLASSES:
        for word in (name, *SYNONYMS.get(name, ())):
            for form in (word, *plurals(word)):
                table[tuple(form.split())] = name
    for compound in _NO_OBJECT:
        for form in (compound, *plurals(compound)):
            table[tuple(form.split())] = None
    return table


def classes_named(text: str) -> list[str]:
    """The classes that a text names, in its order, once per mention. Linear in the length of the text."""
    from blip3o.stickers.names import COLORS

    table = _terms()
    longest = max(map(len, table))
    words = _WORD.findall(_GENITIVE.sub("", text.lower()))
    found: list[tuple[int, int, str | None]] = []  # from, to, class
    place = 0
    while place < len(words):
        for length in range(min(longest, len(words) - place), 0, -1):
            term = tuple(words[place : place + length])
            if term in table:
                found.append((place, place + length, table[term]))
                place += length
                break
        else:
            place += 1
    starts = {start for start, _, _ in found}
    return [
        name
        for start, end, name in found
        if name is not None
        and (words[start] != "orange" or end - start > 1 or _is_fruit(words, start, starts, COLORS))
    ]


def _is_fruit(words: list[str], at: int, objects: set[int], colors: tuple[str, ...]) -> bool:
    before = words[at - 1] if at else ""
    after, second = (words[at + k] if at + k < len(words) else "" for k in (1, 2))
    if len(words) == 1:
        return True
    if before not in _DETERMINERS and before not in colors and before not in _COLORED:
        return False
    if after in _NOT_A_FRUIT_BEFORE or (after == "and" and second in colors):
        return False
    return at + 1 not in objects
