"""Questions about a scene with exact answers: yes/no pairs, counting, colour, position, multiple choice."""

from __future__ import annotations

from dataclasses import dataclass

from .captions import COUNT_WORDS, OPPOSITE, article, phrase, plural
from .layout import clear_relation
from .names import CLASSES, COLORS, RELATIONS
from .rng import Stream
from .scenes import Scene, Sticker
from .splits import SPLITS, held_out

LETTERS = "ABCD"
# Classes a stranger might take for each other are never offered as wrong answers for each other.
_LOOK_ALIKE = (
    frozenset({"bear", "teddy bear"}),
    frozenset({"cup", "bowl"}),
    frozenset({"tv", "laptop"}),
)


@dataclass(frozen=True)
class Question:
    """``kind`` is yes_no, count, color, position or choice; ``aspect`` is object, count, color or position.

    Answers: "yes"/"no"; a digit; a colour; a relation ("left of"); the letter of one of the four ``choices``.
    The two questions of a yes/no pair share ``pair`` (one answer is yes, the other no); elsewhere it is None.
    """

    kind: str
    question: str
    answer: str
    aspect: str
    choices: tuple[str, ...] = ()
    pair: int | None = None


def questions(scene: Scene, seed: int = 0) -> list[Question]:
    """All questions of a scene, in a fixed order; ``seed`` varies wording and wrong answers."""
    draw = Stream("questions", seed, scene.split, scene.index, *scene.stickers)
    groups = by_class(scene)
    result: list[Question] = []
    pairs: list[
        tuple[str, str, str]
    ] = []  # aspect, question with answer yes, question with answer no
    for name, group in groups.items():
        pairs.append(("object", _exists(draw, name), _exists(draw, _absent(draw, scene, 1)[0])))
        _count(draw, name, len(group), result, pairs)
        colors = {s.color for s in group}
        if len(colors) == 1 and (color := group[0].color):
            _color(draw, scene, name, color, len(group), result, pairs)
    for a, b, relation in clear_pairs(groups):
        _position(draw, a, b, relation, result, pairs)
    present = draw.choice(list(groups))
    wrong = _absent(draw, scene, 3)
    question = draw.choice(
        ("Which of these objects is in the picture?", "What can be seen in the picture?")
    )
    result.append(_choice(draw, question, "object", article(present), [article(w) for w in wrong]))
    for number, (aspect, yes, no) in enumerate(pairs):
        result.append(Question("yes_no", yes, "yes", aspect, pair=number))
        result.append(Question("yes_no", no, "no", aspect, pair=number))
    return result


def _exists(draw: Stream, name: str) -> str:
    return draw.choice((
        f"Is there {article(name)} in the picture?", f"Can you see {article(name)} in this image?",
        f"Does the picture show {article(name)}?",
    ))  # fmt: skip


def _absent(draw: Stream, scene: Scene, k: int) -> list[str]:
    """k classes that are not in the scene and do not look like one that is."""
    present = {s.class_name for s in scene.stickers}
    alike = {name for group in _LOOK_ALIKE if group & present for name in group}
    return draw.sample([c for c in CLASSES if c not in present and c not in alike], k)


def _count(
    draw: Stream, name: str, n: int, result: list[Question], pairs: list[tuple[str, str, str]]
) -> None:
    # Most objects stand alone. Asked always, "one" would be a safe guess; so it is asked about as often as
    # the other counts, and yes/no questions are about two, three and four only.
    if n == 1 and draw.uniform() > 0.1:
        return
    result.append(
        Question("count", f"How many {plural(name)} are in the picture?", str(n), "count")
    )
    others = [k for k in (1, 2, 3, 4) if k != n]
    if n > 1:
        wrong = draw.choice([k for k in others if k > 1])
        pairs.append(("count", _are_there(name, n), _are_there(name, wrong)))
    question = f"How many {plural(name)} does the picture show?"
    result.append(
        _choice(draw, question, "count", COUNT_WORDS[n], [COUNT_WORDS[k] for k in others])
    )


def _are_there(name: str, n: int) -> str:
    return f"Are there exactly {phrase(name, None, n)} in the picture?"


def _color(
    draw: Stream,
    scene: Scene,
    name: str,
    color: str,
    n: int,
    result: list[Question],
    pairs: list[tuple[str, str, str]],
) -> None:
    be, noun = ("is", name) if n == 1 else ("are", plural(name))
    taboo = held_out().class_colors if SPLITS[scene.split] == "seen" else frozenset()
    # Training texts never name a held-out pair, not even as a wrong answer.
    others = [c for c in COLORS if c != color and (name, c) not in taboo]
    result.append(Question("color", f"What color {be} the {noun}?", color, "color"))
    verb = be.capitalize()
    pairs.append(
        ("color", f"{verb} the {noun} {color}?", f"{verb} the {noun} {draw.choice(others)}?")
    )
    question = f"Which color {'does' if n == 1 else 'do'} the {noun} have?"
    result.append(_choice(draw, question, "color", color, draw.sample(others, 3)))


def by_class(scene: Scene) -> dict[str, list[Sticker]]:
    """The objects of each class, in the order in which the prompt mentions them."""
    groups: dict[str, list[Sticker]] = {}
    for sticker in scene.stickers:
        groups.setdefault(sticker.class_name, []).append(sticker)
    return groups


def clear_pairs(groups: dict[str, list[Sticker]]) -> list[tuple[str, str, str]]:
    """(class, class, relation) for single objects that stand clearly in one relation."""
    single = [group[0] for group in groups.values() if len(group) == 1]
    found = []
    for i, a in enumerate(single):
        for b in single[i + 1 :]:
            if relation := clear_relation(a.extent, b.extent):
                found.append((a.class_name, b.class_name, relation))
    return found


def _position(
    draw: Stream,
    a: str,
    b: str,
    relation: str,
    result: list[Question],
    pairs: list[tuple[str, str, str]],
) -> None:
    if draw.uniform() < 0.5:
        a, b, relation = b, a, OPPOSITE[relation]
    asked = f"Is the {a} left of, right of, above or below the {b}?"
    result.append(Question("position", asked, relation, "position"))
    # Above and below are rarer; a wrong answer from the other axis would make them "no" more often than not.
    wrong = OPPOSITE[relation]
    pairs.append(("position", f"Is the {a} {relation} the {b}?", f"Is the {a} {wrong} the {b}?"))
    others = [f"{r} the {b}" for r in RELATIONS if r != relation]
    result.append(_choice(draw, f"Where is the {a}?", "position", f"{relation} the {b}", others))


def _choice(draw: Stream, question: str, aspect: str, right: str, wrong: list[str]) -> Question:
    """Four options in random order; the answer is the letter of the right one."""
    options = draw.shuffled([right, *wrong])
    return Question("choice", question, LETTERS[options.index(right)], aspect, tuple(options))
