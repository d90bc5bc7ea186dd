"""What a long caption says, as a graph of yes/no questions in the form of DPG-Bench (DSG, arXiv:2310.18235).

A question asks for one fact and rests on the questions about the objects it names: "Is the cat red?" means nothing
where there is no cat. On the scene's own picture the answer to each is yes. A question is its text for whoever reads
pictures, and carries its `Fact` for a judge that answers from what it detects: nobody has to understand the words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import DataError
from .captions import LARGE, article, phrase, plural, region
from .layout import clear_relation
from .scenes import Scene, Sticker

FactKind = Literal["entity", "count", "color", "place", "size", "relation", "background"]


@dataclass(frozen=True)
class Fact:
    """One statement about a picture.

    ``subject`` is a class ("" for the background), ``number`` how many of it the scene has. ``value``: the colour,
    the place in the words of `captions.region`, "large", the relation, the background's name; "" for entity and
    count. ``other`` is the class that a relation refers to.
    """

    kind: FactKind
    subject: str = ""
    number: int = 1
    value: str = ""
    other: str = ""

    @property
    def tuple(self) -> str:
        """The fact as DPG-Bench writes it: "attribute - color (cat, red)"."""
        name = plural(self.subject) if self.subject and self.number > 1 else self.subject
        return {
            "entity": f"entity - whole ({name})",
            "count": f"other - count ({name}, =={self.number})",
            "color": f"attribute - color ({name}, {self.value})",
            "place": f"relation - spatial ({name}, picture, {self.value})",
            "size": f"attribute - size ({name}, {self.value})",
            "relation": f"relation - spatial ({name}, {self.other}, {self.value})",
            "background": f"global - (background, {self.value})",
        }[self.kind]

    @property
    def text(self) -> str:
        """The fact as a question in English."""
        if self.kind == "background":
            return f"Is the background {self.value}?"
        many = self.number > 1
        name = plural(self.subject) if many else self.subject
        if self.kind == "entity":
            return f"Are there {name}?" if many else f"Is there {article(name)}?"
        if self.kind == "count":
            return f"Are there exactly {phrase(self.subject, None, self.number)}?"
        if self.kind == "place":
            one = f"one of the {name}" if many else f"the {name}"
            return f"Is {one} {self.value} of the picture?"
        rest = f"{self.value} the {self.other}" if self.kind == "relation" else self.value
        return f"{'Are' if many else 'Is'} the {name} {rest}?"


class SceneQuestion(str):
    """A question's text, with the fact that it asks for."""

    fact: Fact

    def __new__(cls, text: str, fact: Fact) -> SceneQuestion:
        self = super().__new__(cls, text)
        self.fact = fact
        return self

    def __getnewargs__(self) -> tuple[str, Fact]:  # type: ignore[override]
        return str(self), self.fact


@dataclass(frozen=True)
class Node:
    """A question of the graph. ``id`` counts from 1 within the scene; ``parents`` are earlier ids."""

    id: int
    parents: tuple[int, ...]
    question: SceneQuestion


def question_graph(scene: Scene) -> list[Node]:
    """The questions about everything that `captions.long_caption` says of a scene; parents stand first.

    Raises: DataError for a scene with two groups of one class, whose members a question could not tell apart.
    """
    groups: dict[str, list[Sticker]] = {}
    for sticker in scene.stickers:
        groups.setdefault(sticker.class_name, []).append(sticker)
    nodes: list[Node] = []
    entity: dict[str, int] = {}

    def ask(fact: Fact, *parents: int) -> int:
        nodes.append(Node(len(nodes) + 1, parents, SceneQuestion(fact.text, fact)))
        return len(nodes)

    for name, group in groups.items():
        if len({s.color for s in group}) > 1:
            raise DataError(f"scene {scene.split} {scene.index} shows {name} in several colours")
        n = len(group)
        entity[name] = root = ask(Fact("entity", name, n))
        if n > 1:
            ask(Fact("count", name, n), root)
        if color := group[0].color:
            ask(Fact("color", name, n, color), root)
        for place in dict.fromkeys(region(s) for s in group):
            ask(Fact("place", name, n, place), root)
        if n == 1 and group[0].placement.size > LARGE:
            ask(Fact("size", name, n, "large"), root)
    single = [group[0] for group in groups.values() if len(group) == 1]
    for a, b in zip(single, single[1:], strict=False):
        if relation := clear_relation(a.extent, b.extent):
            fact = Fact("relation", a.class_name, 1, relation, b.class_name)
            ask(fact, entity[a.class_name], entity[b.class_name])
    ask(Fact("background", value=scene.background.name))
    return nodes
