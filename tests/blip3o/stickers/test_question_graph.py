"""Questions about what a long caption says, and whether they hold on a picture, by rule."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from blip3o.errors import DataError
from blip3o.stickers import SceneConfig, make_scene, render
from blip3o.stickers.captions import COUNT_WORDS, OPPOSITE, long_caption, plural
from blip3o.stickers.names import COLORS
from blip3o.stickers.question_graph import Fact, SceneQuestion, question_graph
from blip3o.stickers.question_rules import holds

KINDS = ("free", "color_attr", "position", "counting", "two_object", "single_object")


def scenes(count: int = 12, level: str = "easy"):
    for kind in KINDS:
        world = SceneConfig.level(level, kinds=((kind, 1.0),))
        for index in range(count):
            yield make_scene("test_seen", index, world)


def oracle(scene, drawn):
    """What a perfect detector finds, from the truth."""
    return [
        SimpleNamespace(class_name=s.class_name, score=0.99, box=tuple(box), mask=mask, color=s.color)
        for s, box, mask in zip(scene.stickers, drawn.boxes, drawn.masks, strict=True)
    ]


def test_every_question_asks_what_the_caption_says() -> None:
    for scene in scenes():
        caption = long_caption(scene)
        low = caption.lower()
        for node in question_graph(scene):
            fact = node.question.fact
            name = plural(fact.subject) if fact.number > 1 else fact.subject
            assert name in low
            if fact.kind in ("place", "color", "background"):
                assert fact.value in low
            if fact.kind == "count":
                assert f"{COUNT_WORDS[fact.number]} " in low
            if fact.kind == "relation":
                assert re.search(rf"The {name} is [a-z ]+ the {fact.other}\.", caption)


def test_parents_stand_before_their_questions_and_are_the_objects_they_name() -> None:
    for scene in scenes(10, "full"):
        graph = question_graph(scene)
        for number, node in enumerate(graph, start=1):
            fact = node.question.fact
            assert node.id == number and all(parent < number for parent in node.parents)
            named = [graph[parent - 1].question.fact for parent in node.parents]
            wanted = [] if fact.kind in ("entity", "background") else [fact.subject]
            wanted += [fact.other] if fact.kind == "relation" else []
            assert [f.subject for f in named] == wanted and {f.kind for f in named} <= {"entity"}


def test_wording_and_tuples_read_as_those_of_the_benchmark() -> None:
    many = Fact("entity", "bus", 3)
    assert many.text == "Are there buses?" and many.tuple == "entity - whole (buses)"
    assert Fact("count", "bus", 3).text == "Are there exactly three buses?"
    assert Fact("count", "bus", 3).tuple == "other - count (buses, ==3)"
    assert Fact("entity", "orange").text == "Is there an orange?"
    assert Fact("color", "cat", 1, "red").tuple == "attribute - color (cat, red)"
    above = Fact("relation", "cat", 1, "above", "dog")
    assert above.text == "Is the cat above the dog?"
    assert above.tuple == "relation - spatial (cat, dog, above)"
    assert Fact("background", value="cream").tuple == "global - (background, cream)"


def test_a_question_is_its_text_and_keeps_its_fact_through_pickling() -> None:
    question = SceneQuestion("Is the cat red?", Fact("color", "cat", 1, "red"))
    again = pickle.loads(pickle.dumps(question))
    assert again == "Is the cat red?" == str(question) and again.fact == question.fact


def test_all_hold_on_the_scenes_own_picture_and_none_of_their_opposites_does() -> None:
    asked = 0
    for scene in scenes(12):
        drawn = render(scene)
        found = oracle(scene, drawn)
        for node in question_graph(scene):
            fact = node.question.fact
            assert holds(fact, found, drawn.image), (scene.split, scene.index, scene.kind, node)
            for wrong in opposites(fact):
                asked += 1
                assert not holds(wrong, found, drawn.image), (scene.split, scene.index, wrong)
    assert asked > 400


def opposites(fact: Fact):
    if fact.kind == "entity":
        yield replace(fact, subject="no such class")
    elif fact.kind == "count":
        yield from (replace(fact, number=n) for n in (2, 3, 4) if n != fact.number)
    elif fact.kind == "color":
        yield from (replace(fact, value=c) for c in COLORS if c != fact.value)
    elif fact.kind == "place" and fact.number == 1:
        yield replace(fact, value="in the middle" if "middle" not in fact.value else "on the left")
    elif fact.kind == "relation":
        yield replace(fact, value=OPPOSITE[fact.value])
    elif fact.kind == "background":
        yield replace(fact, value="no such background")


def test_counting_needs_surer_detections_than_seeing() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    mask = np.zeros((64, 64), bool)
    found = [
        SimpleNamespace(class_name="cat", score=score, box=(0, 0, 9, 9), mask=mask, color="red")
        for score in (0.95, 0.91, 0.9, 0.2)
    ]
    assert holds(Fact("count", "cat", 2), found, pixels)
    assert not holds(Fact("count", "cat", 3), found, pixels)
    assert holds(Fact("color", "cat", 3, "red"), found, pixels)
    assert not holds(Fact("color", "cat", 4, "red"), found, pixels)
    assert not holds(Fact("entity", "cat"), found[3:], pixels)


def test_a_background_without_a_near_name_is_none_of_them() -> None:
    loud = np.full((8, 8, 3), (255, 0, 255), np.uint8)
    assert not holds(Fact("background", value="cream"), [], loud)
    assert holds(Fact("background", value="cream"), [], np.full((8, 8, 3), (240, 230, 210), np.uint8))
    covered = SimpleNamespace(class_name="cat", score=1.0, mask=np.ones((8, 8), bool))
    assert not holds(Fact("background", value="cream"), [covered], loud)


def test_two_colours_of_one_class_are_refused() -> None:
    scene = make_scene("test_seen", 0, SceneConfig.level("easy", kinds=(("counting", 1.0),)))
    first, *rest = scene.stickers
    with pytest.raises(DataError, match="in several colours"):
        question_graph(replace(scene, stickers=(replace(first, color="red"), *rest)))
